"""Products in plain XLA operations: the CPU's path, and the fallback everywhere."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from pallas_kernels._interface import Epilogue, Format, on_pattern, wide
from pallas_kernels.block_sparse import BlockSparse
from pallas_kernels.channels import Channels
from pallas_kernels.dense import Dense
from pallas_kernels.sliced import Sliced

PLATFORMS = ("cpu", "gpu", "tpu")


def refuse(operation: str, x: jax.ShapeDtypeStruct, w: Format, interpret: bool = False) -> str | None:
    """Nothing: it is the fallback everywhere."""
    return None


def matmul(x: jax.Array, w: Format, bias: jax.Array | None, epilogue: Epilogue, *, interpret: bool) -> jax.Array:
    """``epilogue(x @ w, bias)``, in a form that suits the format."""
    if isinstance(w, BlockSparse):
        product = _blocks(x, w.dequantize(), False) if by_blocks(x.shape[0], w) else _dot(x, w.todense())
        return epilogue(product, bias)
    if isinstance(w, Sliced):
        return epilogue(_sliced(x, w), bias)
    if isinstance(w, Channels):
        kept = x if w.inputs is None else x[:, w.inputs]
        product = _dot(kept, w.values)
        if w.outputs is not None:
            product = jnp.zeros((x.shape[0], w.shape[1]), product.dtype).at[:, w.outputs].set(product)
        return epilogue(product, bias)
    if isinstance(w, Dense) and w.transposed:
        return epilogue(
            lax.dot_general(x, w.values, (((1,), (1,)), ((), ())), preferred_element_type=wide(x.dtype)), bias
        )
    return epilogue(_dot(x, w.todense()), bias)


def transposed(g: jax.Array, w: Format, out_dtype: Any, *, interpret: bool) -> jax.Array:
    """``g @ w.T``."""
    if isinstance(w, BlockSparse) and by_blocks(g.shape[0], w):
        return _blocks(g, w.dequantize(), True).astype(out_dtype)
    if isinstance(w, Channels):
        kept = g if w.outputs is None else g[:, w.outputs]
        product = _dot(kept, w.values.T)
        if w.inputs is not None:
            product = jnp.zeros((g.shape[0], w.shape[0]), product.dtype).at[:, w.inputs].set(product)
        return product.astype(out_dtype)
    return _dot(g, w.todense().T).astype(out_dtype)


def outer(x: jax.Array, g: jax.Array, w: Format, *, interpret: bool) -> jax.Array:
    """``x.T @ g`` on the pattern of `w`."""
    if isinstance(w, BlockSparse):
        tiles = _tiles(x, w.grid[0], w.block[0])[w.rows], _tiles(g, w.grid[1], w.block[1])[w.columns]
        return jnp.einsum("tmk,tmn->tkn", *tiles, preferred_element_type=wide(x.dtype)).astype(w.dtype)
    if isinstance(w, Channels):
        x = x if w.inputs is None else x[:, w.inputs]
        g = g if w.outputs is None else g[:, w.outputs]
        return _dot(x.T, g).astype(w.dtype)
    return on_pattern(_dot(x.T, g), w).astype(w.dtype)


def by_blocks(rows: Any, w: BlockSparse) -> bool:
    """Whether a product per block beats unfolding the weights: not if blocks are small, or middling and rows many.

    `rows` of the activations may be symbolic, and counts as many then.
    """
    area = w.block[0] * w.block[1]
    return area >= 256 or (area >= 64 and isinstance(rows, int) and rows < 64)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, preferred_element_type=wide(a.dtype))


def _tiles(x: jax.Array, count: int, size: int) -> jax.Array:
    """[M, count * size] (padded if shorter) -> [count, M, size]."""
    x = jnp.pad(x, ((0, 0), (0, count * size - x.shape[1])))
    return x.reshape(x.shape[0], count, size).swapaxes(0, 1)


def _blocks(x: jax.Array, w: BlockSparse, turned: bool) -> jax.Array:
    """One small product per block, summed by output block: x @ w, or x @ w.T if `turned`."""
    values, source, target = w.values, w.rows, w.columns
    grid, block, shape = w.grid, w.block, w.shape
    if turned:
        # In the order of the inputs, so that the sums are over runs.
        values, source, target = values[w.order].swapaxes(1, 2), w.columns[w.order], w.rows[w.order]
        grid, block, shape = grid[::-1], block[::-1], shape[::-1]
    products = jnp.einsum(
        "tmk,tkn->tmn", _tiles(x, grid[0], block[0])[source], values, preferred_element_type=wide(x.dtype)
    )
    out = jax.ops.segment_sum(products, target, grid[1], indices_are_sorted=True)
    return out.swapaxes(0, 1).reshape(x.shape[0], grid[1] * block[1])[:, : shape[1]]


def _sliced(x: jax.Array, w: Sliced) -> jax.Array:
    """A gather of input blocks and one product per output block, outputs first."""
    rows, (bk, bn) = x.shape[0], w.block
    tiles = _tiles(x, w.grid[0], bk).swapaxes(1, 2)  # [input blocks, bk, M]
    # One batched product gathers everything at once: faster while that fits the cache.
    together = isinstance(rows, int) and (rows <= 4 or (rows <= 16 and bk * bn >= 256))
    out = []
    for values, inputs in zip(w.slices, w.inputs, strict=True):
        width = values.shape[2]
        if together:
            gathered = tiles[inputs].reshape(len(inputs), width, rows)
            product = jnp.einsum("rns,rsm->rnm", values, gathered, preferred_element_type=wide(x.dtype))
        else:
            product = lax.map(lambda row: _dot(row[0], tiles[row[1]].reshape(row[0].shape[1], rows)), (values, inputs))
        out.append(product)
    return jnp.concatenate(out)[w.place].reshape(w.grid[1] * bn, rows)[: w.shape[1]].T
