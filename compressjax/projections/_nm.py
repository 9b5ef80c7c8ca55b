"""N:M sparsity: at most n non-zeros in every m consecutive entries along one axis.

    S = {z : card(z_g) <= n for every group g of m},    project keeps the n largest |x| of each group

Source: Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021 (arXiv 2104.08378), for 2:4 along the
contraction axis, which tensor cores execute.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from compressjax.projections._select import order_key


@dataclass(frozen=True)
class NM:
    """At most `n` of every `m` consecutive entries along `axis` are non-zero.

    Args:
      n: Kept per group, 1 to m.
      m: Group length, at most 64; must divide the axis.
      axis: Grouped axis; by default -2, the inputs (the axis a matrix product sums over).

    Raises:
      ValueError: If the settings are invalid, the axis is missing or m does not divide it.

    >>> NM(2, 4, axis=0).project(jnp.array([1.0, -3.0, 2.0, 2.0]))
    Array([ 0., -3.,  2.,  0.], dtype=float32)
    """

    n: int
    m: int
    axis: int = -2

    def __post_init__(self) -> None:
        if not 1 <= self.n <= self.m <= 64:
            raise ValueError(f"NM needs 1 <= n <= m <= 64, not n={self.n}, m={self.m}.")

    def support(self, x: Float[Array, "..."]) -> Bool[Array, "..."]:
        """The n entries of largest magnitude of every group, exactly that many."""
        key = self._grouped(order_key(jnp.abs(x)))
        # Rank by comparing all pairs of a group; of equals the earlier comes first.  Fused, and m is small.
        mine, other = key[..., :, None], key[..., None, :]
        place = jnp.arange(self.m).reshape((1,) * (key.ndim - 1) + (-1,))
        earlier = place[..., None, :] < place[..., :, None]
        rank = jnp.sum((other > mine) | ((other == mine) & earlier), axis=-1, dtype=jnp.int32)
        kept = (rank < self.n).reshape(self._moved(x.shape))
        return jnp.moveaxis(kept, -1, self.axis)

    def project(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """`x` on its support, exact zero elsewhere; shape and dtype stay."""
        return jnp.where(self.support(x), x, jnp.zeros_like(x))

    def contains(self, x: Float[Array, "..."]) -> Bool[Array, ""]:
        """Whether every group has at most n non-zeros."""
        return jnp.all(jnp.sum(self._grouped(x != 0), axis=-1, dtype=jnp.int32) <= self.n)

    def _moved(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape with the grouped axis last."""
        if not -len(shape) <= self.axis < len(shape):
            raise ValueError(f"NM: shape {shape} has no axis {self.axis}: set `axis` or exempt the leaf.")
        axis = self.axis % len(shape)
        if shape[axis] % self.m:
            raise ValueError(f"NM: m={self.m} does not divide axis {self.axis} of shape {shape}: exempt the leaf.")
        return (*shape[:axis], *shape[axis + 1 :], shape[axis])

    def _grouped(self, x: Array) -> Array:
        moved = self._moved(x.shape)
        return jnp.moveaxis(x, self.axis, -1).reshape((*moved[:-1], moved[-1] // self.m, self.m))
