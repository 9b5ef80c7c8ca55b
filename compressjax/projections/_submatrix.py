"""Filter and column pruning together: what is left is a smaller dense matrix.

    S = {z : z_ij != 0 for columns i in C and filters j in F only, card(C) <= columns, card(F) <= filters}

A convolution kernel (kh, kw, in, out) is the matrix [kh * kw * in, out].  For a given C the best F are the filters with
the largest norm on C, and the other way round; the two steps alternate, and neither lowers the norm that is kept.

Source: Wen et al., "Learning Structured Sparsity in Deep Neural Networks", NeurIPS 2016 (arXiv 1608.03665); as the
structured opponent of single weights: Ma et al., "Non-Structured DNN Weight Pruning - Is It Beneficial in Any
Platform?" (arXiv 1907.02124).
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from compressjax.projections._groups import Columns, Filters, at_least

_ROUNDS = 10


@dataclass(frozen=True)
class Submatrix:
    """At most `filters` filters and at most `columns` columns have non-zeros.

    The alternation ends at a point that neither better filters nor better columns improve, which is not always the
    nearest point of the set (finding that is a hard combinatorial problem); a member of the set projects to itself.

    Args:
      filters: A count or a fraction of the outputs; see `Filters`.
      columns: A count or a fraction of the positions (kh, kw, in); see `Columns`.

    Raises:
      ValueError: If a number is invalid or exceeds what there is, or the tensor has fewer than 2 dimensions.

    >>> Submatrix(1, 2).project(jnp.array([[3.0, 1.0], [0.0, 4.0], [2.0, 3.0]]))
    Array([[0., 0.],
           [0., 4.],
           [0., 3.]], dtype=float32)
    """

    filters: int | float = 1.0
    columns: int | float = 1.0

    def __post_init__(self) -> None:
        self._sets()

    def _sets(self) -> tuple[Filters, Columns]:
        return Filters(self.filters), Columns(self.columns)

    def support(self, x: Float[Array, "..."]) -> Bool[Array, "..."]:
        """All entries in a kept filter and a kept column."""
        at_least(2, x.shape, "Submatrix")
        filters, columns = self._sets()

        def within(set_: Filters | Columns, mask: Array) -> Array:
            return set_.support(jnp.where(mask, x, jnp.zeros_like(x)))

        def changed(state: tuple[Array, Array, Array]) -> Array:
            round_, before, now = state
            return (round_ < _ROUNDS) & jnp.any(before != now)

        def improve(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            round_, _, now = state
            return round_ + 1, now, within(columns, within(filters, now))

        # The first pair differs somewhere, so at least one round runs.
        everything = jnp.ones(x.shape, bool)
        kept = lax.while_loop(changed, improve, (jnp.int32(0), ~everything, everything))[2]
        return kept & within(filters, kept)

    def project(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """`x` on its support, exact zero elsewhere; shape and dtype stay."""
        return jnp.where(self.support(x), x, jnp.zeros_like(x))

    def contains(self, x: Float[Array, "..."]) -> Bool[Array, ""]:
        """Whether few enough filters and columns have a non-zero."""
        return jnp.all(jnp.stack([set_.contains(x) for set_ in self._sets()]))
