r"""Baselines: random search, and greedy coordinate search; what every other strategy has to beat at equal evaluations.

Greedy search keeps one design and tries moves from it, as many per generation as the population holds, in a fixed
order: for a float a step up and a step down, for an integer one more and one less, for a category every option, for a
place of a mask the other value.  The best candidate becomes the new design if it is better; after a whole round of
moves without one, the steps of floats are halved.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from evosax.algorithms import RandomSearch
from evosax.algorithms.distribution_based.base import DistributionBasedAlgorithm
from jaxtyping import Array
from jaxtyping import Float as Floats

from compressjax.search._space import Space
from compressjax.search._variables import Category, Float, Int


def random_search(space: Space, population: int) -> RandomSearch:
    """Random search (that of evosax) over the designs of a space: `Space.sample`, generation after generation.

    Args:
      space: The space.
      population: Candidates per generation, at least 1.

    Returns:
      A strategy.

    >>> space = Space({"x": Float(0.0, 1.0)})
    >>> random_search(space, 8).num_dims
    1
    """
    return RandomSearch(population, jnp.zeros(space.size), sampling_fn=lambda key: space.sample(key, 1)[0])


class GreedyState(NamedTuple):
    """Where greedy search stands.

    Attributes:
      mean: The design it has, as a genome (size,).
      fitness: Its fitness; infinite before it was evaluated, ().
      step: Of floats, in genome units, ().
      cursor: The next move, ().
      fruitless: Moves since the last improvement, ().
      best_solution: As `mean`, kept by evosax, (size,).
      best_fitness: As `fitness`, ().
      generation_counter: Generations, ().
    """

    mean: Any
    fitness: Any
    step: Any
    cursor: Any
    fruitless: Any
    best_solution: Any
    best_fitness: Any
    generation_counter: Any

    def replace(self, **updates: Any) -> "GreedyState":
        """A copy with other values, as evosax calls it."""
        return self._replace(**updates)


class GreedyParams(NamedTuple):
    """Parameters.

    Attributes:
      step: First step of floats in genome units, in which a range is 2 long.
    """

    step: Any


class Greedy(DistributionBasedAlgorithm):
    """Greedy coordinate search over a space; the start is the mean given to `init`.

    Args:
      population_size: Moves tried per generation, at least 1.
      space: The space, which says what a move is.

    >>> from compressjax.search import Driver, Float, Space, minimize
    >>> space = Space({"x": Float(-1.0, 1.0), "op": Category(("a", "b", "c"))})
    >>> loss = lambda d, key: (d["x"] - 0.5) ** 2 + (d["op"] != 2)
    >>> result = minimize(Driver(space, Greedy(5, space), loss), jax.random.key(0), 4)
    >>> result.design["x"], result.design["op"]
    (Array(0.5, dtype=float32), Array(2, dtype=int32))
    """

    def __init__(self, population_size: int, space: Space):
        super().__init__(population_size, jnp.zeros(space.size))
        self.space = space
        self._keep, self._add, self._scaled = _moves(space)

    @property
    def _default_params(self) -> GreedyParams:
        return GreedyParams(jnp.asarray(0.5))

    @partial(jax.jit, static_argnames=("self",))
    def init(self, key: Array, mean: Floats[Array, " size"], params: GreedyParams) -> GreedyState:
        """The state at a start: the genome of its design, with places at -1 or 1, so that each can be turned over."""
        return super().init(key, self.space.encode(self.space.decode(mean)), params)

    def _init(self, key: Array, params: GreedyParams) -> GreedyState:
        nothing, worst = jnp.full((self.num_dims,), jnp.nan), jnp.full((), jnp.inf, jnp.result_type(float))
        zero = jnp.zeros((), jnp.int32)
        return GreedyState(nothing, worst, jnp.asarray(params.step), zero, zero, nothing, worst, zero)

    def _ask(self, key: Array, state: GreedyState, params: GreedyParams) -> tuple[Array, GreedyState]:
        move = (state.cursor + jnp.arange(self.population_size)) % len(self._keep)
        scale = jnp.where(jnp.asarray(self._scaled)[move], state.step, 1.0)[:, None]
        moved = jnp.asarray(self._keep)[move] * state.mean[None] + jnp.asarray(self._add)[move] * scale
        moved = jnp.clip(moved, -1.0, 1.0)
        # The first candidate of all is the start itself.
        moved = moved.at[0].set(jnp.where(jnp.isfinite(state.fitness), moved[0], state.mean))
        return moved, state

    def _tell(
        self, key: Array, population: Array, fitness: Array, state: GreedyState, params: GreedyParams
    ) -> GreedyState:
        values = jnp.where(jnp.isnan(fitness), jnp.inf, fitness)
        best = jnp.argmin(values)
        better = values[best] < state.fitness
        count = len(self._keep)
        fruitless = jnp.where(better, 0, state.fruitless + self.population_size).astype(jnp.int32)
        halve = fruitless >= count
        return state._replace(
            mean=jnp.where(better, population[best], state.mean),
            fitness=jnp.where(better, values[best], state.fitness),
            step=jnp.where(halve, state.step / 2, state.step),
            cursor=((state.cursor + self.population_size) % count).astype(jnp.int32),
            fruitless=jnp.where(halve, 0, fruitless).astype(jnp.int32),
        )


def _moves(space: Space) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every move as keep * genome + add * (step or 1): (moves, size), (moves, size), (moves,) whether scaled."""
    keep, add, scaled = [], [], []

    def move(places: list[int], factor: float, values: list[float], by_step: bool) -> None:
        kept, added = np.ones(space.size, np.float32), np.zeros(space.size, np.float32)
        kept[places], added[places] = factor, values
        keep.append(kept)
        add.append(added)
        scaled.append(by_step)

    for name, place in space.places.items():
        variable = space.variables[name]
        here = range(place.start, place.stop)
        if isinstance(variable, Category):
            count = len(variable.options)
            for begin in here[::count]:
                for chosen in range(count):
                    move(
                        [*range(begin, begin + count)], 0.0, [1.0 if i == chosen else -1.0 for i in range(count)], False
                    )
        else:
            for i in here:
                if isinstance(variable, Float | Int):
                    size = 1.0 if isinstance(variable, Float) else 2.0 / variable.bins
                    for sign in (1.0, -1.0):
                        move([i], 1.0, [sign * size], isinstance(variable, Float))
                else:
                    move([i], -1.0, [0.0], False)
    return np.stack(keep), np.stack(add), np.array(scaled)
