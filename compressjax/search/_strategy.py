"""Making strategies over a space, with the conditions they have on a population said in words."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from compressjax.search._space import Space

# Below these sizes a strategy has nothing to compare, or nothing to recombine.
LEAST = {
    "DifferentialEvolution": 4,
    "GradientlessDescent": 1,
    "Greedy": 1,
    "HillClimbing": 1,
    "RandomSearch": 1,
    "SimulatedAnnealing": 1,
}


def strategy(kind: type, space: Space, population: int, **options: Any) -> Any:
    """An evosax strategy over the genomes of a space.  Make it once: its object is what `jit` compiles for.

    Args:
      kind: A class of ``evosax.algorithms``, or `PBIL`.
      space: The space.
      population: Members of a population.
      **options: Further arguments of the class.

    Returns:
      The strategy.

    Raises:
      ValueError: If the population is too small for this strategy, or odd where it must be even.

    >>> from evosax.algorithms import SNES
    >>> from compressjax.search import Mask
    >>> strategy(SNES, Space({"keep": Mask(16)}), 32).num_dims
    16
    """
    check_population(kind, population)
    try:
        return kind(population, jnp.zeros(space.size), **options)
    except AssertionError as error:
        raise ValueError(f"{kind.__name__} does not take population={population}: {error}") from error


def check_population(kind: type, population: int) -> None:
    """Raises if a strategy cannot work with so few members."""
    least = LEAST.get(kind.__name__, 2)
    if isinstance(population, bool) or not isinstance(population, int | np.integer) or population < least:
        raise ValueError(f"population={population}: {kind.__name__} needs a whole number of at least {least}.")
