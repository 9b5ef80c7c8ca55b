r"""Rate-distortion quantization: of the levels that do not hurt, the one that is cheapest to store.

Levels are multiples of one scale q, zero among them: j = 0, +-1, .., +-m.  What a level costs depends on where it is
and on all other levels: the file's coder (`compressjax.storage`) is adaptive, and a non-zero is cheap in rows, columns
and kernels that have many.  Its code length is estimated from the densities d of the slices through an entry,

    log2 odds(non-zero) = L_0 + alpha sum_s (log2 odds(d_s) - L_0),      L_0 = log2 odds(d of the whole tensor)
    bits(0) = log2(1 + odds),    bits(+-j) = log2(1 + 1/odds) + 1 + log2(1 / frequency of magnitude j)

where s runs over the axes (and, in a convolution, over kernels), and each density is shrunk towards the whole by as
many entries as hold one non-zero.  What the coder pays to learn the densities is left out: on small tensors the
estimate is 10 to 20 % low.  Given these rates, every entry takes the level with the least Lagrangian

    h (x - q j)^2 + lambda bits(j),

h being how much an error of this entry hurts (half the curvature of the loss).  Rates and levels depend on each other:
alternate, once per training step or until nothing changes.

Sources: Sullivan, "Efficient scalar quantization of exponential and Laplacian random variables", IEEE Trans. Inf.
Theory, 1996, for the Lagrangian rule; Marban et al., "Learning Sparse & Ternary Neural Networks with Entropy-
Constrained Trained Ternarization (EC2T)", 2020 (arXiv 2004.01077), for its use in training; Choi et al., "Towards
the Limit of Network Quantization", 2016 (arXiv 1612.01543), for distances weighted by curvature.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_ALPHA = 0.7  # the slices of an entry overlap: each is believed in part


class Rates(NamedTuple):
    """What levels cost.

    Attributes:
      nonzero: Bits of a non-zero more than of a zero, sign included, by entry; never negative.
      zero: Bits of a zero, by entry.
      magnitudes: Bits of the magnitudes 1 .. m beside, (m,).
    """

    nonzero: Float[Array, "..."]
    zero: Float[Array, "..."]
    magnitudes: Float[Array, " m"]


def rates(codes: Int[Array, "..."], magnitudes: int, *, channels: int | None = None) -> Rates:
    """What levels cost where `codes` are stored.

    Args:
      codes: Integers -m .. m, the levels of a tensor.
      magnitudes: m.
      channels: Of a matrix behind a flattened image: its rows run over positions and `channels` channels, which then
        count as slices of their own.

    Returns:
      Estimated bits, float32.

    Raises:
      ValueError: If `magnitudes` is not positive or `channels` does not divide the rows.

    >>> found = rates(jnp.array([[1, -1, 1], [0, 0, 0], [0, 0, 2]]), 2)
    >>> bool(found.nonzero[0, 0] < found.nonzero[1, 0]), bool(found.magnitudes[0] < found.magnitudes[1])
    (True, True)
    """
    if magnitudes < 1:
        raise ValueError(f"magnitudes={magnitudes} must be at least 1.")
    odds = _log_odds(_view((codes != 0).astype(jnp.float32), channels)).reshape(codes.shape)
    counts = jnp.stack([jnp.sum(jnp.abs(codes) == j) for j in range(1, magnitudes + 1)]).astype(jnp.float32)
    sizes = -jnp.log2((counts + 0.5) / jnp.sum(counts + 0.5))
    zero = jnp.logaddexp2(odds, 0.0)
    return Rates(jnp.maximum(1.0 - odds, 0.0), zero, sizes)


def code_length(codes: Int[Array, "..."], rates: Rates) -> Float[Array, ""]:
    """Estimated bits of a tensor of levels: positions, signs and magnitudes.

    >>> codes = jnp.array([[1, -1, 1], [0, 0, 0], [0, 0, 2]])
    >>> float(code_length(codes, rates(codes, 2))) < 9 * math.log2(5)
    True
    """
    magnitude = jnp.abs(codes)
    # Where non-zeros are the rule, `nonzero` stops at 0; what they then cost follows from the price of a zero.
    often = 1.0 - jnp.log2(-jnp.expm1(-math.log(2.0) * jnp.maximum(rates.zero, 1.0)))
    live = jnp.where(rates.nonzero > 0, rates.zero + rates.nonzero, often)
    beside = rates.magnitudes[jnp.maximum(magnitude - 1, 0)]
    return jnp.sum(jnp.where(magnitude > 0, live + beside, rates.zero))


def rate_distortion(
    x: Float[Array, "..."],
    scale: Float[Array, ""] | float,
    rates: Rates,
    strength: Float[Array, ""] | float,
    importance: Float[Array, "*#shape"] | float = 1.0,
) -> Int[Array, "..."]:
    """The levels with the least distortion plus `strength` times bits.

    Args:
      x: A tensor.
      scale: The distance q of levels.
      rates: What levels cost, from `rates`.
      strength: lambda: how much distortion one bit is worth.
      importance: h, of the tensor or by entry.

    Returns:
      Integers j with the signs of `x`, int32: q j approximates `x`.  With strength 0 they are the nearest levels.

    >>> cheap = rates(jnp.array([1, 1, 1, 0]), 2)
    >>> rate_distortion(jnp.array([0.6, -1.2, 0.4, 2.1]), 1.0, cheap, 0.0).tolist()
    [1, -1, 0, 2]
    >>> rate_distortion(jnp.array([0.6, -1.2, 0.4, 2.1]), 1.0, cheap, 2.0).tolist()
    [0, -1, 0, 1]
    """
    size = jnp.abs(x)
    best, least = jnp.zeros(x.shape, jnp.int32), importance * jnp.square(size)
    for j in range(1, rates.magnitudes.size + 1):
        price = strength * (rates.nonzero + rates.magnitudes[j - 1])
        cost = importance * jnp.square(size - j * scale) + price
        best, least = jnp.where(cost < least, j, best), jnp.minimum(cost, least)
    return best * jnp.sign(x).astype(jnp.int32)


def soft_code_length(x: Float[Array, "..."], *, channels: int | None = None, width: float = 0.5) -> Float[Array, ""]:
    """A smooth estimate of the bits of positions and signs, to be penalized.

    An entry counts as s = x^2 / (x^2 + t^2) of a non-zero, t being `width` times the root mean square of the tensor.
    With the densities of `rates` taken over s,

        sum_i  s_i (log2(1 + 1/odds_i) + 1) + (1 - s_i) log2(1 + odds_i)
          =  sum_i  s_i (1 - log2 odds_i) + log2(1 + odds_i)

    Args:
      x: A tensor.
      channels: As for `rates`.
      width: Size at which an entry counts half.

    Returns:
      Bits, float32.  The width and the odds are constants of the gradient, which is that of the price of each entry.

    Raises:
      ValueError: As for `rates`.

    >>> scattered, lined_up = jnp.eye(8), jnp.eye(8).at[:].set(0.0).at[0].set(1.0)
    >>> bool(soft_code_length(lined_up) < soft_code_length(scattered))
    True
    """
    wide = x.astype(jnp.float32)
    square = jnp.square(wide)
    size = jax.lax.stop_gradient(jnp.mean(square))
    soft = square / jnp.where(size > 0, square + width**2 * size, 1.0)
    odds = jax.lax.stop_gradient(_log_odds(_view(soft, channels)).reshape(x.shape))
    # The second form: its gradient takes no logarithm of single entries.
    return jnp.sum(soft * (1.0 - odds) + jnp.logaddexp2(odds, 0.0))


def fit_scale(x: Float[Array, "..."], codes: Int[Array, "..."]) -> Float[Array, ""]:
    """The scale q of least squared error for given codes, sum x j / sum j^2; 0 if all codes are 0.

    >>> float(fit_scale(jnp.array([1.0, -3.25, 9.0]), jnp.array([1, -2, 0])))
    1.5
    """
    units = codes.astype(x.dtype)
    return jnp.sum(x * units) / jnp.maximum(jnp.sum(units * units), 1.0)


def _view(x: Float[Array, "..."], channels: int | None) -> Float[Array, "taps inputs outputs"]:
    """A tensor as (kernel positions, inputs, outputs)."""
    if channels is not None:
        rows = math.prod(x.shape[:-1])
        if x.ndim != 2 or channels < 1 or rows % channels:
            raise ValueError(f"channels={channels} does not divide the rows of a matrix of shape {x.shape}.")
        return x.reshape(-1, channels, x.shape[-1])
    if x.ndim < 3:
        return x.reshape((1,) * (3 - x.ndim) + x.shape)
    return x.reshape(-1, *x.shape[-2:])


def _log_odds(nonzero: Float[Array, "taps inputs outputs"]) -> Float[Array, "taps inputs outputs"]:
    """Estimated log2 odds of a non-zero at every entry."""
    # Odds from the counts of both kinds: a density within rounding of 1 would have infinite odds.
    zero = 1.0 - nonzero
    odds = (jnp.sum(nonzero) + 0.5) / (jnp.sum(zero) + 0.5)
    base = jnp.log2(odds)
    out = jnp.broadcast_to(base, nonzero.shape)
    for others in ((1, 2), (0, 2), (0, 1), (0,)):
        size = math.prod(nonzero.shape[axis] for axis in others)
        if 1 < size < nonzero.size:
            # Shrunk by one non-zero and, the density of the whole being odds / (1 + odds), by 1 / odds zeros.
            live, dead = (jnp.sum(kind, axis=others, keepdims=True) for kind in (nonzero, zero))
            out = out + _ALPHA * (jnp.log2((live + 1.0) / (dead + 1.0 / odds)) - base)
    return out
