"""Block rows in slices of equal length: the layout in which XLA:CPU multiplies sparse blocks fastest.

The blocks of one output block lie side by side as one dense [bn, slots * bk], so that a product is a gather and one
matrix product per output block.  Output blocks are sorted by their number of blocks and put into a few slices, each as
wide as its fullest member, which keeps the padding small (sliced ELLPACK; Monakov et al., HiPEAC 2010).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pallas_kernels._pytree import pytree, static
from pallas_kernels.block_sparse import BlockSparse
from pallas_kernels.dense import Dense

SLICES = 4


@pytree
class Sliced:
    """A `BlockSparse` matrix laid out for `xla` on the CPU; meant for inference.

    Attributes:
      slices: Per slice, weights [output blocks, bn, slots * bk]: a tuple.
      inputs: Per slice, the input block of every slot, int32 [output blocks, slots]: a tuple.
      place: Where each output block went, int32 [ceil(N / bn)].
      shape: (K, N).
      block: (bk, bn).

    >>> w = BlockSparse.from_dense(np.kron(np.eye(2), np.ones((2, 2), np.float32)), (2, 2))
    >>> bool((Sliced.from_blocks(w).todense() == w.todense()).all())
    True
    """

    slices: Any
    inputs: Any
    place: Any
    shape: tuple[int, int] = static()
    block: tuple[int, int] = static()

    @classmethod
    def from_blocks(cls, w: BlockSparse, slices: int = SLICES) -> "Sliced":
        """Lays out concrete packed weights in at most `slices` slices."""
        values, rows, starts = (np.asarray(a) for a in (w.dequantize().values, w.rows, w.starts))
        bk, bn = w.block
        counts = np.diff(starts)
        by_count = np.argsort(-counts, kind="stable")
        all_values, all_inputs = [], []
        for members in np.array_split(by_count, min(slices, len(counts))):
            slots = int(counts[members].max())
            inputs = np.zeros((len(members), slots), np.int32)
            blocks = np.zeros((len(members), slots, bk, bn), values.dtype)
            for i, j in enumerate(members):
                mine = slice(starts[j], starts[j + 1])
                inputs[i, : counts[j]], blocks[i, : counts[j]] = rows[mine], values[mine]
            all_inputs.append(jnp.asarray(inputs))
            all_values.append(jnp.asarray(blocks.reshape(len(members), slots * bk, bn).swapaxes(1, 2)))
        place = np.argsort(by_count).astype(np.int32)
        return cls(tuple(all_values), tuple(all_inputs), jnp.asarray(place), w.shape, w.block)

    @property
    def dtype(self) -> Any:
        return self.slices[0].dtype

    @property
    def grid(self) -> tuple[int, int]:
        """Number of input and of output blocks."""
        return -(-self.shape[0] // self.block[0]), -(-self.shape[1] // self.block[1])

    @property
    def nbytes(self) -> int:
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self))

    def dequantize(self) -> Dense:
        """The dense matrix: what gradients with respect to the weights go through."""
        return Dense(self.todense())

    def todense(self) -> Float[Array, "K N"]:
        """The whole matrix, with zeros."""
        (tall, wide), (bk, bn) = self.grid, self.block
        rows = []
        for values, inputs in zip(self.slices, self.inputs, strict=True):
            many, slots = inputs.shape
            blocks = values.reshape(many, bn, slots, bk).transpose(0, 2, 3, 1)
            empty = jnp.zeros((many, tall, bk, bn), values.dtype)
            # Slots that only fill a row are zero: adding keeps the real block.
            rows.append(empty.at[jnp.arange(many)[:, None], inputs].add(blocks))
        columns = jnp.concatenate(rows)[self.place]
        dense = columns.transpose(1, 2, 0, 3).reshape(tall * bk, wide * bn)
        return dense[: self.shape[0], : self.shape[1]]
