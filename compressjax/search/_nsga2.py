r"""NSGA-II as an evosax strategy: several objectives, elitist, a front instead of a best.

    ask   binary tournaments by (front, crowding); simulated binary crossover; polynomial mutation; all in [-1, 1]
    tell  parents and children together; the best half by (front, crowding) live on

Source: Deb, Pratap, Agarwal, Meyarivan, IEEE TEVC 2002; operators of Deb and Agrawal, Complex Systems 1995.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from evosax.algorithms.population_based.base import PopulationBasedAlgorithm
from jaxtyping import Array, Float, Int

from compressjax.search._front import crowding_distances, non_dominated_ranks


class NSGA2State(NamedTuple):
    """The population and where it stands: (members, size), (members, objectives), (members,), (members,), ()."""

    population: Any
    fitness: Any
    ranks: Any
    crowding: Any
    generation_counter: Any

    def replace(self, **updates: Any) -> "NSGA2State":
        """A copy with other values, as evosax calls it."""
        return self._replace(**updates)


class NSGA2Params(NamedTuple):
    """Parameters, all of which may be traced.

    Attributes:
      crossover_rate: Probability that a child has two parents.
      crossover_eta: Larger keeps children nearer to their parents.
      mutation_rate: Probability per number.
      mutation_eta: Larger keeps mutants nearer.
    """

    crossover_rate: Any
    crossover_eta: Any
    mutation_rate: Any
    mutation_eta: Any


class NSGA2(PopulationBasedAlgorithm):
    """A population of designs that trade several objectives.

    Its fitness has the shape (members, objectives).  `init`, `ask` and `tell` are those of evosax; there is no best
    solution, but `front(state.fitness)`.

    Args:
      population_size: Members, at least 2.
      solution: An example of a genome, (size,).
      objectives: Numbers per member, at least 2.

    Raises:
      ValueError: If `objectives` is below 2.

    >>> from compressjax.search import Driver, Float, Space, front, strategy
    >>> space = Space({"x": Float(0.0, 1.0)})
    >>> driver = Driver(space, strategy(NSGA2, space, 16), lambda d, key: jnp.stack([d["x"], 1 - d["x"] ** 2], axis=1))
    >>> for state, _ in driver.run(driver.start(jax.random.key(0)), 5):
    ...     pass
    >>> bool(front(state.algorithm.fitness).all())
    True
    """

    def __init__(self, population_size: int, solution: Any, objectives: int = 2):
        if objectives < 2:
            raise ValueError(f"objectives={objectives}: NSGA-II needs at least 2; use another strategy for one.")
        super().__init__(population_size, solution)
        self.objectives = objectives

    @property
    def _default_params(self) -> NSGA2Params:
        return NSGA2Params(jnp.asarray(0.9), jnp.asarray(15.0), jnp.asarray(1.0 / self.num_dims), jnp.asarray(20.0))

    @partial(jax.jit, static_argnames=("self",))
    def init(
        self, key: Array, population: Float[Array, "n size"], fitness: Float[Array, "n objectives"], params: NSGA2Params
    ) -> NSGA2State:
        """The state with an evaluated first population; `key` and `params` are not used."""
        return self._state(population, fitness, jnp.zeros((), jnp.int32))

    @partial(jax.jit, static_argnames=("self",))
    def tell(
        self,
        key: Array,
        population: Float[Array, "n size"],
        fitness: Float[Array, "n objectives"],
        state: NSGA2State,
        params: NSGA2Params,
    ) -> tuple[NSGA2State, dict[str, Array]]:
        """The best half of parents and children, and the size of the front; `key` and `params` are not used."""
        both = jnp.concatenate([population, state.population])
        values = jnp.concatenate([fitness, state.fitness])
        ranks = non_dominated_ranks(values)
        chosen = jnp.lexsort((-crowding_distances(values, ranks), ranks))[: self.population_size]
        state = self._state(both[chosen], values[chosen], state.generation_counter + 1)
        return state, {"generation_counter": state.generation_counter, "front": jnp.sum(state.ranks == 0)}

    def _state(self, population: Array, fitness: Array, generation: Int[Array, ""]) -> NSGA2State:
        ranks = non_dominated_ranks(fitness)
        return NSGA2State(population, fitness, ranks, crowding_distances(fitness, ranks), generation)

    def _ask(self, key: Array, state: NSGA2State, params: NSGA2Params) -> tuple[Array, NSGA2State]:
        n = self.population_size
        keys = jax.random.split(key, 7)
        order = jnp.lexsort((-state.crowding, state.ranks))  # a member's place in it decides tournaments
        places = jnp.min(jax.random.randint(keys[0], (2, n, 2), 0, n), axis=-1)
        first, second = state.population[order[places]]

        # Simulated binary crossover: children lie around their parents as if one bit string had been crossed.
        u = jax.random.uniform(keys[1], first.shape)
        power = 1 / (params.crossover_eta + 1)
        beta = jnp.where(u <= 0.5, (2 * u) ** power, (1 / (2 * (1 - u))) ** power)
        side = jnp.where(jax.random.bernoulli(keys[2], 0.5, first.shape), 1.0, -1.0)
        crossed = ((first + second) + side * beta * (first - second)) / 2
        use = jax.random.bernoulli(keys[3], 0.5, first.shape)
        pair = jax.random.uniform(keys[4], (n, 1)) < params.crossover_rate
        child = jnp.where(pair & use, crossed, first)

        u = jax.random.uniform(keys[5], child.shape)
        power = 1 / (params.mutation_eta + 1)
        delta = jnp.where(u < 0.5, (2 * u) ** power - 1, 1 - (2 * (1 - u)) ** power)
        mutate = jax.random.uniform(keys[6], child.shape) < params.mutation_rate
        return jnp.clip(child + jnp.where(mutate, 2 * delta, 0.0), -1.0, 1.0), state
