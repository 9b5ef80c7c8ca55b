"""Block-sparse products: the grid walks the list of blocks, and index maps read where each belongs.

    DSD    y[:, n] = sum over blocks t of column n:  x[:, rows[t]] @ values[t]
    DSD^T  the same walk in the order of the inputs, with rows and columns swapped and the blocks turned
    SDD    values[t] = x[:, rows[t]].T @ g[:, columns[t]]

(named as in MegaBlocks, Gale et al., arXiv 2211.15841: D is dense, S is sparse, the result comes first).  The list, in
scalar memory, is sorted by output block; so one float32 accumulator is cleared when a new output block begins and is
written, through bias and activation, when it ends.  A panel of whole rows of `x` stays in vector memory during the
walk: `x` is read once, where tiles of it would be read once per block.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels._interface import Epilogue
from pallas_kernels.block_sparse import BlockSparse
from pallas_kernels.mosaic_tpu import _call, _expand
from pallas_kernels.quantized import Quantized

PANEL, TALL = 512, 2048  # rows of a panel in a walk; rows summed at once in SDD


def multiply(x: jax.Array, w: BlockSparse, bias: Any, epilogue: Epilogue, *, interpret: Any) -> jax.Array:
    """``epilogue(x @ w, bias)``: DSD."""
    place = jnp.arange(w.rows.shape[0], dtype=jnp.int32)
    return _walk(x, w, (w.rows, w.columns, place), False, bias, epilogue, interpret)


def multiply_transposed(g: jax.Array, w: BlockSparse, out_dtype: Any, *, interpret: Any) -> jax.Array:
    """``g @ w.T``: DSD^T."""
    walk = w.columns[w.order], w.rows[w.order], w.order
    return _walk(g, w, walk, True, None, Epilogue(None, out_dtype), interpret)


def outer(x: jax.Array, g: jax.Array, w: BlockSparse, *, interpret: Any) -> jax.Array:
    """``x.T @ g`` at the blocks of `w`: SDD."""
    (bk, bn), count, rows = w.block, w.rows.shape[0], outer_rows(x, w, interpret)
    dtype = jnp.promote_types(x.dtype, g.dtype)
    tall = _call.up(x.shape[0], rows)

    def kernel(rows_ref: Any, columns_ref: Any, x_ref: Any, g_ref: Any, out_ref: Any, acc_ref: Any) -> None:
        step = pl.program_id(1)

        @pl.when(step == 0)
        def _() -> None:
            acc_ref[...] = jnp.zeros_like(acc_ref)

        acc_ref[...] += _call.dot(x_ref[...], g_ref[...], (0, 0), dtype)

        @pl.when(step == pl.num_programs(1) - 1)
        def _() -> None:
            out_ref[...] = acc_ref[...].astype(out_ref.dtype)

    return _call.call(
        kernel,
        ((count, bk, bn), w.dtype),
        (count, tall // rows),
        (w.rows, w.columns),
        (
            (_call.pad(x, tall, w.padded[0]), pl.BlockSpec((rows, bk), lambda t, i, rows, columns: (i, rows[t]))),
            (_call.pad(g, tall, w.padded[1]), pl.BlockSpec((rows, bn), lambda t, i, rows, columns: (i, columns[t]))),
        ),
        pl.BlockSpec((None, bk, bn), lambda t, i, rows, columns: (t, 0, 0)),
        (bk, bn),
        interpret,
    )


def panel_rows(x: Any, w: BlockSparse, turned: bool, interpret: Any) -> int:
    """Rows of `x` (or of cotangents) that stay in vector memory during a walk; 0 if none fit."""
    inputs, (bk, bn) = w.padded[turned], w.block
    # Two buffers of every operand and result; the accumulator and the product; the expanded tile.
    each = 2 * inputs * x.dtype.itemsize + (bk if turned else bn) * 16
    return _call.rows_of(x.shape[0], each, 4 * bk * bn * 4, PANEL, interpret)


def outer_rows(x: Any, w: BlockSparse, interpret: Any) -> int:
    """Rows of `x` and of the cotangents that are summed at once; 0 if none fit."""
    bk, bn = w.block
    return _call.rows_of(x.shape[0], 12 * (bk + bn), 4 * bk * bn * 4, TALL, interpret)


def _walk(
    x: jax.Array,
    w: BlockSparse,
    walk: tuple[jax.Array, jax.Array, jax.Array],
    turned: bool,
    bias: Any,
    epilogue: Epilogue,
    interpret: Any,
) -> jax.Array:
    """The walk: the source and the target of every step, and the place of its block in the list of values."""
    # Of inputs and outputs of the product, which are those of `w` swapped if it is turned.
    (k, n), (bk, bn), (_, outputs) = (pair[::-1] if turned else pair for pair in (w.padded, w.block, w.shape))
    quantized, count = isinstance(w.values, Quantized), w.rows.shape[0]
    dtype = x.dtype if quantized else jnp.promote_types(x.dtype, w.dtype)
    rows = panel_rows(x, w, turned, interpret)
    tall = _call.up(x.shape[0], rows)

    def block(array: jax.Array) -> tuple[jax.Array, pl.BlockSpec]:
        return array, pl.BlockSpec((None, *array.shape[1:]), lambda i, t, source, target, place: (place[t], 0, 0))

    panel = pl.BlockSpec((rows, k), lambda i, t, source, target, place: (i, 0))
    inputs = [(_call.pad(x, tall, k), panel)]
    if bias is not None:
        row = pl.BlockSpec((1, bn), lambda i, t, source, target, place: (0, target[t]))
        inputs.append((_call.pad(bias.astype(jnp.float32)[None], 1, n), row))
    inputs += [block(w.values.codes), block(w.values.scale)] if quantized else [block(w.values)]
    codebook = quantized and w.values.codebook is not None
    if codebook:
        inputs.append((w.values.codebook.astype(jnp.float32), pl.BlockSpec(memory_space=pltpu.SMEM)))

    def expand(refs: Sequence[Any]) -> jax.Array:
        if not quantized:
            return refs[0][...]
        tiles = _expand.levels(refs[0][...], w.values.bits, refs[2] if codebook else None)
        whole = tiles[0] if len(tiles) == 1 else jnp.concatenate(tiles, 0)
        return _expand.scaled(whole, refs[1][...])

    def kernel(source: Any, target: Any, place: Any, x_ref: Any, *refs: Any) -> None:
        bias_ref, packed, out_ref, acc_ref = _call.parted(refs, bias is not None)
        t = pl.program_id(1)

        @pl.when((t == 0) | (target[t] != target[jnp.maximum(t - 1, 0)]))
        def _() -> None:
            acc_ref[...] = jnp.zeros_like(acc_ref)

        here = pl.ds(pl.multiple_of(source[t] * bk, bk), bk)
        acc_ref[...] += _call.dot(x_ref[:, here], expand(packed), (1, int(turned)), dtype)

        @pl.when((t == count - 1) | (target[t] != target[jnp.minimum(t + 1, count - 1)]))
        def _() -> None:
            out_ref[...] = epilogue(acc_ref[...], None if bias_ref is None else bias_ref[...])

    out_spec = pl.BlockSpec((rows, bn), lambda i, t, source, target, place: (i, target[t]))
    shape, grid = (tall, n), (tall // rows, count)
    padded = _call.call(kernel, (shape, epilogue.out_dtype), grid, walk, inputs, out_spec, (rows, bn), interpret)
    return padded[: x.shape[0], :outputs]
