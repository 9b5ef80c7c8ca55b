"""Streams of trials: ask for a batch, tell what it gave, until there is no more.

Nothing is stored between commands: a stream that is asked again from the beginning, and told the same results, proposes
the same trials, and those that have ended are not run again.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from experiments.sweep_config import Between, Choice, Objective, Range, Search, Sweep, Trial, Whole, rounded
from experiments.sweep_records import losses

Row = Mapping[str, Any]


class Stream(Protocol):
    """Where trials come from."""

    def ask(self) -> tuple[Trial, ...]:
        """The next batch; empty when there is no more."""
        ...

    def tell(self, rows: Sequence[Row]) -> None:
        """A row of the results table for each different trial of the batch."""
        ...


def stream(sweep: Sweep) -> Stream:
    """The trials of a sweep.

    Args:
      sweep: Checked.

    Returns:
      A stream at its beginning.

    Raises:
      ValueError: If there is no such strategy.
    """
    if sweep.search is None:
        return Listed(sweep.trials)
    if sweep.search.strategy == "tpe":
        return Optuna(sweep.search, sweep.objectives)
    return Evosax(sweep.search, sweep.objectives)


class Listed:
    """A list, in one batch.

    >>> trial = Trial("compress", "configs/digits_admm.py:tiny")
    >>> listed = Listed((trial, trial))
    >>> len(listed.ask()), len(listed.ask())
    (1, 0)
    """

    def __init__(self, trials: Sequence[Trial]):
        self._left = tuple({trial.id: trial for trial in trials}.values())

    def ask(self) -> tuple[Trial, ...]:
        batch, self._left = self._left, ()
        return batch

    def tell(self, rows: Sequence[Row]) -> None:
        """A list learns nothing."""


class Evosax:
    """Generations of an evosax strategy over a `compressjax.search` space; a trial without results ranks last.

    >>> search = Search("compress", "configs/digits_admm.py:tiny", {"seed": Whole(0, 9)}, population=4, generations=1)
    >>> proposed = Evosax(search, (Objective("ratio", ("ratio",)),))
    >>> len(proposed.ask()), len(proposed.ask())
    (4, 0)
    """

    def __init__(self, search: Search, objectives: Sequence[Objective]):
        import jax

        from compressjax.search import Space, strategy

        self._search, self._objectives = search, objectives
        self._space = Space({name: _variable(range_) for name, range_ in search.ranges.items()})
        options = {"objectives": len(objectives)} if search.strategy == "NSGA2" else {}
        self._algorithm = strategy(_class(search.strategy), self._space, search.population, **options)
        self._key = jax.random.key(search.seed)
        self._generation = 0
        self._asked: tuple[Trial, ...] = ()
        self._genomes: Any = None
        self._state: Any = None

    def ask(self) -> tuple[Trial, ...]:
        import jax
        import jax.numpy as jnp

        if self._generation == self._search.generations:
            return ()
        if self._state is None and self._begins_evaluated:
            self._genomes = self._space.sample(self._keys()[0], self._search.population)
        else:
            with jax.numpy_rank_promotion("allow"):  # evosax adds vectors to matrices
                if self._state is None:
                    start = jnp.zeros(self._space.size)
                    self._state = self._algorithm.init(self._key, start, self._algorithm.default_params)
                self._genomes, self._state = self._algorithm.ask(
                    self._keys()[0], self._state, self._algorithm.default_params
                )
        designs = self._space.decode(self._genomes)
        self._asked = tuple(
            self._trial(self._space.label({name: value[i] for name, value in designs.items()}))
            for i in range(self._search.population)
        )
        self._generation += 1
        return self._asked

    def tell(self, rows: Sequence[Row]) -> None:
        import jax
        import jax.numpy as jnp

        from compressjax.search import FAILED

        found = {row["id"]: losses(row, self._objectives) for row in rows}
        worst = [FAILED] * len(self._objectives)
        fitness = jnp.asarray([found[trial.id] or worst for trial in self._asked], jnp.result_type(float))
        fitness = fitness[:, 0] if len(self._objectives) == 1 else fitness
        params, key = self._algorithm.default_params, self._keys(self._generation - 1)[1]
        with jax.numpy_rank_promotion("allow"):
            if self._state is None:
                self._state = self._algorithm.init(key, self._genomes, fitness, params)
            else:
                self._state, _ = self._algorithm.tell(key, self._genomes, fitness, self._state, params)

    @property
    def _begins_evaluated(self) -> bool:
        """Whether the strategy starts from an evaluated population rather than from a mean."""
        import inspect

        return "population" in inspect.signature(self._algorithm.init).parameters

    def _keys(self, generation: int | None = None) -> Any:
        """Keys to ask and to tell a generation with."""
        import jax

        return jax.random.split(jax.random.fold_in(self._key, self._generation if generation is None else generation))

    def _trial(self, values: Mapping[str, Any]) -> Trial:
        plain = {name: _plain(value, self._search.ranges[name]) for name, value in values.items()}
        return Trial(self._search.program, self._search.config, plain)


class Optuna:
    """Batches of Optuna's tree-structured Parzen estimator, with one objective or several."""

    def __init__(self, search: Search, objectives: Sequence[Objective]):
        try:
            import optuna
        except ImportError as error:
            raise ImportError(
                "config.search.strategy 'tpe' needs Optuna: pip install 'compressjax[optuna]', or use another strategy."
            ) from error

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._search, self._objectives = search, objectives
        self._study = optuna.create_study(
            directions=["minimize"] * len(objectives),
            sampler=optuna.samplers.TPESampler(seed=search.seed, n_startup_trials=search.population),
        )
        self._generation = 0
        self._asked: list[tuple[Any, Trial]] = []

    def ask(self) -> tuple[Trial, ...]:
        if self._generation == self._search.generations:
            return ()
        self._generation += 1
        self._asked = []
        for _ in range(self._search.population):
            proposed = self._study.ask()
            values = {name: _suggest(proposed, name, range_) for name, range_ in self._search.ranges.items()}
            plain = {name: _plain(value, self._search.ranges[name]) for name, value in values.items()}
            self._asked.append((proposed, Trial(self._search.program, self._search.config, plain)))
        return tuple(trial for _, trial in self._asked)

    def tell(self, rows: Sequence[Row]) -> None:
        from optuna.trial import TrialState

        found = {row["id"]: losses(row, self._objectives) for row in rows}
        for proposed, trial in self._asked:
            values = found[trial.id]
            if values is None:
                self._study.tell(proposed, state=TrialState.FAIL)
            else:
                self._study.tell(proposed, values)


def _class(name: str) -> type:
    """A strategy of evosax or of compressjax.search by its name."""
    import evosax.algorithms

    from compressjax import search

    found = search.NSGA2 if name == "NSGA2" else getattr(evosax.algorithms, name, None)
    if not isinstance(found, type):
        known = sorted({"NSGA2", "tpe", *(n for n in dir(evosax.algorithms) if n[0].isupper())})
        raise ValueError(f"config.search.strategy is {name!r}; choose one of {', '.join(known)}.")
    return found


def _variable(range_: Range) -> Any:
    from compressjax.search import Category, Float, Int

    if isinstance(range_, Between):
        return Float(range_.low, range_.high, log=range_.log)
    return Int(range_.low, range_.high) if isinstance(range_, Whole) else Category(tuple(range(len(range_.options))))


def _suggest(proposed: Any, name: str, range_: Range) -> Any:
    if isinstance(range_, Between):
        return proposed.suggest_float(name, range_.low, range_.high, log=range_.log)
    if isinstance(range_, Whole):
        return proposed.suggest_int(name, range_.low, range_.high)
    return proposed.suggest_categorical(name, list(range(len(range_.options))))


def _plain(value: Any, range_: Range) -> Any:
    """The value of a configuration's field; options are proposed by their number."""
    if isinstance(range_, Choice):
        return range_.options[int(value)]
    return rounded(float(value), range_) if isinstance(range_, Between) else int(value)
