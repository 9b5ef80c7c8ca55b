"""Products for the CPU in C++ (kernels.cc), compiled on demand with the system's compiler: an extra, never required.

XLA calls the compiled functions through its typed foreign function interface and lends them its threads.  Nothing is
built before a product is computed with ``implementation="native"``: the library passes without a compiler.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pallas_kernels._interface import Epilogue, Format
from pallas_kernels.block_sparse import BlockSparse
from pallas_kernels.native._build import available, library, ready
from pallas_kernels.quantized import Quantized

__all__ = ["PLATFORMS", "available", "conv", "matmul", "outer", "ready", "refuse", "transposed"]

PLATFORMS = ("cpu",)
MOST_LANES = 64  # rows of x that share a panel
FEW_POSITIONS = 64  # of a convolution, whose patches may as well be written out
MOST_ROWS = 4  # that int8 codes are read for; with 16, converting them costs what reading floats does


def refuse(operation: str, x: jax.ShapeDtypeStruct, w: Format, interpret: bool = False) -> str | None:
    """Why these kernels cannot do it, as a clause; None if they can.  Builds nothing."""
    if isinstance(w, Quantized):
        if operation != "matmul" or w.bits != 8 or w.codebook is not None or len(w.shape) != 2:
            return "of Quantized it has x @ w for 8-bit codes without a codebook only"
        if x.shape[0] > MOST_ROWS:
            return f"it reads int8 codes for at most {MOST_ROWS} rows of x, not {x.shape[0]}; use w.dequantize()"
    elif not isinstance(w, BlockSparse):
        return f"it multiplies BlockSparse and Quantized, not {type(w).__name__}"
    elif isinstance(w.values, Quantized):
        return "its blocks hold float32, not codes; use w.dequantize()"
    for name, dtype in (("activations", x.dtype), ("weights", w.dtype)):
        if dtype != jnp.float32:
            return f"it computes in float32, and the {name} are {dtype}"
    if not available():
        return "it is compiled on demand, and no C++ compiler was found: install g++ or set CXX"
    return None


def matmul(
    x: Float[Array, "M K"],
    w: BlockSparse | Quantized,
    bias: Float[Array, "N"] | None,
    epilogue: Epilogue,
    *,
    interpret: bool,
) -> Float[Array, "M N"]:
    """``epilogue(x @ w, bias)``; the bias is added inside, the activation by XLA."""
    bias = jnp.zeros(0, jnp.float32) if bias is None else bias.astype(jnp.float32)
    if isinstance(w, BlockSparse):
        product = _product(x, w, w.rows, w.starts, jnp.zeros(0, jnp.int32), bias, turned=False)
    elif x.shape[0]:
        library()
        (product,) = _call("cjx_quantized", ((x.shape[0], w.shape[1]),))(x, w.codes, w.scale, bias)
    else:
        product = jnp.zeros((0, w.shape[1]), jnp.float32)
    return epilogue(product, None)


def conv(
    x: Float[Array, "batch height width channels"],
    w: BlockSparse,
    bias: Float[Array, "N"] | None,
    epilogue: Epilogue,
    window: tuple[int, int],
    strides: tuple[int, int],
    dilation: tuple[int, int],
    before: tuple[int, int],
    out: tuple[int, int],
) -> Float[Array, "batch rows columns N"]:
    """``epilogue(convolution(x, w), bias)``, without patches.

    `before` is the padding above and on the left, `out` the rows and columns of outputs.
    """
    library()
    bias = jnp.zeros(0, jnp.float32) if bias is None else bias.astype(jnp.float32)
    sides = {"taps": window, "strides": strides, "dilation": dilation, "before": before}
    call = _call("cjx_convolution", ((x.shape[0], *out, w.shape[1]),))
    (product,) = call(x, w.values, w.rows, w.starts, bias, **{k: np.array(v, np.int64) for k, v in sides.items()})
    return epilogue(product, None)


def transposed(g: Float[Array, "M N"], w: BlockSparse, out_dtype: Any, *, interpret: bool) -> Float[Array, "M K"]:
    """``g @ w.T``."""
    return _product(g, w, w.columns, w.order_starts, w.order, jnp.zeros(0, jnp.float32), turned=True).astype(out_dtype)


def outer(
    x: Float[Array, "M K"], g: Float[Array, "M N"], w: BlockSparse, *, interpret: bool
) -> Float[Array, "T bk bn"]:
    """``x.T @ g`` at the blocks of `w`."""
    if not x.shape[0]:
        return jnp.zeros_like(w.values)
    lanes = _lanes(x.shape[0], _vector_width())
    shapes = (w.values.shape, _panels(x.shape[0], w.padded[0], lanes), _panels(x.shape[0], w.padded[1], lanes))
    return _call("cjx_sampled", shapes)(x, g, w.rows, w.columns)[0]


def _product(
    x: Array, w: BlockSparse, index: Array, starts: Array, order: Array, bias: Array, *, turned: bool
) -> Array:
    inputs, size = (w.padded[1], w.shape[0]) if turned else (w.padded[0], w.shape[1])
    if not x.shape[0]:
        return jnp.zeros((0, size), jnp.float32)
    width = _vector_width()
    lanes = 1 if x.shape[0] == 1 else _lanes(x.shape[0], width)
    shapes = ((x.shape[0], size), _panels(x.shape[0], inputs, lanes))
    return _call("cjx_product", shapes)(x, w.values, index, starts, order, bias, turned=turned)[0]


def _vector_width() -> int:
    return library().cjx_vector_width()


def _lanes(rows: int, width: int) -> int:
    """Rows that share a panel: whole vectors."""
    return min(MOST_LANES, -(-rows // width) * width)


def _panels(rows: int, features: int, lanes: int) -> tuple[int, int, int]:
    """The shape of packed activations; kernels take the room for them as one more result."""
    return -(-rows // lanes), features, lanes


def _call(target: str, shapes: tuple[tuple[int, ...], ...]) -> Any:
    results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.ffi.ffi_call(target, results, vmap_method="sequential")
