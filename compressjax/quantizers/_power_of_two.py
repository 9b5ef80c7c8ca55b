"""Powers of two: multiplication becomes a shift.

    S = {z : every non-zero z_i is one of +-2^E, +-2^(E+1), ..., +-2^(E+m-1)},  m = 2^(bits-1), for some integer E

The nearest power of two to |x| is 2^e or 2^(e+1), with the border at 1.5 * 2^e; clipping its exponent to the window
gives the nearest level.  So counts and sums per nearest exponent determine the error of every window, and the best of
all windows is found by enumeration.

Source: Zhou, Yao, Guo, Xu, Chen, "Incremental Network Quantization", ICLR 2017 (arXiv 1702.03044).
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from compressjax.quantizers._base import LevelSet, check_bits, histogram

_LOWEST, _HIGHEST = -126, 127


@dataclass(frozen=True)
class PowerOfTwo(LevelSet):
    """Non-zero entries are signed powers of two from a window of 2^(bits-1) consecutive exponents.

    Args:
      bits: Bits per non-zero weight, 1 to 8 (to 5 for float16, which has 30 exponents).

    Raises:
      ValueError: If `bits` is out of range, or the window is wider than the exponents of the tensor's dtype.

    >>> PowerOfTwo(2).project(jnp.array([3.1, -1.9, 0.0, 0.2]))
    Array([ 2., -2.,  0.,  1.], dtype=float32)
    """

    bits: int

    def __post_init__(self) -> None:
        check_bits(self.bits)

    def fit(self, x: Float[Array, "..."]) -> Float[Array, "levels"]:
        """The 2^bits levels of least squared error to the non-zeros of `x`."""
        window = 1 << (self.bits - 1)
        lowest, highest = _range(x)
        if window > highest - lowest + 1:
            raise ValueError(f"PowerOfTwo: bits={self.bits} needs {window} exponents, {x.dtype} has fewer: lower it.")
        start, member = _member(x, window)
        start = jnp.where(member, start, _best_window(x, window))
        positive = _power(start + jnp.arange(window)).astype(x.dtype)
        return jnp.concatenate([-positive[::-1], positive])

    def contains(self, x: Float[Array, "..."]) -> Bool[Array, ""]:
        """Whether all non-zeros are powers of two whose exponents fit the window."""
        return _member(x, 1 << (self.bits - 1))[1]


def _range(x: Array) -> tuple[int, int]:
    """Exponents of the normal numbers of the dtype, at most those of float32."""
    info = jnp.finfo(x.dtype)
    return max(int(info.minexp), _LOWEST), min(int(info.maxexp) - 1, _HIGHEST)


def _power(exponent: Int[Array, "..."]) -> Float[Array, "..."]:
    """2^exponent in float32, exactly, for exponents of normal numbers."""
    return lax.bitcast_convert_type((exponent.astype(jnp.int32) + 127) << 23, jnp.float32)


@partial(jax.jit, static_argnames="window")
def _member(x: Float[Array, "..."], window: int) -> tuple[Int[Array, ""], Bool[Array, ""]]:
    """The window that ends at the largest exponent, and whether it holds all non-zeros exactly."""
    lowest, highest = _range(x)
    size = jnp.abs(x).astype(jnp.float32)
    bits = lax.bitcast_convert_type(size, jnp.int32)
    exponent = (bits >> 23) - 127
    live = x != 0
    top = jnp.max(jnp.where(live, exponent, lowest), initial=lowest)
    bottom = jnp.min(jnp.where(live, exponent, top), initial=highest)
    # In float64 a neighbour of a power of two would pass for it.
    power = ((bits & ((1 << 23) - 1)) == 0) & (size.astype(x.dtype) == jnp.abs(x))
    exact = jnp.all(~live | power) & (top <= highest) & (bottom >= lowest)
    return jnp.maximum(top - window + 1, lowest), exact & (top - bottom < window)


@partial(jax.jit, static_argnames="window")
def _best_window(x: Float[Array, "..."], window: int) -> Int[Array, ""]:
    """The lowest exponent of the window of least squared error; the lower window in a tie."""
    lowest, highest = _range(x)
    count, total = (part[1 << 15 :].reshape(256, 128) for part in histogram(jnp.abs(x)))
    # Row e + 127 holds [2^e, 2^(e+1)); its upper half is nearer to 2^(e+1).
    n = _shifted(jnp.sum(count[:, :64], axis=1), jnp.sum(count[:, 64:], axis=1))
    s = _shifted(jnp.sum(total[:, :64], axis=1), jnp.sum(total[:, 64:], axis=1))
    exponent = jnp.arange(257) - 127
    top = jnp.max(jnp.where(n > 0, exponent, _LOWEST))
    start = jnp.arange(lowest, highest - window + 2)
    # Relative to 2^top nothing overflows: windows that begin above it are excluded (none is better than one at it).
    level = jnp.clip(exponent[None, :], start[:, None], start[:, None] + window - 1) - top
    level = _power(jnp.clip(level, -126, 0))
    scaled = s * _power(-jnp.clip(top, -126, 126))
    gain = jnp.sum((2 * scaled[None, :] - n.astype(jnp.float32)[None, :] * level) * level, axis=1)
    return start[jnp.argmax(jnp.where(start <= jnp.maximum(top, lowest), gain, -jnp.inf))]


def _shifted(lower: Array, upper: Array) -> Array:
    """lower[e] + upper[e - 1], one longer than either."""
    return jnp.pad(lower, (0, 1)) + jnp.pad(upper, (1, 0))
