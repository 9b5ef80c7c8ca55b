r"""Schedules of the ADMM penalty, and the published coarse schedule as one setting.

All are functions of the optimizer's step count t, for `admm`'s `rho` or as any optax schedule::

    half_cosine   first + (last - first) (1 - cos(pi min(t / steps, 1))) / 2         (SAFE, ICML 2025)
    geometric     min(first factor^floor(t / every), last)                           ("multi-rho", factor 1.3)
    staged        values[number of boundaries <= t]
    coarse        constant rho, thousands of steps between refreshes, and a learning rate that starts again at each
                  refresh and decays inside                                          (Zhang et al., arXiv 1804.03294)
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from compressjax.training._common import require_steps

Ramp = Callable[[Int[Array, ""] | int], Float[Array, ""]]


def half_cosine(first: float, last: float, steps: int) -> Ramp:
    """Rises from `first` to `last` along half a cosine and stays there.

    Args:
      first: Value at step 0.
      last: Value from `steps` on.
      steps: Length of the ramp.

    Returns:
      Schedule, step count to () float32.

    Raises:
      ValueError: If `steps` is not positive.

    >>> rho = half_cosine(0.0, 0.05, 100)
    >>> print(rho(0), rho(50), rho(100), rho(1000))
    0.0 0.025 0.05 0.05
    """
    require_steps("half_cosine", steps=steps)

    def schedule(count: Int[Array, ""] | int) -> Float[Array, ""]:
        progress = jnp.minimum(jnp.asarray(count, jnp.float32) / steps, 1.0)
        return first + (last - first) * (1.0 - jnp.cos(jnp.pi * progress)) / 2.0

    return schedule


def geometric(first: float, factor: float, every: int, *, last: float = float("inf")) -> Ramp:
    """Multiplies by `factor` every `every` steps, up to `last`.

    Args:
      first: Value of the first stage.
      factor: Growth from stage to stage; 1.3 in the public code.
      every: Steps in a stage; `admm`'s `every` raises rho at each refresh.
      last: Ceiling.

    Returns:
      Schedule, step count to () float32.

    Raises:
      ValueError: If `first` or `factor` is not positive, or `every` is not.

    >>> rho = geometric(1.0, 2.0, 10, last=6.0)
    >>> print(rho(0), rho(9), rho(10), rho(20), rho(30))
    1.0 1.0 2.0 4.0 6.0
    """
    require_steps("geometric", every=every)
    if not (first > 0 and factor > 0):
        raise ValueError(f"geometric: first={first} and factor={factor} must be positive.")

    def schedule(count: Int[Array, ""] | int) -> Float[Array, ""]:
        stage = (jnp.asarray(count, jnp.int32) // every).astype(jnp.float32)
        return jnp.minimum(first * jnp.asarray(factor, jnp.float32) ** stage, last)

    return schedule


def staged(values: Sequence[float], boundaries: Sequence[int]) -> Ramp:
    """A step function: ``values[0]`` before the first boundary, ``values[j]`` from boundary ``j - 1`` on.

    Args:
      values: One value per stage.
      boundaries: Growing step counts at which the stages change, one fewer than `values`.

    Returns:
      Schedule, step count to () float32.

    Raises:
      ValueError: If the lengths do not match or the boundaries do not grow.

    >>> rho = staged([0.001, 0.01], [500])
    >>> print(rho(499), rho(500))
    0.001 0.01
    """
    if len(values) != len(boundaries) + 1:
        raise ValueError(
            f"staged: {len(values)} values need {len(values) - 1} boundaries between them, not {len(boundaries)}."
        )
    if any(a >= b for a, b in pairwise(boundaries)):
        raise ValueError(f"staged: boundaries must grow, not {tuple(boundaries)}.")
    table = tuple(float(value) for value in values)
    edges = tuple(int(edge) for edge in boundaries)

    def schedule(count: Int[Array, ""] | int) -> Float[Array, ""]:
        passed = jnp.asarray(count, jnp.int32) >= jnp.asarray(edges, jnp.int32)
        return jnp.asarray(table, jnp.float32)[jnp.sum(passed)]

    return schedule


class Coarse(NamedTuple):
    """The settings of a coarse ADMM run.

    Attributes:
      every: Steps between refreshes, for `admm`.
      rho: Penalty schedule, for `admm`.
      learning_rate: Learning-rate schedule of the step count, for the inner optimizer.
      steps: Length of the whole run in steps.
    """

    every: int
    rho: Ramp
    learning_rate: Ramp
    steps: int


def coarse(
    *,
    iterations: int = 20,
    steps_per_iteration: int = 8000,
    rho: float = 7e-3,
    growth: float = 1.0,
    learning_rate: float = 1e-3,
    decay: float = 0.1,
    decay_at: Sequence[float] = (0.25,),
) -> Coarse:
    """The published schedule: few refreshes, each after a small training run of its own.

    The defaults are those of the ADMM-NN LeNet-5 release for pruning (SGD, momentum 0.9, batch 64).  Its quantization
    stage has 6,000 steps with ``decay_at=(1 / 3,)`` and a tenfold rho on one layer: `admm`'s ``scale={"fc1/kernel":
    10.0}``.  The progressive code drops the rate at each third, ``decay_at=(1 / 3, 2 / 3)``, and lets the penalty
    grow, ``rho=1e-3, growth=1.3``.

    Args:
      iterations: ADMM iterations of the run.
      steps_per_iteration: Optimizer steps between refreshes.
      rho: Penalty of the first iteration.
      growth: Factor on rho from iteration to iteration.
      learning_rate: Value with which each iteration starts.
      decay: Factor on the learning rate at each point of `decay_at`.
      decay_at: Points within an iteration, as fractions of it, at which the learning rate drops.

    Returns:
      `Coarse` settings.  The learning rate counts the steps of the run and starts again by itself; with
      ``admm(reset_inner=True)`` the inner count starts again as well, which gives the same rates.

    Raises:
      ValueError: If a count is not positive, `rho` or `growth` is not, or `decay_at` does not lie in an iteration.

    >>> settings = coarse(iterations=3, steps_per_iteration=100, growth=1.3)
    >>> print([f"{settings.learning_rate(t):.0e}" for t in (0, 24, 25, 99, 100)])
    ['1e-03', '1e-03', '1e-04', '1e-04', '1e-03']
    >>> settings.every, settings.steps, f"{settings.rho(100):.4f}"
    (100, 300, '0.0091')
    """
    require_steps("coarse", iterations=iterations, steps_per_iteration=steps_per_iteration)
    if any(not 0.0 < point < 1.0 for point in decay_at):
        raise ValueError(f"coarse: decay_at={tuple(decay_at)} must be fractions of an iteration, between 0 and 1.")
    drops = tuple(round(point * steps_per_iteration) for point in decay_at)

    def rate(count: Int[Array, ""] | int) -> Float[Array, ""]:
        within = jnp.asarray(count, jnp.int32) % steps_per_iteration
        passed = jnp.sum(within >= jnp.asarray(drops, jnp.int32)).astype(jnp.float32)
        return learning_rate * jnp.asarray(decay, jnp.float32) ** passed

    return Coarse(
        steps_per_iteration, geometric(rho, growth, steps_per_iteration), rate, steps_per_iteration * iterations
    )
