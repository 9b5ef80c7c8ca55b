"""Unstructured sparsity: at most `keep` non-zero entries.

    S = {z : card(z) <= keep},    project(x) = x on its keep entries of largest |x|, 0 elsewhere

Source: Zhang, Ye, Zhang, Wen, Fardad, Wang, "A Systematic DNN Weight Pruning Framework using Alternating Direction
Method of Multipliers", ECCV 2018; Ren et al., "ADMM-NN", ASPLOS 2019 (arXiv 1812.11677).
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from compressjax.projections._select import budget, check_keep, top_mask


@dataclass(frozen=True)
class Cardinality:
    """At most `keep` entries are non-zero.

    Args:
      keep: A count (int) or a fraction of the entries (float in (0, 1], rounded down, at least 1).

    Raises:
      ValueError: If `keep` is neither; at projection, if it exceeds the number of entries.

    >>> Cardinality(2).project(jnp.array([0.5, -3.0, 1.0, 2.0]))
    Array([ 0., -3.,  0.,  2.], dtype=float32)
    """

    keep: int | float

    def __post_init__(self) -> None:
        check_keep(self.keep)

    def count(self, shape: tuple[int, ...]) -> int:
        """How many entries of a tensor of this shape are kept.

        >>> Cardinality(0.1).count((500, 10))
        500
        """
        size = 1
        for length in shape:
            size *= length
        return budget(self.keep, size, f"entries of a tensor of shape {shape}")

    def support(self, x: Float[Array, "..."]) -> Bool[Array, "..."]:
        """The `keep` entries of largest magnitude, exactly that many."""
        return top_mask(jnp.abs(x), self.count(x.shape))

    def project(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """`x` on its support, exact zero elsewhere; shape and dtype stay."""
        return jnp.where(self.support(x), x, jnp.zeros_like(x))

    def contains(self, x: Float[Array, "..."]) -> Bool[Array, ""]:
        """Whether at most `keep` entries are non-zero."""
        return jnp.sum(x != 0, dtype=jnp.int32) <= self.count(x.shape)
