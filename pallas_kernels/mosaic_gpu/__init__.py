"""Products on NVIDIA's Hopper GPUs (compute capability 9.0), in the Mosaic dialect of Pallas.

Block-sparse matrices in bfloat16 and float16, with both gradients; int8 and int4 matrices, dense and block-sparse,
forward.  The compiler targets 9.0 alone: on other GPUs ask for "xla".
"""

from typing import Any, cast

import jax
import jax.numpy as jnp

from pallas_kernels import _compat
from pallas_kernels._interface import Epilogue, Format
from pallas_kernels.block_sparse import BlockSparse
from pallas_kernels.mosaic_gpu import blocks, codes
from pallas_kernels.quantized import Quantized

PLATFORMS = ("gpu",)
DTYPES = (jnp.bfloat16, jnp.float16)
BLOCKS = (64, 128)


def refuse(operation: str, x: jax.ShapeDtypeStruct, w: Format, interpret: bool = False) -> str | None:
    """See `Implementation.refuse`."""
    if interpret and not _compat.interprets_mosaic_gpu():
        return f"interpreting its kernels takes JAX 0.11, and this is {jax.__version__}"
    if x.dtype not in DTYPES:
        return f"it multiplies bfloat16 and float16, not {x.dtype}; cast the activations and the weights"
    if x.shape[0] == 0:
        return "there are no rows to multiply"
    if not isinstance(w, BlockSparse | Quantized):
        return f"it has no kernel for {type(w).__name__}"
    if isinstance(w, BlockSparse) and not (w.block[0] in BLOCKS and w.block[1] in BLOCKS):
        return f"it takes blocks of 64 or 128 inputs by 64 or 128 outputs, not {w.block[0]} x {w.block[1]}"
    q = w.values if isinstance(w, BlockSparse) else w
    if isinstance(q, Quantized):
        return codes.refuse(q) if operation == "matmul" else "it multiplies with codes in the forward direction only"
    if operation != "outer" and w.dtype != x.dtype:
        return f"x is {x.dtype} and the weights are {w.dtype}; cast one of them"
    return None


def matmul(x: jax.Array, w: Format, bias: jax.Array | None, epilogue: Epilogue, *, interpret: bool) -> jax.Array:
    """See `Implementation.matmul`; `refuse` says for what."""
    if isinstance(w, Quantized) or isinstance(cast(BlockSparse, w).values, Quantized):
        return codes.product(x, cast(BlockSparse | Quantized, w), bias, epilogue, interpret=interpret)
    return blocks.product(x, cast(BlockSparse, w), bias, epilogue, interpret=interpret)


def transposed(g: jax.Array, w: Format, out_dtype: Any, *, interpret: bool) -> jax.Array:
    """See `Implementation.transposed`; `refuse` says for what."""
    epilogue = Epilogue(None, out_dtype)
    return blocks.product(g, cast(BlockSparse, w), None, epilogue, turned=True, interpret=interpret)


def outer(x: jax.Array, g: jax.Array, w: Format, *, interpret: bool) -> jax.Array:
    """See `Implementation.outer`; `refuse` says for what."""
    return blocks.outer(x, g, cast(BlockSparse, w), interpret=interpret)
