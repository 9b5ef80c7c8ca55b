"""Equally spaced levels without zero, one scale per tensor.

    S = {z : every non-zero z_i is one of +-q, +-2q, ..., +-m q},  m = 2^(bits-1), for some q > 0

The zero code is not needed because pruned weights are not stored.  The nearest point for a given q rounds |x| / q and
clips it to [1, m].  The best q minimises E(q) = sum (|x_i| - q k_i)^2 over the non-zeros.  For fixed codes k the
optimum is q = B / C with B = sum k_i |x_i| and C = sum k_i^2, and E = sum x_i^2 - B^2 / C; the codes change only at
the breakpoints q = |x_i| / (k + 1/2).  So the sweep over sorted breakpoints, taking the largest B^2 / C, is exact.

Source: Ren et al., "ADMM-NN: An Algorithm-Hardware Co-Design Framework of DNNs Using Alternating Direction Method of
Multipliers", ASPLOS 2019 (arXiv 1812.11677), which searches q over an interval.
"""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from compressjax.quantizers._base import (
    SWEEP_LIMIT,
    LevelSet,
    bin_edges,
    check_bits,
    distinct,
    histogram,
    rounded,
    unit,
    working,
)

# Sorting costs up to twenty times the histogram fit, and a training transform fits at every step.  Few levels lose next
# to nothing by the histogram's bins, so they switch to it sooner.
_FEW_CODES, _FEW_CODES_SWEEP_LIMIT = 8, 1 << 12


@dataclass(frozen=True)
class Levels(LevelSet):
    """Non-zero entries are +-q, +-2q, ..., +-2^(bits-1) q, with one scale q per tensor.

    The fit is exact (to float32 rounding) while the number of entries times ``2^(bits-1) - 1`` is at most 2^12 (2^16
    from 5 bits on); larger tensors are fitted on a histogram with bins of 1/128 relative width and refined by
    alternation on all entries.  Up to 4 bits the squared error is then within a thousandth of the least.

    Args:
      bits: Bits per non-zero weight, 1 to 8.
      scale: The scale q if it is fixed; by default it is fitted by least squares.

    Raises:
      ValueError: If `bits` is out of range or `scale` is not positive; at projection, if its multiples leave the range
        of the tensor's dtype.

    >>> Levels(2).project(jnp.array([1.0, -2.1, 0.0, 0.9]))
    Array([ 1.0166667, -2.0333333,  0.       ,  1.0166667], dtype=float32)
    >>> Levels(2, scale=0.5).fit(jnp.zeros(3))
    Array([-1. , -0.5,  0.5,  1. ], dtype=float32)
    """

    bits: int
    scale: float | None = None

    def __post_init__(self) -> None:
        check_bits(self.bits)
        if self.scale is not None and not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"scale={self.scale} must be positive and finite.")

    @property
    def codes(self) -> int:
        """The largest code m = 2^(bits-1)."""
        return 1 << (self.bits - 1)

    def fit(self, x: Float[Array, "..."]) -> Float[Array, "levels"]:
        """The 2^bits levels of least squared error to the non-zeros of `x`."""
        positive = _multiples(self._scale(x), self.codes)
        return jnp.concatenate([-positive[::-1], positive])

    def contains(self, x: Float[Array, "..."]) -> Bool[Array, ""]:
        """Whether some scale (or the fixed one) yields every non-zero entry exactly, after rounding to the dtype."""
        if self.scale is not None:
            return jnp.all(self.project(x) == x)
        return _exact_scale(x, self.codes)[1]

    def _scale(self, x: Float[Array, "..."]) -> Float[Array, ""]:
        if self.scale is not None:
            info = jnp.finfo(x.dtype)
            if self.scale < float(info.tiny) or self.scale * self.codes > float(info.max):
                raise ValueError(f"Levels: scale={self.scale} times 1 to {self.codes} leaves the range of {x.dtype}.")
            return jnp.asarray(self.scale, x.dtype)
        exact, member = _exact_scale(x, self.codes)
        size, unit_ = unit(jnp.abs(x).reshape(-1))
        return jnp.where(member, exact, rounded(_best_scale(size, self.codes) * unit_, x.dtype))


def _multiples(scale: Float[Array, "..."], codes: int) -> Float[Array, "... codes"]:
    """Levels q, 2q, ..., m q rounded to the dtype of `scale`."""
    code = jnp.arange(1, codes + 1, dtype=jnp.promote_types(scale.dtype, jnp.float32))
    wide = working(scale)[..., None]
    return rounded(wide * code.reshape((1,) * (wide.ndim - 1) + (-1,)), scale.dtype)


@partial(jax.jit, static_argnames="codes")
def _exact_scale(x: Float[Array, "..."], codes: int) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """The largest scale whose rounded multiples include every |x| > 0, and whether there is one (else 1).

    Without this test rounding would make the projection of a projected tensor differ in the last bit.
    """
    values, few = distinct(jnp.abs(x), codes)
    # The smallest value v is the rounded k q for some k <= m, so q is v / k up to two units in the last place.
    quotient = rounded(working(values[0]) / jnp.arange(1, codes + 1, dtype=working(values).dtype), x.dtype)
    unsigned = jnp.dtype(f"uint{x.dtype.itemsize * 8}")
    bits = lax.bitcast_convert_type(quotient, unsigned)[:, None] + (jnp.arange(5, dtype=unsigned) - 2)[None, :]
    candidate = lax.bitcast_convert_type(bits, x.dtype).reshape(-1)
    multiple = _multiples(candidate, codes)

    # For each value: is it among the multiples?  Its code can only be the rounded quotient.
    def found(value: Array) -> Array:
        code = jnp.clip(jnp.round(working(value) / working(candidate)), 1, codes).astype(jnp.int32)
        return jnp.take_along_axis(multiple, code[:, None] - 1, axis=1)[:, 0] == value

    hit = jnp.ones(candidate.shape, bool)
    hit = lax.fori_loop(0, codes, lambda i, hit: hit & found(values[i]), hit)
    # XLA:CPU flushes float32 numbers below the normal range to zero, which would match by accident.
    least = max(float(jnp.finfo(x.dtype).smallest_subnormal), float(jnp.finfo(jnp.float32).tiny))
    hit = hit & (working(candidate) >= least) & jnp.isfinite(candidate)
    member = few & jnp.any(hit)
    scale = jnp.max(jnp.where(hit, candidate, jnp.zeros_like(candidate)))
    return jnp.where(member, scale, jnp.ones_like(scale)), member


@partial(jax.jit, static_argnames="codes")
def _best_scale(size: Float[Array, "n"], codes: int) -> Float[Array, ""]:
    """The least-squares scale for magnitudes `size` (zeros ignored); 1 if all are zero."""
    if codes == 1:
        start = jnp.max(size, initial=0.0)
    elif size.size * (codes - 1) <= (_FEW_CODES_SWEEP_LIMIT if codes <= _FEW_CODES else SWEEP_LIMIT):
        start = _sweep(size, codes)
    else:
        start = _search(size, codes)
    scale = jnp.where(start > 0, start, jnp.ones_like(start))

    # Codes for the scale, then the scale for the codes: each half lowers the error, so this only improves.
    def refine(_: Array, scale: Array) -> Array:
        code = jnp.where(size > 0, jnp.clip(jnp.round(size / scale), 1, codes), jnp.zeros_like(size))
        better = jnp.sum(code * size) / jnp.sum(code * code)
        return jnp.where(better > 0, better, scale)

    return lax.fori_loop(0, 4, refine, scale)


def _sweep(size: Float[Array, "n"], codes: int) -> Float[Array, ""]:
    """Exact: B and C of every interval between breakpoints, by cumulative sums over the sorted breakpoints."""
    step = jnp.arange(1, codes, dtype=size.dtype)
    at = size[None, :] / (step[:, None] + 0.5)
    # Falling below the breakpoint |x| / (k + 1/2) raises one code from k to k + 1: B by |x|, C by 2k + 1.
    gain_b = jnp.broadcast_to(size[None, :], at.shape)
    gain_c = jnp.where(size[None, :] > 0, 2 * step[:, None] + 1, jnp.zeros_like(at))
    _, gain_b, gain_c = lax.sort((-at.reshape(-1), gain_b.reshape(-1), gain_c.reshape(-1)), num_keys=1)
    live = jnp.sum(size > 0).astype(size.dtype)
    b = jnp.sum(size) + jnp.concatenate([jnp.zeros(1, size.dtype), jnp.cumsum(gain_b)])
    c = jnp.maximum(live, 1) + jnp.concatenate([jnp.zeros(1, size.dtype), jnp.cumsum(gain_c)])
    best = jnp.argmax(b * (b / c))
    return b[best] / c[best]


def _search(size: Float[Array, "n"], codes: int) -> Float[Array, ""]:
    """Near-exact for large tensors: the same sums from histogram tails, at scales 1/128 octave apart."""
    count, total = (part[1 << 15 :] for part in histogram(size))
    after_n = jnp.cumsum(count[::-1])[::-1]
    after_s = jnp.cumsum(total[::-1])[::-1]
    edge = bin_edges()
    # Below max / (m sqrt(n)) the codes of nearly all entries are clipped, which the first scale of the grid matches.
    octaves = math.ceil(math.log2(codes) + 0.5 * math.log2(size.size)) + 1
    grid = jnp.max(size).astype(jnp.float32) * 2.0 ** -(jnp.arange(128 * octaves, dtype=jnp.float32) / 128)

    def tail(step: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        b, c = sums
        border = grid * (step.astype(jnp.float32) + 0.5)
        at = (lax.bitcast_convert_type(border, jnp.uint32) >> 16).astype(jnp.int32)
        at = jnp.clip(at, 0, edge.size - 2)
        inside = (border - edge[at]) / (edge[at + 1] - edge[at])
        rest = 1.0 - jnp.clip(inside, 0.0, 1.0)
        n = after_n[at + 1].astype(jnp.float32) + rest * count[at].astype(jnp.float32)
        s = after_s[at + 1] + rest * total[at]
        return b + s, c + (2 * step.astype(jnp.float32) + 1) * n

    live = jnp.maximum(after_n[0], 1).astype(jnp.float32)
    start = (jnp.broadcast_to(after_s[0], grid.shape), jnp.broadcast_to(live, grid.shape))
    b, c = lax.fori_loop(1, codes, tail, start)
    best = jnp.argmax(b * (b / c))
    return (b[best] / c[best]).astype(size.dtype)
