"""From a search to its best design, in one call."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Array

from compressjax.search._driver import Driver, SearchState
from compressjax.search._record import Record
from compressjax.search._space import Design


class Result(NamedTuple):
    """What `minimize` found.

    Attributes:
      design: The best design, repaired; name to array.
      fitness: Its fitness.
      state: To go on from with `Driver.run`.
      records: One per candidate, in order.
    """

    design: Mapping[str, Array]
    fitness: float
    state: SearchState
    records: tuple[Record, ...]


def minimize(driver: Driver, key: Array, generations: int, initial: Design | None = None) -> Result:
    """Runs a search with one objective from its beginning, and returns the best design.

    Args:
      driver: The search.
      key: Random key.
      generations: How many; each evaluates one population.
      initial: A design to start from, as in `Driver.start`.

    Returns:
      A `Result`.

    Raises:
      ValueError: If there are several objectives, no generation, or every candidate failed.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from evosax.algorithms import DifferentialEvolution
    >>> from compressjax.search import Int, Space, strategy
    >>> space = Space({"bits": Int(1, 8, size=3)})
    >>> de = strategy(DifferentialEvolution, space, 16)
    >>> result = minimize(
    ...     Driver(space, de, lambda d, key: jnp.sum(abs(d["bits"] - 3.0), axis=1)), jax.random.key(0), 12
    ... )
    >>> result.design["bits"], result.fitness, len(result.records)
    (Array([3, 3, 3], dtype=int32), 0.0, 192)
    """
    if driver.objectives > 1:
        raise ValueError("minimize returns one best design: with several objectives use Driver.run and front.")
    if generations < 1:
        raise ValueError(f"generations={generations} must be at least 1.")
    state, records = driver.start(key, initial), list[Record]()
    for after, found in driver.run(state, generations):
        state = after
        records += found
    if not np.isfinite(state.best_fitness):
        raise ValueError(f"All {len(records)} candidates failed: evaluate one by hand, outside a search, to see why.")
    return Result(driver.design(state.best_genome), float(state.best_fitness), state, tuple(records))
