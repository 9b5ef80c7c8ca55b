"""Sparse and quantized at once: the joint set of pruning and quantization.

    S = {z : z in the sparse set, non-zeros of z on the levels}

For fixed levels the nearest point keeps the entries of largest gain g_i = x_i^2 - (x_i - q(x_i))^2, the squared error
saved by storing q(x_i) instead of 0; for fixed positions the levels are refitted to the kept entries.  The two steps
alternate until the positions stay; neither raises the error.

Source: the sets of Ren et al., "ADMM-NN", ASPLOS 2019 (arXiv 1812.11677), which treats them one after the other; the
gain rule follows from the squared distance.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from compressjax.projections._base import Constraint, Quantizer
from compressjax.projections._low_rank import LowRank
from compressjax.projections._tree import Joint

_ROUNDS = 10


@dataclass(frozen=True)
class Both:
    """In the sparse set `sparsity`, with non-zeros on the levels of a quantizer.

    The alternation ends at a point that neither better positions nor better levels improve, which is not always the
    nearest point of the joint set (finding that is a joint problem of positions and levels); a member of the set
    projects to itself.

    Args:
      sparsity: A set that selects entries: `Cardinality`, `NM`, `Block`, `BlockPunched`, `Filters`, `Channels`,
        `Columns` or `Pattern`.
      levels: A quantizer.

    Raises:
      ValueError: If `sparsity` does not select entries, or `levels` is no quantizer.

    >>> from compressjax.projections import Cardinality
    >>> from compressjax.quantizers import Binary
    >>> Both(Cardinality(2), Binary()).project(jnp.array([1.0, -3.0, 0.5, 5.0]))
    Array([ 0., -4.,  0.,  4.], dtype=float32)
    """

    sparsity: Constraint
    levels: Quantizer

    def __post_init__(self) -> None:
        if isinstance(self.sparsity, (LowRank, Joint, Both, Quantizer)):
            raise ValueError(f"Both: {self.sparsity} does not select entries: use a sparse set, and Joint outside.")
        if not isinstance(self.levels, Quantizer):
            raise ValueError(f"Both: {self.levels} is no quantizer: use one of compressjax.quantizers.")

    def project(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """A locally nearest point of the joint set, as described above; shape and dtype stay."""

        def changed(state: tuple[Array, Array, Array, Array]) -> Array:
            round_, before, now, _ = state
            return (round_ < _ROUNDS) & jnp.any(before != now)

        def improve(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
            round_, _, now, _ = state
            kept = jnp.where(now, x, jnp.zeros_like(x))
            levels = self.levels.fit(kept)
            gain = _root_gain(x, self.levels.snap(x, levels))
            return round_ + 1, now, self.sparsity.support(gain) & (gain > 0), self.levels.snap(kept, levels)

        start = self.sparsity.support(x) & (x != 0)
        # The first pair differs somewhere, so at least one round runs (an empty tensor is its own projection).
        return lax.while_loop(changed, improve, (jnp.int32(0), ~start, start, x))[3]

    def contains(self, x: Float[Array, "..."]) -> Bool[Array, ""]:
        """Whether `x` lies in both sets."""
        return self.sparsity.contains(x) & self.levels.contains(x)

    def support(self, x: Float[Array, "..."]) -> Bool[Array, "..."]:
        """The non-zeros of the projection."""
        return self.project(x) != 0


def _root_gain(x: Float[Array, "..."], q: Float[Array, "..."]) -> Float[Array, "..."]:
    """sqrt(max(0, x^2 - (x - q)^2)) = sqrt(|q|) sqrt(2 |x| - |q|) where the signs agree, without squaring."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    size, level = jnp.abs(x).astype(wide), jnp.abs(q).astype(wide)
    # Halved, so that 2 |x| does not overflow; a common factor does not change the choice.
    root = jnp.sqrt(level) * jnp.sqrt(jnp.maximum(size - level / 2, 0))
    return jnp.where(jnp.sign(x) == jnp.sign(q), root, jnp.zeros_like(root))
