r"""PBIL for masks: a probability per place, moved towards the best masks.

    p  <-  (1 - rate) p + rate (mean of the elites)
    p  <-  (1 - negative) p + negative (best mask)       where the best and the worst mask differ
    p in [floor, 1 - floor], so that no place is ever decided for good

The state holds the mean 2 p - 1 of genomes that are +1 where a place is kept and -1 elsewhere.  All dimensions of the
space should be `Mask`s.

Source: Baluja, "Population-Based Incremental Learning", CMU-CS-94-163, 1994.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from evosax.algorithms.distribution_based.base import DistributionBasedAlgorithm
from jaxtyping import Array

from compressjax.search._evaluate import FAILED


class PBILState(NamedTuple):
    """The mean of the genomes (size,), the best genome so far (size,), its fitness and the generation."""

    mean: Any
    best_solution: Any
    best_fitness: Any
    generation_counter: Any

    def replace(self, **updates: Any) -> "PBILState":
        """A copy with other values, as evosax calls it."""
        return self._replace(**updates)


class PBILParams(NamedTuple):
    """Parameters, all of which may be traced.

    Attributes:
      rate: Step towards the elites' mean, in (0, 1].
      negative: Further step towards the best mask where the worst one differs.
      floor: Least probability of either value of a place.
    """

    rate: Any
    negative: Any
    floor: Any


class PBIL(DistributionBasedAlgorithm):
    """Independent places, each with a probability of being kept.

    Args:
      population_size: Masks per generation, at least 2.
      solution: An example of a genome, (size,).
      elites: How many of the best masks are learned from; a quarter by default.

    Raises:
      ValueError: If `elites` is not in 1..population_size.

    >>> from compressjax.search import Driver, Mask, Space, minimize, strategy
    >>> space = Space({"keep": Mask(8)})
    >>> wanted = jnp.array([1, 0, 0, 1, 1, 0, 1, 0], bool)
    >>> driver = Driver(
    ...     space, strategy(PBIL, space, 16), lambda d, key: jnp.sum(d["keep"] != wanted[None], axis=1) * 1.0
    ... )
    >>> minimize(driver, jax.random.key(0), 10).fitness
    0.0
    """

    def __init__(self, population_size: int, solution: Any, elites: int | None = None):
        super().__init__(population_size, solution)
        self.elites = max(1, population_size // 4) if elites is None else elites
        if not 1 <= self.elites <= population_size:
            raise ValueError(f"elites={elites} must lie in 1..{population_size}, the population.")

    @property
    def _default_params(self) -> PBILParams:
        return PBILParams(jnp.asarray(0.25), jnp.asarray(0.075), jnp.asarray(0.02))

    def _init(self, key: Array, params: PBILParams) -> PBILState:
        nothing = jnp.full((self.num_dims,), jnp.nan)
        return PBILState(nothing, nothing, jnp.full((), jnp.inf, nothing.dtype), jnp.zeros((), jnp.int32))

    def _ask(self, key: Array, state: PBILState, params: PBILParams) -> tuple[Array, PBILState]:
        kept = jax.random.uniform(key, (self.population_size, self.num_dims)) < _probability(state.mean, params)[None]
        return jnp.where(kept, 1.0, -1.0), state

    def _tell(self, key: Array, population: Array, fitness: Array, state: PBILState, params: PBILParams) -> PBILState:
        able = jnp.isfinite(fitness) & (fitness < FAILED)
        order = jnp.argsort(jnp.where(able, fitness, jnp.inf))
        masks = jnp.where(population[order] > 0, 1.0, -1.0)
        weight = able[order][: self.elites].astype(masks.dtype)
        mean = 2 * _probability(state.mean, params) - 1
        elite = jnp.sum(masks[: self.elites] * weight[:, None], axis=0) / jnp.maximum(jnp.sum(weight), 1)
        mean = jnp.where(jnp.any(able), (1 - params.rate) * mean + params.rate * elite, mean)
        worst = masks[jnp.maximum(jnp.sum(able) - 1, 0)]
        away = jnp.any(able) & (masks[0] != worst)
        mean = jnp.where(away, (1 - params.negative) * mean + params.negative * masks[0], mean)
        return state._replace(mean=2 * _probability(mean, params) - 1)


def _probability(mean: Array, params: PBILParams) -> Array:
    return jnp.clip((1 + mean) / 2, params.floor, 1 - params.floor)
