"""Block-sparse matrices: a sorted list of dense blocks, in the order of the outputs and of the inputs.

The hybrid of blocked compressed-column and coordinate storage of MegaBlocks (Gale et al., arXiv 2211.15841, section
5.1): the list itself is sorted by output block, then input block, and `order` visits it by input block, so that one
copy of the values serves ``x @ W`` and ``g @ W.T``.  Blocks of (1, 1) give unstructured sparsity in compressed columns.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pallas_kernels import _check
from pallas_kernels._pytree import pytree, static
from pallas_kernels.quantized import Quantized


@pytree
class BlockSparse:
    """A matrix [K, N] of which only some blocks of (bk, bn) are stored.

    Every output block and every input block has at least one stored block (a zero one, if need be), so that a kernel
    that walks the list writes every output.  Sizes that blocks do not divide are padded with zeros.

    Attributes:
      values: Blocks [T, bk, bn], an array or a `Quantized` of that shape.
      rows: Input block of each, int32 [T].
      columns: Output block of each, int32 [T]; the list is sorted by (columns, rows).
      starts: First block of each output block, and T at the end: int32 [ceil(N / bn) + 1].
      order: Positions in the list, sorted by (rows, columns): int32 [T].
      order_starts: First position in `order` of each input block, and T at the end: int32 [ceil(K / bk) + 1].
      live: Boolean [T]: False for zero blocks that only complete the list; they have no gradient.
      shape: (K, N), before padding.
      block: (bk, bn).

    >>> dense = np.kron(np.array([[1.0, 0.0], [0.0, 0.0], [2.0, 3.0]]), np.ones((2, 2)))
    >>> w = BlockSparse.from_dense(dense, (2, 2))
    >>> w.rows.tolist(), w.columns.tolist(), w.density  # one of these four is a zero block, for the second input block
    ([0, 1, 2, 2], [0, 0, 0, 1], 0.666...)
    >>> bool((w.todense() == dense).all())
    True
    """

    values: Any
    rows: Any
    columns: Any
    starts: Any
    order: Any
    order_starts: Any
    live: Any
    shape: tuple[int, int] = static()
    block: tuple[int, int] = static()

    @classmethod
    def from_dense(
        cls,
        dense: Float[Array, "K N"] | np.ndarray,
        block: tuple[int, int],
        mask: Any = None,
        *,
        length: int | None = None,
    ) -> "BlockSparse":
        """Packs a matrix; blocks with nothing in the mask are left out.

        Args:
          dense: Concrete weights, finite floats.
          block: (bk, bn), of any size; kernels have wishes (see the implementations).
          mask: Boolean, of the same shape: the weights that exist, trained or not.  Default: where they are not zero.
          length: Number of blocks to store, at least as many as there are: lists of one length can be stacked.

        Returns:
          The packed matrix, in the dtype of `dense`.

        Raises:
          ValueError: For shapes, dtypes, values or a length that do not fit.
        """
        weights = _check.dense_weights(dense, "BlockSparse")
        mask = _check.kept(weights, mask, "BlockSparse")
        (k, n), (bk, bn) = weights.shape, _check_block(block)
        blocks = _blocks(weights, bk, bn)
        exists = np.asarray(_blocks(mask, bk, bn).any((2, 3)))
        listed = exists.copy()
        # A zero block wherever an input or an output block would have none.
        listed[0, ~exists.any(0)] = True
        listed[~listed.any(1), 0] = True
        columns, rows = np.nonzero(listed.T)
        values, live = blocks[rows, columns], exists[rows, columns]
        if length is not None:
            rows, columns, values, live = _lengthen(rows, columns, values, live, length)
        return cls.from_blocks(jnp.asarray(values), rows, columns, (k, n), live)

    @classmethod
    def from_blocks(
        cls, values: Any, rows: Any, columns: Any, shape: tuple[int, int], live: Any = None
    ) -> "BlockSparse":
        """Builds the matrix from its sorted list of blocks.

        Args:
          values: [T, bk, bn], array or `Quantized`.
          rows: Input block of each, concrete integers [T].
          columns: Output block of each, concrete integers [T].
          shape: (K, N); blocks that stick out are padding.
          live: Boolean [T]: which blocks may be trained; default: all.

        Raises:
          ValueError: If the list is unsorted, out of range, or leaves an input or output block without any.
        """
        rows, columns = np.asarray(rows), np.asarray(columns)
        if len(values.shape) != 3:
            raise ValueError(f"BlockSparse: blocks have shape [T, bk, bn], not {values.shape}.")
        count, bk, bn = values.shape
        if rows.shape != (count,) or columns.shape != (count,):
            raise ValueError(f"BlockSparse: {count} blocks, but {rows.shape} rows and {columns.shape} columns.")
        tall, wide = -(-shape[0] // bk), -(-shape[1] // bn)
        for name, index, size in (("row", rows, tall), ("column", columns, wide)):
            if count and (index.min() < 0 or index.max() >= size):
                raise ValueError(
                    f"BlockSparse: a block {name} is out of range: {index.min()} to {index.max()}, of {size}."
                )
            absent = np.setdiff1d(np.arange(size), index)
            if absent.size:
                raise ValueError(f"BlockSparse: block {name} {absent[0]} has no block; store a zero block there.")
        rows, columns = rows.astype(np.int32), columns.astype(np.int32)
        if (np.diff(columns.astype(np.int64) * tall + rows) < 0).any():
            raise ValueError("BlockSparse: blocks are not sorted by (column, row).")
        order = np.lexsort((columns, rows)).astype(np.int32)
        live = np.ones(count, bool) if live is None else np.asarray(live, bool)
        return cls(
            values,
            rows=jnp.asarray(rows),
            columns=jnp.asarray(columns),
            starts=jnp.asarray(_starts(columns, wide)),
            order=jnp.asarray(order),
            order_starts=jnp.asarray(_starts(rows[order], tall)),
            live=jnp.asarray(live),
            shape=(int(shape[0]), int(shape[1])),
            block=(bk, bn),
        )

    @property
    def dtype(self) -> Any:
        return self.values.dtype

    @property
    def grid(self) -> tuple[int, int]:
        """Number of input and of output blocks."""
        return -(-self.shape[0] // self.block[0]), -(-self.shape[1] // self.block[1])

    @property
    def padded(self) -> tuple[int, int]:
        """(K, N) in whole blocks."""
        return self.grid[0] * self.block[0], self.grid[1] * self.block[1]

    @property
    def density(self) -> float:
        """Share of the blocks that are stored."""
        return self.rows.shape[0] / (self.grid[0] * self.grid[1])

    @property
    def nbytes(self) -> int:
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self))

    def with_values(self, values: Any) -> "BlockSparse":
        """The same pattern with other values, of the same shape."""
        return dataclasses.replace(self, values=values)

    def dequantize(self) -> "BlockSparse":
        """The same matrix with float values; differentiable with respect to scales and codebooks."""
        return self.with_values(self.values.todense()) if isinstance(self.values, Quantized) else self

    def todense(self) -> Float[Array, "K N"]:
        """The whole matrix, with zeros."""
        (tall, wide), (bk, bn) = self.grid, self.block
        values = self.dequantize().values
        # Blocks that padding repeated are zero: adding keeps the real one.
        blocks = jnp.zeros((tall, wide, bk, bn), values.dtype).at[self.rows, self.columns].add(values)
        return blocks.swapaxes(1, 2).reshape(self.padded)[: self.shape[0], : self.shape[1]]

    def gather(self, dense: Float[Array, "K N"]) -> Float[Array, "T bk bn"]:
        """The blocks of another matrix on this pattern."""
        (tall, wide), (bk, bn) = self.grid, self.block
        pads = [(0, size - now) for size, now in zip(self.padded, self.shape, strict=True)]
        blocks = jnp.pad(dense, pads).reshape(tall, bk, wide, bn).swapaxes(1, 2)
        return blocks[self.rows, self.columns]


def _check_block(block: tuple[int, int]) -> tuple[int, int]:
    if len(block) != 2 or min(block) < 1:
        raise ValueError(f"BlockSparse: a block is (inputs, outputs), both at least 1, not {block}.")
    return block


def _blocks(matrix: np.ndarray, bk: int, bn: int) -> np.ndarray:
    """[K, N] -> [tall, wide, bk, bn], padded with zeros."""
    tall, wide = -(-matrix.shape[0] // bk), -(-matrix.shape[1] // bn)
    padded = np.zeros((tall * bk, wide * bn), matrix.dtype)
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    return padded.reshape(tall, bk, wide, bn).swapaxes(1, 2)


def _lengthen(
    rows: np.ndarray, columns: np.ndarray, values: np.ndarray, live: np.ndarray, length: int
) -> tuple[np.ndarray, ...]:
    """Zero blocks at the end of the list, at the place of the last block."""
    more = length - len(rows)
    if more < 0:
        raise ValueError(f"BlockSparse: {len(rows)} blocks do not fit a list of {length}.")
    zeros = np.zeros((more, *values.shape[1:]), values.dtype)
    rows, columns = np.pad(rows, (0, more), "edge"), np.pad(columns, (0, more), "edge")
    return rows, columns, np.concatenate([values, zeros]), np.pad(live, (0, more))


def _starts(index: np.ndarray, size: int) -> np.ndarray:
    return np.searchsorted(index, np.arange(size + 1)).astype(np.int32)
