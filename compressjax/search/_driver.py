r"""The driver: ask, decode, repair, evaluate, tell, around any evosax strategy.

All randomness of generation t follows from k_t = fold_in(key, t): fold_in(k_t, 0) asks, fold_in(k_t, 1) tells,
fold_in(k_t, 2) evaluates.  So the state after a generation, saved and restored, continues bit for bit, in any process
and on any number of devices: asking and telling run on one device, evaluations may be `sharded`.

Repairs are Baldwinian by default (the repaired design is evaluated, the genome as asked for is told, with a penalty for
the distance repaired) or Lamarckian (the repaired design's genome is told).

Several evaluators are fidelities, halved inside a generation (`_halving`); only candidates of the last one can become
the best.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from compressjax.search._evaluate import FAILED, Evaluator, rows
from compressjax.search._halving import judge
from compressjax.search._record import Record
from compressjax.search._repair import Repair
from compressjax.search._space import Design, Space, check_design
from compressjax.search._strategy import check_population

# Evosax adds vectors to matrices; a program that forbids such broadcasts may still search.
LENIENT = partial(jax.numpy_rank_promotion, "allow")


class SearchState(NamedTuple):
    """Everything a search needs to go on: a tree of arrays, which Orbax or NumPy can save.

    Attributes:
      algorithm: The strategy's state.
      key: Data of the search's key, (words,) uint32.
      generation: Generations done, () int32.
      best_genome: Of the best candidate at the last fidelity, (size,); not-a-number before there is one, and always
        with several objectives.
      best_fitness: Its fitness, (); infinite before there is one.
      evaluations: Candidates computed, over all fidelities; cached ones do not count, () int32.
    """

    algorithm: Any
    key: UInt32[Array, " words"]
    generation: Int[Array, ""]
    best_genome: Float[Array, " size"]
    best_fitness: Float[Array, ""]
    evaluations: Int[Array, ""]


class Prepared(NamedTuple):
    """Genomes made ready: what to evaluate and what to tell."""

    designs: Mapping[str, Array]
    genomes: Array
    penalty: Array
    cost: Array | None


@dataclass(frozen=True, eq=False)
class Driver:
    """A search: a space, a strategy, and how candidates are repaired and evaluated.

    Attributes:
      space: What is searched.
      algorithm: An evosax strategy over vectors (space.size,), made once (`strategy`): it is compiled once per object.
      evaluate: An `Evaluator`, a plain function ``(designs, key) -> fitness`` to be jitted as one, or a sequence of
        them from the cheapest to the last fidelity.
      params: The strategy's parameters, its own defaults by default.
      repair: One design -> one design; pure JAX.
      cost: One repaired design -> a number for the records; pure JAX.
      lamarckian: Whether the strategy is told the repaired design's genome.
      penalty: Otherwise added to the fitness told, per mean square of the change (in genome units).
      survivors: How many go on after each fidelity but the last.

    Raises:
      ValueError: If the parts do not fit each other.

    >>> from evosax.algorithms import CMA_ES
    >>> from compressjax.search import Float, Space, strategy
    >>> space = Space({"x": Float(-1.0, 1.0, size=2)})
    >>> driver = Driver(space, strategy(CMA_ES, space, 8), lambda designs, key: jnp.sum(designs["x"] ** 2, axis=1))
    >>> for state, records in driver.run(driver.start(jax.random.key(0)), 20):
    ...     pass
    >>> len(records), records[0].generation, bool(state.best_fitness < 0.01)
    (8, 19, True)
    """

    space: Space
    algorithm: Any
    evaluate: Evaluator | Callable[..., Any] | Sequence[Evaluator | Callable[..., Any]]
    params: Any = None
    repair: Repair | None = None
    cost: Callable[[Design], Any] | None = None
    lamarckian: bool = False
    penalty: float | int = 1e-3
    survivors: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        found = getattr(self.algorithm, "num_dims", None)
        if found != self.space.size or np.shape(self.algorithm.solution) != (self.space.size,):
            raise ValueError(
                f"The strategy is over {found} numbers and the space has {self.space.size}: make it with "
                "strategy(CLASS, space, population), or from a vector of that length."
            )
        check_population(type(self.algorithm), self.algorithm.population_size)
        if self.params is None:
            with LENIENT():
                object.__setattr__(self, "params", self.algorithm.default_params)
        levels, size = len(self.evaluators), self.algorithm.population_size
        if len(self.survivors) != levels - 1 or list(self.survivors) != sorted(self.survivors, reverse=True):
            raise ValueError(
                f"survivors={self.survivors}: give {levels - 1} falling numbers, one per fidelity but one."
            )
        if any(not 1 <= count <= size for count in self.survivors):
            raise ValueError(f"survivors={self.survivors} must lie in 1..{size}, the population.")
        if levels > 1 and self.objectives > 1:
            raise ValueError("Several fidelities halve by one objective: give one evaluator, or a strategy with one.")
        if not 0 <= self.penalty < np.inf:
            raise ValueError(f"penalty={self.penalty} must be finite and not negative.")

    @cached_property
    def evaluators(self) -> tuple[Evaluator, ...]:
        """The fidelities, cheapest first."""
        given = self.evaluate if isinstance(self.evaluate, Sequence) else [self.evaluate]
        if not given:
            raise ValueError("evaluate is empty: a search needs at least one evaluator.")
        return tuple(one if isinstance(one, Evaluator) else Evaluator(one) for one in given)

    @property
    def objectives(self) -> int:
        """Numbers that are minimized at once."""
        return getattr(self.algorithm, "objectives", 1)

    @cached_property
    def _begins_evaluated(self) -> bool:
        """Whether the strategy starts from an evaluated population rather than from a mean."""
        return "population" in inspect.signature(self.algorithm.init).parameters

    def start(self, key: Array, initial: Design | None = None) -> SearchState:
        """The state before generation 0.

        Args:
          key: Random key; everything follows from it.
          initial: A design to start from: the mean of strategies that have one (by default the middle of the space),
            the first member of the first, otherwise random population of the others.

        Returns:
          A state for `run`.

        Raises:
          ValueError: If the key is not of JAX's default kind, or `initial` is no design of the space.
        """
        data = jnp.asarray(jax.random.key_data(key))
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.dtype != jax.random.key(0).dtype:
            raise ValueError(f"The key is a {key.dtype}: use a key of JAX's default kind, jax.random.key(seed).")
        make, sample = jax.random.split(jax.random.fold_in(key, 2**31), 2)
        if initial is not None:
            check_design(self.space, initial)
        mean = None if initial is None else self.space.encode(initial)
        if self._begins_evaluated:
            population = self.space.sample(sample, self.algorithm.population_size)
            population = population if mean is None else population.at[0].set(mean)
            algorithm = self._begun(make, population, np.full((len(population), self.objectives), FAILED))
        else:
            mean = jnp.zeros(self.space.size) if mean is None else mean
            with LENIENT():
                algorithm = self.algorithm.init(make, mean, self.params)
        real = jnp.result_type(float)
        return SearchState(
            algorithm,
            data,
            jnp.zeros((), jnp.int32),
            jnp.full(self.space.size, jnp.nan, real),
            jnp.full((), jnp.inf, real),
            jnp.zeros((), jnp.int32),
        )

    def run(
        self, state: SearchState, generations: int, history: Iterable[Record] = ()
    ) -> Iterator[tuple[SearchState, tuple[Record, ...]]]:
        """Runs generations.

        Args:
          state: From `start`, or a saved one.
          generations: How many more.
          history: Records of earlier generations: what caching evaluators knew.  Without it a resumed search finds the
            same, but computes again what it had cached.

        Yields:
          After every generation the state and its records, one per candidate.

        Raises:
          ValueError: If an evaluator returns a wrong shape, or the strategy diverges to numbers that are not finite.
        """
        known: dict[tuple[int, bytes], np.ndarray] = {}
        for record in history:
            self._learn(known, record, rows({name: np.asarray(v)[None] for name, v in record.design.items()})[0])
        for _ in range(generations):
            state, records = self._step(state, known)
            yield state, records

    def design(self, genome: Array) -> dict[str, Array]:
        """The repaired design of one genome, as it is evaluated.

        Args:
          genome: (size,).

        Returns:
          Name to array.
        """
        return jax.tree.map(lambda value: value[0], dict(self._prepare(jnp.asarray(genome)[None]).designs))

    def _step(self, state: SearchState, known: dict[tuple[int, bytes], np.ndarray]) -> Any:
        """One generation; what was evaluated is added to `known`."""
        generation = int(state.generation)
        key = jax.random.fold_in(jax.random.wrap_key_data(jnp.asarray(state.key)), generation)
        ask, tell, evaluation = (jax.random.fold_in(key, i) for i in range(3))
        begin = generation == 0 and self._begins_evaluated
        if begin:
            genomes, algorithm = state.algorithm.population, state.algorithm
        else:
            with LENIENT():
                genomes, algorithm = self.algorithm.ask(ask, state.algorithm, self.params)
        if not np.all(np.isfinite(genomes)):
            raise ValueError(
                f"The strategy asked for genomes that are not finite in generation {generation}: its parameters make "
                "it diverge. Give it another params or another population."
            )
        ready = self._prepare(genomes)
        designs = {name: np.asarray(value) for name, value in ready.designs.items()}
        penalty = np.asarray(ready.penalty)
        judged = judge(self.evaluators, self.survivors, self.objectives, designs, evaluation, known, penalty)
        told = judged.told
        if begin:
            algorithm = self._begun(tell, ready.genomes, told)
        else:
            values = told[:, 0] if self.objectives == 1 else told
            with LENIENT():
                algorithm, _ = self.algorithm.tell(tell, ready.genomes, jnp.asarray(values), algorithm, self.params)
        genomes, costs = np.asarray(genomes), None if ready.cost is None else np.asarray(ready.cost)
        records = tuple(
            Record(
                generation=generation,
                index=i,
                genome=genomes[i],
                design={name: value[i] for name, value in designs.items()},
                cost=None if costs is None else float(costs[i]),
                fitness=judged.trails[i][-1],
                trail=judged.trails[i],
                told=tuple(told[i].tolist()),
                fidelity=len(judged.trails[i]) - 1,
                cached=bool(judged.cached[i]),
                failed=bool(judged.failed[i]),
                seed=judged.seeds[i],
            )
            for i in range(len(genomes))
        )
        for record, name in zip(records, rows(designs), strict=True):
            self._learn(known, record, name)
        best_genome, best_fitness = self._best(state, records)
        state = SearchState(
            _without_failures(algorithm),
            state.key,
            jnp.asarray(generation + 1, jnp.int32),
            best_genome,
            best_fitness,
            state.evaluations + judged.computed,
        )
        return state, records

    def _begun(self, key: Array, population: Array, fitness: np.ndarray) -> Any:
        values = jnp.asarray(fitness[:, 0] if self.objectives == 1 else fitness, jnp.result_type(float))
        with LENIENT():
            return self.algorithm.init(key, population, values, self.params)

    @cached_property
    def _prepare(self) -> Callable[[Array], Prepared]:
        def prepare(genomes: Array) -> Prepared:
            decoded = self.space.decode(genomes)
            designs: Design = decoded
            if self.repair is None:
                told, penalty = genomes, jnp.zeros(len(genomes))
            else:
                designs = jax.vmap(self.repair)(decoded)
                before, after = self.space.encode(decoded), self.space.encode(designs)
                same = jnp.all(before == after, axis=1)
                told = jnp.where(same[:, None] | (not self.lamarckian), genomes, after)
                penalty = (0.0 if self.lamarckian else self.penalty) * jnp.mean(jnp.square(before - after), axis=1)
            cost = None if self.cost is None else jax.vmap(self.cost)(designs)
            return Prepared(designs, told, penalty, cost)

        return jax.jit(prepare)

    def _learn(self, known: dict[tuple[int, bytes], np.ndarray], record: Record, name: bytes) -> None:
        for level, value in enumerate(record.trail):
            if self.evaluators[level].cache:
                known[level, name] = np.asarray(value, jnp.result_type(float))

    def _best(self, state: SearchState, records: Sequence[Record]) -> tuple[Array, Array]:
        last = len(self.evaluators) - 1
        able = [record for record in records if record.fidelity == last and not record.failed]
        if able and self.objectives == 1:
            best = min(able, key=lambda record: record.fitness[0])
            if best.fitness[0] < float(state.best_fitness):
                return jnp.asarray(best.genome), jnp.asarray(best.fitness[0], state.best_fitness.dtype)
        return state.best_genome, state.best_fitness


def _without_failures(algorithm: Any) -> Any:
    """The strategy's own archive forgets a failure that was the best it had seen."""
    if not hasattr(algorithm, "best_fitness"):
        return algorithm
    failed = algorithm.best_fitness >= FAILED
    return algorithm.replace(
        best_fitness=jnp.where(failed, jnp.inf, algorithm.best_fitness),
        best_solution=jnp.where(failed, jnp.nan, algorithm.best_solution),
    )
