"""Ranges of the numbers that costs are made of, checked where they are concrete.

A negative density or clock gives a plausible number of the wrong sign, and ``max(compute, memory)`` may hide it.  Under
`jax.jit` or `jax.vmap` values are not known, and nothing is checked.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Range(NamedTuple):
    """Numbers from `low` (itself included unless `above`) to `high`; not-a-number is in none.

    >>> str(Range()), str(Range(high=1.0, above=True))
    ('at least 0', 'above 0 and at most 1')
    """

    low: float = 0.0
    high: float = float("inf")
    above: bool = False

    def __str__(self) -> str:
        text = f"{'above' if self.above else 'at least'} {self.low:g}"
        return text if self.high == float("inf") else f"{text} and at most {self.high:g}"


POSITIVE, NOT_NEGATIVE = Range(above=True), Range()
SHARE, PART = Range(high=1.0, above=True), Range(high=1.0)  # without zero, with zero


def check(what: str, value: Any, within: Range, names: tuple[str, ...] = ()) -> None:
    """Raises `ValueError` unless all numbers lie in the range; traced values pass.

    Args:
      what: What the value is, for the error.
      value: A number or an array.
      within: The range.
      names: Of the entries, for the error.

    >>> check("density", np.array([1.0, 2.0]), PART, ("fc1", "fc2"))
    Traceback (most recent call last):
    ValueError: density of fc2 is 2.0: it must be a number at least 0 and at most 1.
    """
    if isinstance(value, jax.core.Tracer):
        return
    array = np.asarray(value)
    if not (jnp.issubdtype(array.dtype, np.floating) or jnp.issubdtype(array.dtype, np.integer)):
        raise ValueError(f"{what} is {value!r}: it must be a number {within}.")
    low = array > within.low if within.above else array >= within.low
    wrong = np.flatnonzero(~(low & (array <= within.high)))
    if len(wrong):
        place = f" of {names[wrong[0]]}" if names else ""
        raise ValueError(f"{what}{place} is {array.reshape(-1)[wrong[0]]}: it must be a number {within}.")


def check_fields(owner: Any, within: Range, *fields: str) -> None:
    """`check` for attributes of a platform, which hold a number or a tuple of some."""
    for field in fields:
        value, what = getattr(owner, field), f"{field} of {type(owner).__name__}"
        if isinstance(value, tuple) and not value:
            raise ValueError(f"{what} is empty: give at least one.")
        for number in value if isinstance(value, tuple) else (value,):
            check(what, number, within)
