"""Block-sparse products on Hopper: ``x @ W``, ``g @ W.T``, and ``x.T @ g`` on the pattern of W.

A block of threads computes a tile of rows x one output block:

    Y[m, n] = sum over p in starts[n] .. starts[n + 1] of X[m, rows[p]] @ values[p]

and, for the transpose, the same walk through `order`, with the tiles of the values transposed on their way into the
tensor cores.  The gradient of a block is ``sum over m of X[m, rows[t]].T @ G[m, columns[t]]``: one block of threads for
each.  Sums are float32 in registers; bias and activation are applied there.

Source: the operations, DSD, DSD^T and SDD, are those of MegaBlocks (arXiv 2211.15841); the kernels are our own.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels import _compat
from pallas_kernels._interface import Epilogue
from pallas_kernels.block_sparse import BlockSparse
from pallas_kernels.mosaic_gpu import _epilogue
from pallas_kernels.mosaic_gpu._pipeline import UNIT, accumulate, launch, layout, pad, stages, store, tile, up

SNAKE = 8  # Output blocks whose tiles are computed next to each other in time, and so share rows of x in the cache.
OUTER_STAGES = 4  # Leaves room for the tiles of several blocks of threads on one multiprocessor.


@dataclass(frozen=True)
class Tiling:
    """How a product is cut.

    Attributes:
      rows: Rows of the result that one warpgroup computes: 64 or 128.
      groups: Warpgroups that multiply in a block of threads: 1 or 2.
    """

    rows: int
    groups: int

    @property
    def total(self) -> int:
        """Rows of the result that one block of threads computes."""
        return self.rows * self.groups


def tiling(rows: int) -> Tiling:
    """The cut for a number of rows: as large as does not waste half of it."""
    if rows <= UNIT:
        return Tiling(UNIT, 1)
    return Tiling(UNIT, 2) if rows <= 512 else Tiling(2 * UNIT, 2)


def product(
    x: jax.Array,
    w: BlockSparse,
    bias: jax.Array | None,
    epilogue: Epilogue,
    *,
    turned: bool = False,
    cut: Tiling | None = None,
    interpret: bool,
) -> jax.Array:
    """``epilogue(x @ w, bias)``, or with ``w.T`` if `turned`.

    Args:
      x: [M, K] (or [M, N]), bfloat16 or float16.
      w: Blocks of 64 or 128 in the same dtype.
      bias: [N] or None.
      epilogue: Applied to the float32 sums, in the kernel if its compiler can.
      turned: Whether to multiply by the transpose.
      cut: Default: by the number of rows.
      interpret: Whether to run on the host.

    Returns:
      [M, N] (or [M, K]).
    """
    inside, outside = _epilogue.split(epilogue)
    size_in, size_out = w.block[::-1] if turned else w.block
    whole_in, whole_out = w.padded[::-1] if turned else w.padded
    blocks_out = whole_out // size_out
    source, starts = (w.columns, w.order_starts) if turned else (w.rows, w.starts)
    cut = tiling(x.shape[0]) if cut is None else cut
    tall = up(x.shape[0], cut.total)
    tiles_down = tall // cut.total
    biases = () if bias is None else (pad(bias.astype(jnp.float32), whole_out),)

    def body(*refs: Any) -> None:
        source_at, starts_at, order_at, x_at, values_at, *bias_at, out_at, staged = refs
        m, n = plgpu.planar_snake(lax.axis_index("tile"), (tiles_down, blocks_out), 1, SNAKE)
        first, last = starts_at[n], starts_at[n + 1]
        place = (lambda step: order_at[first + step]) if turned else (lambda step: first + step)
        parts = size_in // UNIT  # A block is taken in slices of 64 inputs, so that more of them are in flight.
        slices = tile((cut.total, UNIT), lambda step, part: (m, source_at[place(step)] * parts + part), x.dtype)
        shape = (None, size_out, UNIT) if turned else (None, UNIT, size_out)
        weights = tile(shape, lambda step, part: (place(step), 0, part) if turned else (place(step), part, 0), x.dtype)

        def multiply(sums: Any, group: Any, x_tile: Any, w_tile: Any) -> None:
            mine = x_tile.at[pl.ds(group * cut.rows, cut.rows)] if cut.groups > 1 else x_tile
            plgpu.wgmma(sums, mine, _compat.transpose_ref(w_tile) if turned else w_tile)

        def finish(sums: jax.Array, group: Any) -> None:
            added = None
            if bias_at:
                row = bias_at[0].at[pl.ds(n * size_out, size_out)]
                row = _compat.load_slowly(row, plgpu.Layout.WGMMA.reduce(0))
                added = lax.broadcast_in_dim(row, sums.shape, (1,))
            rows = pl.ds(m * cut.total + group * cut.rows, cut.rows)
            store(inside(sums, added), staged.at[group], out_at.at[rows, pl.ds(n * size_out, size_out)])

        operands = [(x_at, slices), (values_at, weights)]
        accumulate(multiply, finish, (cut.rows, size_out), cut.groups, (last - first, parts), operands, depth)

    written = jnp.dtype(inside.out_dtype)
    depth = stages((cut.total + size_out) * UNIT * 2, cut.total * size_out * written.itemsize)
    result = launch(
        body,
        ((tall, whole_out), written),
        [plgpu.SMEM((cut.groups, cut.rows, size_out), written, transforms=layout(size_out, written))],
        {"tile": tiles_down * blocks_out},
        cut.groups,
        interpret,
        (source, starts, w.order, pad(x, tall, whole_in), w.values, *biases),
        "block_sparse_transposed" if turned else "block_sparse",
    )
    return outside(result[: x.shape[0], : w.shape[0 if turned else 1]], None)


def outer(x: jax.Array, g: jax.Array, w: BlockSparse, *, interpret: bool) -> jax.Array:
    """``x.T @ g`` on the blocks of `w`.

    Args:
      x: [M, K], bfloat16 or float16.
      g: [M, N]; rounded to the dtype of `x`, which is what the tensor cores multiply.
      w: The pattern; blocks of 64 or 128.
      interpret: Whether to run on the host.

    Returns:
      [T, bk, bn] in the dtype of `w`.
    """
    bk, bn = w.block
    groups = bk // UNIT
    tall = up(x.shape[0], UNIT)
    written = jnp.dtype(w.dtype)

    def body(rows_at: Any, columns_at: Any, x_at: Any, g_at: Any, out_at: Any, staged: Any) -> None:
        block = lax.axis_index("block")
        row, column = rows_at[block], columns_at[block]

        def multiply(sums: Any, group: Any, x_tile: Any, g_tile: Any) -> None:
            mine = x_tile.at[:, pl.ds(group * UNIT, UNIT)] if groups > 1 else x_tile
            plgpu.wgmma(sums, _compat.transpose_ref(mine), g_tile)

        def finish(sums: jax.Array, group: Any) -> None:
            store(sums, staged.at[group], out_at.at[block, pl.ds(group * UNIT, UNIT)])

        operands = [
            (x_at, tile((UNIT, bk), lambda step: (step, row), x.dtype)),
            (g_at, tile((UNIT, bn), lambda step: (step, column), x.dtype)),
        ]
        accumulate(multiply, finish, (UNIT, bn), groups, (tall // UNIT,), operands, depth)

    depth = min(stages(UNIT * (bk + bn) * 2, bk * bn * written.itemsize), OUTER_STAGES)
    return launch(
        body,
        ((w.rows.shape[0], bk, bn), written),
        [plgpu.SMEM((groups, UNIT, bn), written, transforms=layout(bn, written))],
        {"block": w.rows.shape[0]},
        groups,
        interpret,
        (w.rows, w.columns, pad(x, tall, w.padded[0]), pad(g.astype(x.dtype), tall, w.padded[1])),
        "block_sparse_outer",
    )
