"""Products on TPUs, in Pallas kernels for Mosaic.

`blocks` walks lists of blocks; `planes` expands N:M and low-bit weights in vector memory.  Bias and activation are
applied in the kernel, to the float32 sums.  `interpret` is False, True (on any platform) or `pltpu.InterpretParams`,
which simulates memories and transfers as well.
"""

from typing import Any

import jax

from pallas_kernels._interface import Epilogue
from pallas_kernels.block_sparse import BlockSparse
from pallas_kernels.mosaic_tpu import blocks, planes
from pallas_kernels.mosaic_tpu._refuse import refuse
from pallas_kernels.nm import NM
from pallas_kernels.quantized import Quantized

__all__ = ["PLATFORMS", "matmul", "outer", "refuse", "transposed"]

PLATFORMS = ("tpu",)

Packed = BlockSparse | NM | Quantized


def matmul(x: jax.Array, w: Packed, bias: jax.Array | None, epilogue: Epilogue, *, interpret: Any) -> jax.Array:
    """``epilogue(x @ w, bias)``."""
    return _room(w).multiply(x, w, bias, epilogue, interpret=interpret)


def transposed(g: jax.Array, w: Packed, out_dtype: Any, *, interpret: Any) -> jax.Array:
    """``g @ w.T``."""
    return _room(w).multiply_transposed(g, w, out_dtype, interpret=interpret)


def outer(x: jax.Array, g: jax.Array, w: BlockSparse, *, interpret: Any) -> jax.Array:
    """``x.T @ g`` at the blocks of `w`."""
    return blocks.outer(x, g, w, interpret=interpret)


def _room(w: Packed) -> Any:
    return blocks if isinstance(w, BlockSparse) else planes
