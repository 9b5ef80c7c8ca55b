r"""Tensors that take at most so many bits: sparsity and levels under one budget, counted as the file counts.

    S = {q j : j integers of magnitude at most m, q > 0, code length of j at most `bits`}

The code length is that of `compressjax.quantizers.rates`: a non-zero is cheap in rows, columns and kernels that have
many.  The projection alternates between rates, levels and scale, and finds by bisection the Lagrangian
multiplier at which the levels fit the budget; what it finds is a member, near but not always nearest (rates
depend on the levels chosen, and entries below half a step are zeros at any budget).  A member is returned as it is.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from compressjax.quantizers._base import rounded, unit, working
from compressjax.quantizers._levels import _exact_scale
from compressjax.quantizers._rate import code_length, fit_scale, rate_distortion, rates

_HALVINGS = 14
_ROUNDS = 3
_BITS_EACH = 6.0  # typical bits of a non-zero, and typical level: where the search for a scale begins
_MEAN_LEVEL = 1.3


@dataclass(frozen=True)
class Coded:
    """Entries are 0, +-q, .., +-m q, and their estimated code length is at most `bits`.

    Args:
      bits: The budget, for positions, signs and magnitudes; the scale is not counted.
      magnitudes: m.
      channels: As for `rates`: of a matrix behind a flattened image.

    Raises:
      ValueError: If `bits` is not positive and finite or `magnitudes` is not a positive int.

    >>> Coded(bits=12.0).project(jnp.array([4.0, 0.1, -2.0, 0.2, 0.1, 0.3, 0.1, 0.2]))
    Array([ 4.,  0., -2.,  0.,  0.,  0.,  0.,  0.], dtype=float32)
    """

    bits: float
    magnitudes: int = 2
    channels: int | None = None

    def __post_init__(self) -> None:
        if not (self.bits > 0 and math.isfinite(self.bits)):
            raise ValueError(f"bits={self.bits} must be positive and finite.")
        if isinstance(self.magnitudes, bool) or not isinstance(self.magnitudes, int) or self.magnitudes < 1:
            raise ValueError(f"magnitudes={self.magnitudes!r} must be an int of at least 1.")

    def length(self, codes: Int[Array, "..."]) -> Float[Array, ""]:
        """Estimated bits of integer levels."""
        return code_length(codes, rates(codes, self.magnitudes, channels=self.channels))

    def codes(self, x: Float[Array, "..."]) -> tuple[Int[Array, "..."], Float[Array, ""]]:
        """The levels chosen for `x` (int32), and their scale in the dtype of `x`; a member's are its own."""
        own, own_scale, member = self._own(x)
        wide, size = unit(x)
        # To begin with, the mean of as many entries as the budget may hold, a little above the first level.
        likely = min(x.size, max(1, int(self.bits / _BITS_EACH)))
        scale = jnp.mean(jax.lax.top_k(jnp.abs(wide).reshape(-1), likely)[0]) / _MEAN_LEVEL if x.size else jnp.zeros(())
        codes = jnp.ones(x.shape, jnp.int32)
        for _ in range(_ROUNDS):
            codes = self._within_budget(wide, scale, codes)
            fitted = fit_scale(wide, codes)
            scale = jnp.where(fitted > 0, fitted, scale)
        scale = rounded(scale * size, x.dtype)
        return jnp.where(member, own, codes), jnp.where(member, own_scale, scale)

    def contains(self, x: Float[Array, "..."]) -> Bool[Array, ""]:
        """Whether all entries are such multiples of one number, and within the budget; zeros alone always are."""
        return self._own(x)[2]

    def project(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """A near member; shape and dtype stay."""
        codes, scale = self.codes(x)
        return codes.astype(x.dtype) * scale

    def support(self, x: Float[Array, "..."]) -> Bool[Array, "..."]:
        """The entries that the projection keeps."""
        return self.codes(x)[0] != 0

    def _own(self, x: Float[Array, "..."]) -> tuple[Int[Array, "..."], Float[Array, ""], Bool[Array, ""]]:
        """Levels and scale that `x` has already, and whether it is a member (else they mean nothing)."""
        scale, exact = _exact_scale(x, self.magnitudes)
        codes = jnp.round(jnp.where(exact, working(x) / working(scale), 0.0)).astype(jnp.int32)
        return codes, scale, exact & ((self.length(codes) <= self.bits) | jnp.all(x == 0))

    def _within_budget(
        self, x: Float[Array, "..."], scale: Float[Array, ""], codes: Int[Array, "..."]
    ) -> Int[Array, "..."]:
        """Levels for a scale and the rates of `codes`, with the least multiplier that meets the budget."""
        prices = rates(codes, self.magnitudes, channels=self.channels)

        def at(multiplier: Float[Array, ""]) -> Int[Array, "..."]:
            return rate_distortion(x, scale, prices, jnp.exp2(multiplier) * jnp.square(scale))

        def halve(_: Int[Array, ""], ends: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = ends
            middle = (low + high) / 2
            over = self.length(at(middle)) > self.bits
            return jnp.where(over, middle, low), jnp.where(over, high, middle)

        low, high = jnp.float32(-16.0), jnp.float32(8.0)  # bits worth from 2^-16 to 2^8 squared steps
        _, high = jax.lax.fori_loop(0, _HALVINGS, halve, (low, high))
        return at(high)
