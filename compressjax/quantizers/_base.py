"""What the level sets share: snapping, distinct values, and the histogram on which large tensors are fitted.

Functions with loops are compiled on their own, so that a call outside `jit` does not compile them again each time.
All arithmetic is in float32 (float64 for float64 tensors); levels are rounded to the tensor's dtype at the end.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, DTypeLike, Float, Int

from compressjax.projections._select import order_key, scale_of

# Up to this many sorted items a fit is exact by a sweep; above it, XLA:CPU's sort costs more than the histogram fit.
SWEEP_LIMIT = 1 << 16

# `nearest` compares with every level up to this many (one fused pass) and searches in the sorted levels above it.
_UNROLLED = 16


class LevelSet:
    """Common to the sets of levels without zero: what a quantizer does once its levels are fitted.

    `snap` is the nearest point for given levels, so `project` is the nearest point for the best ones.
    """

    def fit(self, x: Float[Array, "..."]) -> Float[Array, "levels"]:
        """The levels of least squared error to the non-zeros of `x`, sorted."""
        raise TypeError("abstract")  # pragma: no cover

    def snap(self, x: Float[Array, "..."], levels: Float[Array, "levels"]) -> Float[Array, "..."]:
        """Non-zeros to the nearest level, zeros stay."""
        return jnp.where(x == 0, jnp.zeros_like(x), nearest(x, levels))

    def project(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The nearest point with the zeros of `x`."""
        return self.snap(x, self.fit(x))

    def support(self, x: Float[Array, "..."]) -> Bool[Array, "..."]:
        """The non-zero entries."""
        return x != 0


def check_bits(bits: int, least: int = 1, most: int = 8) -> None:
    """Raises `ValueError` unless `bits` is an int in [least, most]."""
    if isinstance(bits, bool) or not isinstance(bits, int) or not least <= bits <= most:
        raise ValueError(f"bits={bits!r} must be an int between {least} and {most}.")


def working(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x` in the dtype of the arithmetic: float32, or float64 if it has it already."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def unit(x: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, ""]]:
    """`working(x)` divided by a power of two near its largest magnitude, and that power: squares stay in range."""
    wide = working(x)
    scale = scale_of(wide)
    return wide / scale, scale


def rounded(values: Float[Array, "..."], dtype: DTypeLike) -> Float[Array, "..."]:
    """`values` rounded to `dtype`, also where XLA would keep the excess precision inside a fusion."""
    info = jnp.finfo(dtype)
    if info.bits < jnp.finfo(values.dtype).bits:
        values = lax.reduce_precision(values, exponent_bits=info.nexp, mantissa_bits=info.nmant)
    return values.astype(dtype)


@jax.jit
def nearest(x: Float[Array, "..."], levels: Float[Array, "levels"]) -> Float[Array, "..."]:
    """The level nearest to each entry; the lower level in a tie; NaN stays NaN.  `levels` must be sorted.

    >>> nearest(jnp.array([0.2, 1.0, 9.0]), jnp.array([0.0, 2.0])).tolist()
    [0.0, 0.0, 2.0]
    """
    levels = levels.astype(x.dtype)
    value = working(x)
    # Differences instead of midpoints: they are exact near a level, so an entry at a level never leaves it.
    if levels.size <= _UNROLLED:
        best = jnp.broadcast_to(levels[0], x.shape)
        for level in levels[1:]:
            closer = jnp.abs(value - working(level)) < jnp.abs(value - working(best))
            best = jnp.where(closer, level, best)
    else:
        index = jnp.searchsorted(levels, x.reshape(-1), side="right").reshape(x.shape)
        below = levels[jnp.clip(index - 1, 0, levels.size - 1)]
        above = levels[jnp.clip(index, 0, levels.size - 1)]
        closer = jnp.abs(working(above) - value) < jnp.abs(value - working(below))
        best = jnp.where(closer, above, below)
    return jnp.where(jnp.isnan(x), x, best)


@partial(jax.jit, static_argnames="limit")
def distinct(x: Float[Array, "..."], limit: int) -> tuple[Float[Array, "limit"], Bool[Array, ""]]:
    """The distinct non-zero values of `x`, sorted, and whether there are at most `limit` of them, all finite.

    Missing ones are filled with the largest found (with 1 if `x` is all zero).

    >>> distinct(jnp.array([2.0, 0.0, -1.0, 2.0]), 3)
    (Array([-1.,  2.,  2.], dtype=float32), Array(True, dtype=bool))
    """
    flat = x.reshape(-1)
    top = jnp.array(jnp.inf, x.dtype)
    values = jnp.where((flat != 0) & jnp.isfinite(flat), flat, top)

    # One pass per value: the smallest one above the last.  Few passes if there are few values, at most limit + 1.
    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        found, last, _ = state
        return (found < limit) & (last < top)

    def following(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        found, last, out = state
        last = jnp.min(jnp.where(values > last, values, top), initial=top)
        return found + 1, last, out.at[found].set(last)

    start = (jnp.int32(0), -top, jnp.full(limit, top, x.dtype))
    _, _, out = lax.while_loop(unfinished, following, start)
    largest = jnp.max(jnp.where(out < top, out, -top))
    fits = jnp.all((values <= largest) | (values == top)) & jnp.all(jnp.isfinite(flat))
    filler = jnp.where(jnp.isfinite(largest), largest, jnp.ones_like(largest))
    return jnp.where(out < top, out, filler), fits


@jax.jit
def histogram(x: Float[Array, "..."]) -> tuple[Int[Array, "65536"], Float[Array, "65536"]]:
    """Counts and sums of the non-zero entries of `x` in 65,536 sorted bins of at most 1/128 relative width.

    The bin is the upper half of the float32 bits, so positive values fill bins from 32,768 on, and a power of two as
    well as the midpoint of two powers of two starts a bin.
    """
    value = x.astype(jnp.float32).reshape(-1)
    bin_ = (order_key(value) >> 16).astype(jnp.int32)
    count = jax.ops.segment_sum((value != 0).astype(jnp.int32), bin_, num_segments=1 << 16)
    total = jax.ops.segment_sum(value, bin_, num_segments=1 << 16)
    return count, total


def bin_edges() -> Float[Array, "32768"]:
    """The lower edges of the positive bins of `histogram`."""
    return lax.bitcast_convert_type(jnp.arange(1 << 15, dtype=jnp.uint32) << 16, jnp.float32)
