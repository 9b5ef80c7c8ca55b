"""N:M sparsity: of every m inputs that follow one another, each output uses at most n."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pallas_kernels import _check
from pallas_kernels._pytree import pytree, static


@pytree
class NM:
    """A matrix [K, N] with at most n weights in every group of m inputs, in n planes.

    The planes keep a kernel free of interleaving: it compares `indices` with each j < m and gets the dense rows j, j +
    m, j + 2 m ... in registers (Zhou et al., arXiv 2102.04010, for the pattern).

    Attributes:
      values: [n, K / m, N].
      indices: Place of each within its group, int8 [n, K / m, N], 0 <= index < m; m where a group has fewer weights.
      shape: (K, N).
      m: Size of the groups.

    >>> w = NM.from_dense(np.array([[1.0], [0.0], [0.0], [2.0]]), 2, 4)
    >>> w.values.ravel().tolist(), w.indices.ravel().tolist()
    ([1.0, 2.0], [0, 3])
    """

    values: Any
    indices: Any
    shape: tuple[int, int] = static()
    m: int = static()

    @classmethod
    def from_dense(cls, dense: Float[Array, "K N"] | np.ndarray, n: int, m: int, mask: Any = None) -> "NM":
        """Packs a matrix that has the pattern already.

        Args:
          dense: Concrete weights, finite floats.
          n: Weights that stay of each group.
          m: Size of the groups, along the inputs; divides K.
          mask: Boolean, of the same shape: the weights that exist.  Default: where they are not zero.

        Raises:
          ValueError: If a group has more than n weights, or sizes do not fit.
        """
        weights = _check.dense_weights(dense, "NM")
        mask = _check.kept(weights, mask, "NM")
        if not 1 <= n <= m <= 127:
            raise ValueError(f"NM: {n}:{m} is no pattern; 1 <= n <= m <= 127 is needed.")
        k, outputs = weights.shape
        _check.divides(k, m, "NM: the number of inputs")
        groups = mask.reshape(k // m, m, outputs)
        most = int(groups.sum(1).max())
        if most > n:
            raise ValueError(f"NM: a group of {m} inputs has {most} weights; the pattern {n}:{m} allows {n}.")
        # The weights first, in their order; a place that nothing multiplies with for those that a group lacks.
        order = np.argsort(~groups, 1, kind="stable")[:, :n]
        held = np.take_along_axis(groups, order, 1)
        values = np.take_along_axis(weights.reshape(groups.shape), order, 1)
        indices = np.where(held, order, m).astype(np.int8)
        planes, places = jnp.asarray(values.swapaxes(0, 1)), jnp.asarray(indices.swapaxes(0, 1))
        return cls(planes, places, (k, outputs), m)

    @property
    def n(self) -> int:
        """Weights per group."""
        return self.values.shape[0]

    @property
    def dtype(self) -> Any:
        return self.values.dtype

    @property
    def density(self) -> float:
        """Share of the weights that are stored."""
        return self.n / self.m

    @property
    def nbytes(self) -> int:
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self))

    def with_values(self, values: Any) -> "NM":
        """The same pattern with other values."""
        return NM(values, self.indices, self.shape, self.m)

    def dequantize(self) -> "NM":
        """Itself: its values are floats."""
        return self

    def todense(self) -> Float[Array, "K N"]:
        """The whole matrix, with zeros."""
        place = jnp.arange(self.m, dtype=jnp.int8)[None, None, :, None]
        chosen = self.indices[:, :, None] == place
        return jnp.where(chosen, self.values[:, :, None], 0).sum(0).astype(self.dtype).reshape(self.shape)

    def gather(self, dense: Float[Array, "K N"]) -> Float[Array, "n groups N"]:
        """The entries of another matrix on this pattern."""
        groups = dense.reshape(-1, self.m, dense.shape[1])
        index = self.indices.swapaxes(0, 1).astype(jnp.int32)
        taken = jnp.take_along_axis(groups, jnp.minimum(index, self.m - 1), 1)
        return jnp.where(index < self.m, taken, 0).swapaxes(0, 1)
