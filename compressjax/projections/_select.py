"""Exact selection of the largest entries: the one primitive behind every counted set and every mask.

A float's bits, read as an unsigned integer (with the sign folded in), sort like the float.  So the `count`-th
largest entry is found by a search over *bits*: each pass over the array counts how many keys reach a candidate.  A
sample brackets the answer, and interpolation between counts, guarded by bisection, closes in on it, in five to twenty
passes for continuous data.  On XLA:CPU that is many times faster than `jnp.sort` or a large `lax.top_k`, and it allows
a traced `count`.  Small arrays are sorted, which compiles sooner.  Entries equal to the threshold are then kept in
index order.
"""

import math
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int, Shaped, UInt


def budget(keep: int | float, available: int, what: str) -> int:
    """The exact count that a `keep` setting means.

    Args:
      keep: A count (int, 0 or more) or a fraction (float in (0, 1]), which is rounded down, but at least 1.
      available: How many there are.
      what: What is counted, for the error message.

    Raises:
      ValueError: If the count exceeds what is available.

    >>> budget(3, 10, "entries"), budget(0.29, 100, "entries"), budget(0.01, 10, "entries")
    (3, 29, 1)
    """
    if isinstance(keep, float):
        # Through the decimal literal, so that 0.29 of 100 is 29 although 0.29 * 100 < 29 in binary.
        return min(available, max(1, math.floor(Fraction(repr(keep)) * available)))
    if keep > available:
        raise ValueError(f"keep={keep} {what} exceeds the {available} there are: lower it or give a fraction.")
    return keep


def check_keep(keep: int | float) -> None:
    """Raises `ValueError` unless `keep` is an int of at least 0 or a float in (0, 1]."""
    if isinstance(keep, bool) or not isinstance(keep, (int, float)):
        raise ValueError(f"keep must be an int (a count) or a float (a fraction), not {type(keep).__name__}.")
    if isinstance(keep, float) and not 0.0 < keep <= 1.0:
        raise ValueError(f"keep={keep} as a fraction must lie in (0, 1]: use an int for a count.")
    if keep < 0:
        raise ValueError(f"keep={keep} must not be negative.")


def order_key(score: Shaped[Array, "..."]) -> UInt[Array, "..."]:
    """Unsigned integers that sort as `score` does: -0.0 equals 0.0, and NaN of either sign comes last (largest).

    NaN counts as largest on purpose: a broken weight stays visible instead of being pruned away silently.
    """
    if score.dtype == jnp.bool_:
        return score.astype(jnp.uint8)
    if jnp.issubdtype(score.dtype, jnp.unsignedinteger):
        return score
    width = score.dtype.itemsize * 8
    unsigned = jnp.dtype(f"uint{width}")
    sign = jnp.array(1 << (width - 1), unsigned)
    if jnp.issubdtype(score.dtype, jnp.integer):
        return lax.bitcast_convert_type(score, unsigned) ^ sign
    bits = lax.bitcast_convert_type(score, unsigned)
    bits = jnp.where(bits == sign, jnp.zeros_like(bits), bits)
    key = jnp.where(bits & sign != 0, ~bits, bits | sign)
    # The NaN of x86 (0 / 0, inf - inf) has its sign bit set, that of other devices has not.
    return jnp.where(jnp.isnan(score), ~jnp.zeros_like(key), key)


# Size of the sample that brackets a threshold, and how many ranks of it to allow for chance: four standard deviations.
_SAMPLE = 256
_SLACK = 32


class _Bracket(NamedTuple):
    """What is known of a threshold during the search for it."""

    step: Int[Array, ""]
    low: UInt[Array, ""]
    high: UInt[Array, ""]
    reach: Int[Array, ""]
    above: Int[Array, ""]


# Compiled on its own, so that a call outside `jit` does not compile the loops again each time.
@jax.jit
def top_mask(score: Shaped[Array, "..."], count: int | Int[Array, ""]) -> Bool[Array, "..."]:
    """Marks the `count` largest entries of `score`, ties going to the lower index of the flattened array.

    Args:
      score: Any shape; floats, integers or bools.
      count: How many to mark, between 0 and ``score.size``; may be traced.

    Returns:
      Boolean mask of `score`'s shape with exactly `count` True.

    >>> top_mask(jnp.array([1.0, 3.0, 3.0, 3.0]), 2)
    Array([False,  True,  True, False], dtype=bool)
    """
    key = order_key(jnp.asarray(score))
    if key.size == 0:
        return jnp.zeros(key.shape, bool)
    count = jnp.asarray(count, jnp.int32)

    def total(mask: Bool[Array, "..."]) -> Int[Array, ""]:
        return jnp.sum(mask, dtype=jnp.int32)

    if key.size < 4 * _SAMPLE:
        flat = key.reshape(-1)
        threshold = jnp.sort(flat)[jnp.clip(flat.size - count, 0, flat.size - 1)]
        above, level = flat > threshold, flat == threshold
        taken = above | (level & (jnp.cumsum(level, dtype=jnp.int32) <= count - total(above)))
        return taken.reshape(key.shape)

    # The threshold is the largest key that at least `count` keys reach.  It lies in [low, high]; `reach` keys reach
    # low and `above` reach beyond high.  Once `reach` is exactly `count`, low separates as well as the threshold.
    def unfinished(state: _Bracket) -> Bool[Array, ""]:
        return (state.reach != count) & (state.low < state.high)

    def narrow(state: _Bracket) -> _Bracket:
        width = state.high - state.low
        reach, above, wanted = (value.astype(jnp.float32) for value in (state.reach, state.above, count))
        # In logarithms, because counts fall off exponentially in the tail; NaN from empty counts becomes one end.
        share = jnp.log(reach / wanted) / jnp.log(reach / jnp.maximum(above, 0.5))
        share = jnp.clip(jnp.nan_to_num(share, nan=1.0, posinf=1.0), 0.0, 1.0)
        # The factor keeps the product below the key's range, whatever the rounding.
        guess = (share * width.astype(jnp.float32) * 0.999999).astype(key.dtype)
        # Interpolation is fast where keys are dense, halving never slow: every third step halves.
        middle = state.low + jnp.where(state.step % 3 == 2, width // 2, guess)
        middle = jnp.where(state.step < hints.size, hints[jnp.minimum(state.step, hints.size - 1)], middle)
        middle = jnp.clip(middle, state.low + one, state.high)
        reached = total(key >= middle)
        up = reached >= count
        return _Bracket(
            state.step + 1,
            jnp.where(up, middle, state.low),
            jnp.where(up, state.high, middle - one),
            jnp.where(up, reached, state.reach),
            jnp.where(up, state.above, reached),
        )

    one = jnp.ones((), key.dtype)
    hints = _hints(key.reshape(-1), count)
    start = _Bracket(jnp.int32(0), jnp.min(key), jnp.max(key), jnp.int32(key.size), jnp.int32(0))
    found = lax.while_loop(unfinished, narrow, start)
    threshold = found.low

    # If too many reach it, those above stay, and of those equal to it only the first.
    def cut() -> Bool[Array, "..."]:
        above = key > threshold
        return above | _first(key == threshold, count - total(above))

    return lax.cond(found.reach == count, lambda: key >= threshold, cut)


def _hints(key: UInt[Array, "n"], count: Int[Array, ""]) -> UInt[Array, "4"]:
    """Thresholds worth trying first: a sample brackets the answer up to a few per cent.  A bad hint only costs a pass.

    The last two, a sampled key and its successor, settle the case that many entries share one value, as zeros do.
    """
    sample = jnp.sort(key[:: key.size // _SAMPLE][:_SAMPLE])
    rank = _SAMPLE - (count.astype(jnp.float32) / key.size * _SAMPLE).astype(jnp.int32)
    hints = sample[jnp.clip(rank + jnp.array([-_SLACK, _SLACK, 0, 0]), 0, _SAMPLE - 1)]
    return hints + jnp.array([0, 0, 0, 1], key.dtype)


def _first(mask: Bool[Array, "..."], count: Int[Array, ""]) -> Bool[Array, "..."]:
    """The first `count` True entries of a mask, by a running count within blocks (a plain `cumsum` is much slower)."""
    flat = mask.reshape(-1)
    width = min(1024, flat.size)
    rows = jnp.pad(flat, (0, -flat.size % width)).reshape(-1, width)
    per_row = jnp.sum(rows, axis=1, dtype=jnp.int32)
    before = jnp.cumsum(per_row) - per_row
    # The rows filled entirely, and the one row in which the count runs out.
    last = jnp.sum(before + per_row <= count, dtype=jnp.int32)
    last = jnp.minimum(last, rows.shape[0] - 1)
    inside = jnp.cumsum(rows[last].astype(jnp.int32)) + before[last] <= count
    row = jnp.arange(rows.shape[0])[:, None]
    taken = rows & ((row < last) | ((row == last) & inside[None, :]))
    return taken.reshape(-1)[: flat.size].reshape(mask.shape)


def scale_of(x: Shaped[Array, "..."]) -> Shaped[Array, ""]:
    """A power of two near max |x| (1 for all zeros), so that squares of ``x / scale`` neither overflow nor vanish."""
    top = jnp.max(jnp.abs(x), initial=0.0)
    _, exponent = jnp.frexp(top)
    safe = jnp.isfinite(top) & (top > 0)
    # Clipped so that the reciprocal is a normal number too.
    return jnp.where(safe, jnp.ldexp(jnp.ones_like(top), jnp.clip(exponent, -126, 126)), jnp.ones_like(top))
