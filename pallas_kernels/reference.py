"""The reference: NumPy, dense, float64.  Slow and obvious; what every kernel is compared with.

It runs on the host, also from inside of compiled functions.
"""

from typing import Any

import jax
import numpy as np

from pallas_kernels._interface import Epilogue, Format, on_pattern

PLATFORMS = ("cpu", "gpu", "tpu")


def refuse(operation: str, x: jax.ShapeDtypeStruct, w: Format, interpret: bool = False) -> str | None:
    """Nothing: it computes everything, slowly."""
    return None


def matmul(x: jax.Array, w: Format, bias: jax.Array | None, epilogue: Epilogue, *, interpret: bool) -> jax.Array:
    """The product in float64, then the epilogue in float32."""
    product = _on_host(lambda x, w: x @ w, (x.shape[0], w.shape[1]), np.float32, x, w.todense())
    return epilogue(product, bias)


def transposed(g: jax.Array, w: Format, out_dtype: Any, *, interpret: bool) -> jax.Array:
    """``g @ w.T`` in float64."""
    return _on_host(lambda g, w: g @ w.T, (g.shape[0], w.shape[0]), out_dtype, g, w.todense())


def outer(x: jax.Array, g: jax.Array, w: Format, *, interpret: bool) -> jax.Array:
    """``x.T @ g`` in float64."""
    dense = _on_host(lambda x, g: x.T @ g, w.shape, w.dtype, x, g)
    return on_pattern(dense, w)


def _on_host(function: Any, shape: tuple[int, ...], dtype: Any, *operands: jax.Array) -> jax.Array:
    def compute(*arrays: Any) -> np.ndarray:
        wide = (np.asarray(a).astype(np.float64) for a in arrays)
        return np.asarray(function(*wide)).astype(dtype)

    return jax.pure_callback(compute, jax.ShapeDtypeStruct(shape, dtype), *operands, vmap_method="sequential")
