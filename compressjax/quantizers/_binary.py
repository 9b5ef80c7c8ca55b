"""Two levels, and two levels with zero.

    Binary:   S = {z : every non-zero z_i is +-a},  a = mean of |x| over the non-zeros,  z = a sign(x)
    Ternary:  S as Binary, but the projection may prune: with |x| sorted downwards and S_k the sum of its first k,
              keeping k entries at a = S_k / k leaves the error sum x^2 - S_k^2 / k; the best k maximises S_k^2 / k

Source: Rastegari, Ordonez, Redmon, Farhadi, "XNOR-Net", ECCV 2016 (arXiv 1603.05279); Li, Liu, "Ternary Weight
Networks", 2016 (arXiv 1605.04711), whose threshold 0.7 mean|x| approximates the exact choice made here.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from compressjax.quantizers._base import SWEEP_LIMIT, LevelSet, distinct, histogram, rounded, unit, working


@dataclass(frozen=True)
class Binary(LevelSet):
    """Non-zero entries are +-a, one a per tensor; zeros stay zero.

    >>> Binary().project(jnp.array([1.0, -3.0, 0.0]))
    Array([ 2., -2.,  0.], dtype=float32)
    """

    def fit(self, x: Float[Array, "..."]) -> Float[Array, "2"]:
        """(-a, a) with a the mean magnitude of the non-zeros (1 if there are none)."""
        exact, member = distinct(jnp.abs(x), 1)
        size, unit_ = unit(jnp.abs(x))
        mean = jnp.sum(size) / jnp.maximum(jnp.sum(x != 0, dtype=jnp.int32), 1).astype(size.dtype)
        return _pair(jnp.where(member, exact[0], rounded(mean * unit_, x.dtype)))

    def contains(self, x: Float[Array, "..."]) -> Bool[Array, ""]:
        """Whether all non-zeros have one magnitude."""
        return distinct(jnp.abs(x), 1)[1]


@dataclass(frozen=True)
class Ternary(LevelSet):
    """Entries are -a, 0 or a, one a per tensor; the projection sets small entries to zero.

    Exact (to float32 rounding) up to 2^16 entries; larger tensors are fitted on a histogram with bins of 1/128 relative
    width and refined by alternation on all entries.

    >>> Ternary().project(jnp.array([1.0, -3.0, 0.1]))
    Array([ 0., -3.,  0.], dtype=float32)
    """

    def fit(self, x: Float[Array, "..."]) -> Float[Array, "2"]:
        """(-a, a) for the a of least squared error (1 if all entries are zero)."""
        exact, member = distinct(jnp.abs(x), 1)
        size, unit_ = unit(jnp.abs(x).reshape(-1))
        return _pair(jnp.where(member, exact[0], rounded(_best_level(size) * unit_, x.dtype)))

    def snap(self, x: Float[Array, "..."], levels: Float[Array, "2"]) -> Float[Array, "..."]:
        """Entries to the nearest of the levels and zero; half-way goes to zero."""
        level = levels[-1].astype(x.dtype)
        far = working(jnp.abs(x)) > working(level) / 2
        return jnp.where(far, jnp.where(x < 0, -level, level), jnp.where(jnp.isnan(x), x, jnp.zeros_like(x)))

    def contains(self, x: Float[Array, "..."]) -> Bool[Array, ""]:
        """Whether all non-zeros have one magnitude."""
        return distinct(jnp.abs(x), 1)[1]

    def support(self, x: Float[Array, "..."]) -> Bool[Array, "..."]:
        """The non-zeros of the projection."""
        return self.project(x) != 0


def _pair(level: Float[Array, ""]) -> Float[Array, "2"]:
    return jnp.stack([-level, level])


@jax.jit
def _best_level(size: Float[Array, "n"]) -> Float[Array, ""]:
    """The level a of the ternary set for magnitudes `size`; 1 if all are zero."""
    if not size.size:
        return jnp.ones((), size.dtype)
    if size.size <= SWEEP_LIMIT:
        total = jnp.cumsum(jnp.sort(size, descending=True))
        count = jnp.arange(1, size.size + 1, dtype=size.dtype)
    else:
        number, part = (bins[1 << 15 :] for bins in histogram(size))
        total = jnp.cumsum(part[::-1])
        count = jnp.maximum(jnp.cumsum(number[::-1]), 1).astype(jnp.float32)
    best = jnp.argmax(total * (total / count))
    level = (total[best] / count[best]).astype(size.dtype)

    # Support for the level, then level for the support: each half lowers the error, so this only improves.
    def refine(_: Array, level: Array) -> Array:
        kept = size > level / 2
        mean = jnp.sum(jnp.where(kept, size, 0)) / jnp.maximum(jnp.sum(kept, dtype=jnp.int32), 1).astype(size.dtype)
        return jnp.where(mean > 0, mean, level)

    level = lax.fori_loop(0, 4, refine, level)
    return jnp.where(level > 0, level, jnp.ones_like(level))
