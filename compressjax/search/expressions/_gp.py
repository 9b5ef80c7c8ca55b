r"""Genetic programming as an evosax algorithm: `init`, `ask`, `tell`, minimising.

    parents     the `num_parents` best by (fitness + parsimony * length, length); they survive
    children    copies of random parents; consecutive pairs exchange subtrees with chance `crossover_rate`, then a
                random subtree is replaced by a full random tree of height 0 .. 4 with chance `mutation_rate`, then
                constants move
    next        the best of parents and children together

A fitness that is not finite means failure: it never becomes a parent, and if all have failed the children are random
trees.  Of programs with exactly the same fitness only the shortest breeds, unless `distinct` is off: else copies and
rewritings of the best program may fill all places, as they may in the published form.  Ranking equally fit programs by
length is the simplest size control; `parsimony` charges each token.

Source: Liu, Kung, Wentzlaff, "Evolving Transferable Neural Pruning Functions", GECCO 2022 (arXiv 2110.10876): parents,
rates and mutation as released.  The choice of parents by tournaments is its option.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from evosax.algorithms.population_based.base import PopulationBasedAlgorithm
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from compressjax.search.expressions._language import PAPER, Language
from compressjax.search.expressions._programs import Programs, check
from compressjax.search.expressions._vary import HEIGHTS, crossover, move_constants, mutate, trees


class GPParams(NamedTuple):
    """Rates that may change from generation to generation, and in a `vmap`.

    Attributes:
      crossover_rate: Chance that a pair of copies exchanges subtrees.
      mutation_rate: Chance that a copy has a subtree replaced.
      constant_rate: Chance that a constant of a child moves.
      constant_std: Standard deviation of the logarithm of that move.
      parsimony: Fitness charged per token for the ranking; 0 leaves length as the tie-break.
    """

    crossover_rate: Any = 0.75
    mutation_rate: Any = 0.75
    constant_rate: Any = 0.0
    constant_std: Any = 0.1
    parsimony: Any = 0.0


class GPState(NamedTuple):
    """The state of a search: arrays only, so that it can be saved anywhere.

    Attributes:
      population: Programs in one row of float32 each, as evosax keeps them.
      fitness: Of each, infinite where it failed.
      best_solution: The best program seen.
      best_fitness: Its fitness.
      generation_counter: Calls of `tell`.
    """

    population: Float[Array, "population dims"]
    fitness: Float[Array, " population"]
    best_solution: Float[Array, " dims"]
    best_fitness: Float[Array, ""]
    generation_counter: Int[Array, ""]

    def replace(self, **changes: Any) -> "GPState":
        """A new state with some fields changed, which is how evosax updates states."""
        return self._replace(**changes)


class ExpressionGP(PopulationBasedAlgorithm):
    """Elitist genetic programming on `Programs`.

    Evaluate a first population, such as seeds or `random_programs`, and give it to `init`; `ask` returns as many
    children, `tell` takes their fitness.  Old programs keep theirs and are not evaluated again.

    Args:
      population_size: Programs in a generation, at least 2 and at least `num_parents`.
      length: Of the programs' arrays; F2, the longest of the published functions, has 26 tokens.
      language: What the tokens mean.
      num_parents: How many survive and breed.
      tournament: If given, copies are of winners of tournaments of so many among all, not of the `num_parents` best.
      distinct: Whether of programs with exactly the same fitness only the shortest may breed.

    Raises:
      ValueError: If a size is out of range.

    >>> from compressjax.search.expressions import random_programs
    >>> gp = ExpressionGP(8, 16)
    >>> first = random_programs(jax.random.key(0), 8, 16)
    >>> state = gp.init(jax.random.key(1), first, jnp.arange(8.0), gp.default_params)
    >>> children, state = gp.ask(jax.random.key(2), state, gp.default_params)
    >>> state, metrics = gp.tell(jax.random.key(3), children, jnp.full(8, jnp.nan), state, gp.default_params)
    >>> float(metrics["best_fitness"]), int(state.generation_counter)
    (0.0, 1)
    """

    def __init__(
        self,
        population_size: int,
        length: int = 32,
        language: Language = PAPER,
        *,
        num_parents: int = 6,
        tournament: int | None = None,
        distinct: bool = True,
    ):
        if population_size < 2 or not 1 <= num_parents <= population_size:
            raise ValueError(
                f"population_size={population_size} must be at least 2 and at least num_parents={num_parents}, "
                "which must be at least 1."
            )
        if length < 1:
            raise ValueError(f"length={length} must be at least 1.")
        if tournament is not None and not 1 <= tournament <= population_size:
            raise ValueError(f"tournament={tournament} must lie in 1..{population_size}, the size of the population.")
        super().__init__(population_size, Programs(jnp.zeros(length, jnp.int32), jnp.zeros(length, jnp.float32)))
        self.length = length
        self.language = language
        self.num_parents = num_parents
        self.tournament = tournament
        self.distinct = distinct

    # evosax compiles per instance; searches of the same form share what was compiled.
    def _form(self) -> tuple[Any, ...]:
        return (self.population_size, self.length, self.language, self.num_parents, self.tournament, self.distinct)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._form() == other._form()

    def __hash__(self) -> int:
        return hash(self._form())

    @property
    def _default_params(self) -> GPParams:
        return GPParams()

    def init(self, key: PRNGKeyArray, population: Programs, fitness: Any, params: GPParams) -> GPState:
        """Starts from an evaluated population.

        Args:
          key: A random key.
          population: Valid programs, (population_size, length).
          fitness: Of each; smaller is better, not finite is failed.
          params: Of the search.

        Returns:
          The first state.

        Raises:
          ValueError: If shapes do not fit or a program is malformed.
        """
        self._fits(population, fitness)
        if not isinstance(population.tokens, jax.core.Tracer):
            check(population, self.language)
        return super().init(key, Programs(*map(jnp.asarray, population)), _failed_last(fitness), params)

    def tell(
        self, key: PRNGKeyArray, population: Programs, fitness: Any, state: GPState, params: GPParams
    ) -> tuple[GPState, dict[str, Array]]:
        """Takes the fitness of the children that `ask` gave.

        Args:
          key: A random key, not used.
          population: The children.
          fitness: Of each; smaller is better, not finite is failed.
          state: From `ask`.
          params: Of the search.

        Returns:
          The next state, and evosax's metrics.

        Raises:
          ValueError: If shapes do not fit.
        """
        self._fits(population, fitness)
        return super().tell(key, Programs(*map(jnp.asarray, population)), _failed_last(fitness), state, params)

    def _fits(self, population: Programs, fitness: Any) -> None:
        wanted = (self.population_size, self.length)
        if np.shape(population.tokens) != wanted or np.shape(fitness) != wanted[:1]:
            raise ValueError(
                f"The population has the shape {np.shape(population.tokens)} and its fitness {np.shape(fitness)}: this "
                f"search needs {wanted} and {wanted[:1]}."
            )

    def _init(self, key: PRNGKeyArray, params: GPParams) -> GPState:
        return GPState(
            population=jnp.zeros((self.population_size, self.num_dims), self.solution_flat.dtype),
            fitness=jnp.full((self.population_size,), jnp.inf, jnp.float32),
            best_solution=jnp.zeros((self.num_dims,), self.solution_flat.dtype),
            best_fitness=jnp.float32(jnp.inf),
            generation_counter=jnp.int32(0),
        )

    def _order(self, population: Array, fitness: Array, params: GPParams) -> tuple[Array, Array]:
        """Best first, by charged fitness, then by length; and how many may breed, which stand before all others."""
        size = jnp.sum(population[:, : self.length] > 0, axis=1)  # tokens come first in a row
        failed = ~jnp.isfinite(fitness)
        repeated = jnp.zeros(fitness.shape, bool)
        if self.distinct:
            order = jnp.lexsort((size, fitness))
            again = jnp.diff(fitness[order], prepend=jnp.nan) == 0
            repeated = repeated.at[order].set(again)
        order = jnp.lexsort((size, fitness + params.parsimony * size, repeated, failed))
        return order, jnp.sum(~failed & ~repeated)

    def _ask(
        self, key: PRNGKeyArray, state: GPState, params: GPParams
    ) -> tuple[Float[Array, "population dims"], GPState]:
        count = self.population_size
        key_parent, key_pair, key_cross, key_who, key_mutate, key_move, key_new = jax.random.split(key, 7)
        order, alive = self._order(state.population, state.fitness, params)
        copies = jax.vmap(self._unravel_solution)(state.population[self._parents(key_parent, order, alive)])

        half = count // 2
        first, second = (jax.tree.map(lambda leaf, i=i: leaf[i : 2 * half : 2], copies) for i in (0, 1))
        pairs = crossover(key_cross, first, second, self.language)
        meets = jax.random.bernoulli(key_pair, params.crossover_rate, (half,))
        first, second = (_choose(meets, new, old) for new, old in zip(pairs, (first, second), strict=True))
        children = jax.tree.map(
            lambda a, b, rest: jnp.concatenate([jnp.stack([a, b], axis=1).reshape(2 * half, -1), rest[2 * half :]]),
            first,
            second,
            copies,
        )
        who = jax.random.bernoulli(key_who, params.mutation_rate, (count,))
        children = _choose(who, mutate(key_mutate, children, self.language), children)
        children = move_constants(key_move, children, self.language, rate=params.constant_rate, std=params.constant_std)
        tall = jnp.full(count, HEIGHTS[1], jnp.int32)
        new = trees(key_new, tall, jnp.ones(count, bool), self.length, HEIGHTS[1], self.language)
        children = _choose(jnp.full(count, alive > 0), children, new)
        return jax.vmap(self._ravel_solution)(children), state

    def _parents(self, key: PRNGKeyArray, order: Int[Array, " population"], alive: Array) -> Int[Array, " population"]:
        """Whose copies the children are; only programs that have not failed, if there are any."""
        if self.tournament is None:
            places = jax.random.randint(key, (self.population_size,), 0, jnp.clip(alive, 1, self.num_parents))
        else:
            shape = (self.population_size, self.tournament)
            places = jnp.min(jax.random.randint(key, shape, 0, jnp.maximum(alive, 1)), axis=1)
        return order[places]

    def _tell(self, key: PRNGKeyArray, population: Array, fitness: Array, state: GPState, params: GPParams) -> GPState:
        elite = self._order(state.population, state.fitness, params)[0][: self.num_parents]
        everyone = jnp.concatenate([state.population[elite], population])
        values = jnp.concatenate([state.fitness[elite], fitness.astype(state.fitness.dtype)])
        best = self._order(everyone, values, params)[0][: self.population_size]
        return state.replace(population=everyone[best], fitness=values[best])


@jax.jit
def _failed_last(fitness: Any) -> Float[Array, " population"]:
    """Not-a-number and both infinities are failures."""
    fitness = jnp.asarray(fitness, jnp.float32)
    return jnp.where(jnp.isfinite(fitness), fitness, jnp.inf)


def _choose(which: Bool[Array, " population"], new: Programs, old: Programs) -> Programs:
    return Programs(*(jnp.where(which[:, None], a, b) for a, b in zip(new, old, strict=True)))
