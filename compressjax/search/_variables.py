r"""Variables of a space: real and whole numbers, categories, masks, each with its own stretch of the genome.

A genome's natural range is [-1, 1] per number, centre 0::

    Float(low, high)    g -> low + (high - low) (r(g) + 1) / 2         log=True: the same of the logarithms
    Int(low, high)      g -> low + floor((high - low + 1) (r(g) + 1) / 2), equal bins
    Category(options)   one number per option; the largest wins, ties go to the first
    Mask(size)          one number per place; kept where it is above 0

r is the triangle wave that is the identity on [-1, 1] and reflects what lies outside.  So every genome is a design, no
range is flat, and an optimum on a bound is an ordinary minimum of the reflected function.  Choices are made by
comparisons only: they are the same on every device.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from jaxtyping import Float as Floats

MOST = 2**23  # whole numbers whose bins a float32 genome tells apart


@dataclass(frozen=True)
class Float:
    """Real numbers in [low, high].

    Attributes:
      low: Least value.
      high: Greatest value.
      size: Numbers of this kind, an array (size,); None for one number, a scalar.
      log: Equal ratios are equally likely, not equal differences; `low` must be above 0.

    Raises:
      ValueError: If the range is empty or not finite, or `size` is below 1.

    >>> Float(0.1, 1.0, size=5).length
    5
    """

    low: float | int
    high: float | int
    size: int | None = None
    log: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"Float({self.low}, {self.high}): low must lie below high, and both be finite.")
        if self.log and not self.low > 0:
            raise ValueError(f"Float({self.low}, {self.high}, log=True): low must be above 0, or leave log=False.")
        _check_size(self)

    @property
    def length(self) -> int:
        """Numbers of the genome that it takes."""
        return self.size or 1

    def decode(self, genome: Floats[Array, "*batch length"]) -> Array:
        """The value that a stretch of genome stands for."""
        low, high = self._ends()
        found = low + (high - low) * _unit(genome)
        found = jnp.exp(found) if self.log else found
        return _shaped(jnp.clip(found, self.low, self.high), self.size)  # rounding may lead out of the range

    def encode(self, value: Any) -> Array:
        """A stretch of genome that decodes to a value."""
        low, high = self._ends()
        value = jnp.asarray(value, float)
        value = jnp.log(value) if self.log else value
        return _flat(2 * (value - low) / (high - low) - 1, self.size)

    def _ends(self) -> tuple[float, float]:
        return (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)


@dataclass(frozen=True)
class Int:
    """Whole numbers low, low + 1, ..., high.

    Attributes:
      low: Least value.
      high: Greatest value, included.
      size: Numbers of this kind, an array (size,); None for one number, a scalar.

    Raises:
      ValueError: If the bounds are no whole numbers in order or need more than 32 bits, if there are more than 2^23
        values, which float32 does not tell apart, or if `size` is below 1.

    >>> Int(2, 8).decode(jnp.array([-1.0])), Int(2, 8).decode(jnp.array([1.0]))
    (Array(2, dtype=int32), Array(8, dtype=int32))
    """

    low: int
    high: int
    size: int | None = None

    def __post_init__(self) -> None:
        if int(self.low) != self.low or int(self.high) != self.high or self.low >= self.high:
            raise ValueError(f"Int({self.low}, {self.high}): the bounds must be whole numbers, the first one smaller.")
        if max(-self.low, self.high + 1) > 2**31 or self.bins > MOST:
            raise ValueError(
                f"Int({self.low}, {self.high}): bounds have 32 bits, a range {MOST:,} values; search over steps."
            )
        _check_size(self)

    @property
    def length(self) -> int:
        """Numbers of the genome that it takes."""
        return self.size or 1

    @property
    def bins(self) -> int:
        """Number of values."""
        return int(self.high) - int(self.low) + 1

    def decode(self, genome: Floats[Array, "*batch length"]) -> Array:
        """The value that a stretch of genome stands for."""
        step = jnp.floor(self.bins * _unit(genome))
        return _shaped(self.low + jnp.clip(step, 0, self.bins - 1).astype(jnp.int32), self.size)

    def encode(self, value: Any) -> Array:
        """A stretch of genome that decodes to a value."""
        step = (jnp.asarray(value, jnp.int32) - self.low).astype(float)
        centre = (step + 0.5) / self.bins  # of the bin: farthest from its neighbours
        return _flat(2 * centre - 1, self.size)


@dataclass(frozen=True)
class Category:
    """One of several options, without order; decoded to its index.

    Attributes:
      options: The options, at least two and all different.
      size: Choices of this kind, an array (size,) of indices; None for one choice, a scalar.

    Raises:
      ValueError: If there are fewer than two options, or two that are equal, or `size` is below 1.

    >>> Category(("conv", "pool")).decode(jnp.array([-0.2, 0.3]))
    Array(1, dtype=int32)
    """

    options: tuple[Any, ...]
    size: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.options, str) or len(self.options) < 2 or len(set(self.options)) < len(self.options):
            raise ValueError(f"Category({self.options!r}): give a tuple of at least two different options.")
        object.__setattr__(self, "options", tuple(self.options))
        _check_size(self)

    @property
    def length(self) -> int:
        """Numbers of the genome that it takes."""
        return len(self.options) * (self.size or 1)

    def decode(self, genome: Floats[Array, "*batch length"]) -> Array:
        """The value that a stretch of genome stands for."""
        logits = genome.reshape(*genome.shape[:-1], self.size or 1, len(self.options))
        return _shaped(jnp.argmax(logits, axis=-1).astype(jnp.int32), self.size)

    def encode(self, value: Any) -> Array:
        """A stretch of genome that decodes to a value."""
        chosen = jax.nn.one_hot(_flat(jnp.asarray(value), self.size), len(self.options), dtype=jnp.result_type(float))
        return (2 * chosen - 1).reshape(*chosen.shape[:-2], self.length)


@dataclass(frozen=True)
class Mask:
    """A set of places: True where one is kept.

    Attributes:
      size: Number of places.

    Raises:
      ValueError: If `size` is below 1.

    >>> Mask(3).decode(jnp.array([0.5, 0.0, -0.1]))
    Array([ True, False, False], dtype=bool)
    """

    size: int

    def __post_init__(self) -> None:
        _check_size(self)

    @property
    def length(self) -> int:
        """Numbers of the genome that it takes."""
        return self.size

    def decode(self, genome: Floats[Array, "*batch length"]) -> Array:
        """The value that a stretch of genome stands for."""
        return genome > 0

    def encode(self, value: Any) -> Array:
        """A stretch of genome that decodes to a value."""
        return 2.0 * jnp.asarray(value, float) - 1.0


Variable = Float | Int | Category | Mask


def _unit(genome: Array) -> Array:
    """Into [0, 1]: the identity inside [-1, 1] up to scale, a triangle wave of period 4 outside."""
    return 1.0 - jnp.abs(jnp.mod(genome + 1.0, 4.0) - 2.0) / 2.0


def _shaped(found: Array, size: int | None) -> Array:
    return found[..., 0] if size is None else found


def _flat(value: Array, size: int | None) -> Array:
    return value[..., None] if size is None else value


def _check_size(variable: Any) -> None:
    size = variable.size
    if size is not None and (isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1):
        raise ValueError(f"size={size!r} of a {type(variable).__name__} must be a whole number of at least 1.")
