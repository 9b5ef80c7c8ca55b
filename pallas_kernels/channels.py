"""Channel-packed matrices: whole inputs and whole outputs are gone, what is left is a smaller dense matrix.

Where the neighbouring layers can shrink too, `compressjax.channels` removes the channels for good and nothing needs to
be gathered; this format serves layers whose neighbours stay as they are.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pallas_kernels import _check
from pallas_kernels._pytree import pytree, static


@pytree
class Channels:
    """A matrix [K, N] of which only some rows and some columns are not zero.

    Attributes:
      values: [kept inputs, kept outputs].
      inputs: Kept inputs, sorted, int32; or None if all are.
      outputs: Kept outputs, sorted, int32; or None if all are.
      shape: (K, N).

    >>> w = Channels.from_dense(np.array([[0.0, 1.0], [0.0, 2.0]]))
    >>> w.values.shape, w.inputs, w.outputs.tolist()
    ((2, 1), None, [1])
    """

    values: Any
    inputs: Any
    outputs: Any
    shape: tuple[int, int] = static()

    @classmethod
    def from_dense(cls, dense: Float[Array, "K N"] | np.ndarray, mask: Any = None) -> "Channels":
        """Packs a matrix; inputs and outputs without any weight are left out (but for one).

        Args:
          dense: Concrete weights, finite floats.
          mask: Boolean, of the same shape: the weights that exist.  Default: where they are not zero.
        """
        weights = _check.dense_weights(dense, "Channels")
        mask = _check.kept(weights, mask, "Channels")
        kept = []
        for axis in (1, 0):
            index = np.flatnonzero(mask.any(axis))
            kept.append(index if index.size else np.zeros(1, int))
        inputs, outputs = (
            None if len(index) == size else jnp.asarray(index.astype(np.int32))
            for index, size in zip(kept, weights.shape, strict=True)
        )
        return cls(jnp.asarray(weights[np.ix_(*kept)]), inputs, outputs, weights.shape)

    @property
    def dtype(self) -> Any:
        return self.values.dtype

    @property
    def density(self) -> float:
        """Share of the weights that are stored."""
        return self.values.size / (self.shape[0] * self.shape[1])

    @property
    def nbytes(self) -> int:
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self))

    def with_values(self, values: Any) -> "Channels":
        """The same channels with other values."""
        return Channels(values, self.inputs, self.outputs, self.shape)

    def dequantize(self) -> "Channels":
        """Itself: its values are floats."""
        return self

    def todense(self) -> Float[Array, "K N"]:
        """The whole matrix, with zeros."""
        rows = jnp.arange(self.shape[0]) if self.inputs is None else self.inputs
        columns = jnp.arange(self.shape[1]) if self.outputs is None else self.outputs
        return jnp.zeros(self.shape, self.dtype).at[rows[:, None], columns[None, :]].set(self.values)

    def gather(self, dense: Float[Array, "K N"]) -> Float[Array, "inputs outputs"]:
        """The entries of another matrix on these channels."""
        rows = dense if self.inputs is None else dense[self.inputs]
        return rows if self.outputs is None else rows[:, self.outputs]
