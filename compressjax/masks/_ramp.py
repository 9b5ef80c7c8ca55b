"""Ramps: how a budget moves from its first to its last value.

    cubic:  s(t) = s_f + (s_i - s_f) (1 - (t - t_0) / (t_1 - t_0))^3,  held at the ends

Source of the cubic ramp: Zhu, Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model
compression", 2017 (arXiv 1710.01878), equation 1.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def _progress(step: int | Int[Array, ""], begin: int, end: int) -> Float[Array, ""]:
    if end <= begin:
        raise ValueError(f"A ramp from step {begin} to step {end} has no length: end must exceed begin.")
    return jnp.clip((jnp.asarray(step) - begin).astype(jnp.float32) / (end - begin), 0.0, 1.0)


def cubic(
    step: int | Int[Array, ""], begin: int, end: int, initial: float | Float[Array, ""], final: float
) -> Float[Array, ""]:
    """Moves fast at first and slowly at the end: removes many weights while many are spare.

    Args:
      step: The present step, possibly traced.
      begin: Last step at `initial`.
      end: First step at `final`.
      initial: Value up to `begin`.
      final: Value from `end` on.

    Returns:
      float32 scalar.

    Raises:
      ValueError: If `end` does not exceed `begin`.

    >>> [float(cubic(step, 0, 2, initial=1.0, final=0.0)) for step in (0, 1, 2, 3)]
    [1.0, 0.125, 0.0, 0.0]
    """
    return jnp.float32(final) + jnp.float32(initial - final) * (1.0 - _progress(step, begin, end)) ** 3


def linear(
    step: int | Int[Array, ""], begin: int, end: int, initial: float | Float[Array, ""], final: float
) -> Float[Array, ""]:
    """Moves at constant speed; arguments and errors as for `cubic`.

    >>> [float(linear(step, 0, 2, initial=1.0, final=0.0)) for step in (0, 1, 2, 3)]
    [1.0, 0.5, 0.0, 0.0]
    """
    return jnp.float32(final) + jnp.float32(initial - final) * (1.0 - _progress(step, begin, end))
