"""What a sweep is: trials of any program, listed or proposed, and how their results are compared.

A sweep file is a configuration like any other, with a `get_config` that returns a `Sweep`.  A trial is one run of one
program: its command line.  Its id is a digest of that, so the same trial has the same directory in every sweep file.
"""

import hashlib
import itertools
import json
import math
import random as stdlib_random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from experiments.schema import choice, least, positive

Values = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Trial:
    """One run: a program, its configuration file, and what is different from that file.

    Attributes:
      program: Name of a module of `experiments` with ``run(config, workdir)``, or a dotted name of one elsewhere.
      config: Configuration file, with ``:profile`` if it has profiles.
      overrides: Field of the configuration, as after ``--config.`` on the command line, to its value.

    >>> trial = Trial("compress", "configs/digits_admm.py:tiny", {"seed": 1, "widths": (8, 16, 40)})
    >>> trial.id, trial.arguments
    ('b865c49399e7', ['--config=configs/digits_admm.py:tiny', '--config.seed=1', '--config.widths=(8, 16, 40)'])
    """

    program: str
    config: str
    overrides: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that follow from the trial alone."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def module(self) -> str:
        """Dotted name of the program."""
        return self.program if "." in self.program else f"experiments.{self.program}"

    @property
    def arguments(self) -> list[str]:
        """The command line after the program's name, but for ``--workdir``."""
        return [f"--config={self.config}", *(f"--config.{name}={value}" for name, value in self.overrides.items())]


@dataclass(frozen=True)
class Objective:
    """A number that trials are compared by.

    Attributes:
      name: What it is called in tables.
      path: Where it lies in ``report.json``: keys and indices, e.g. ("stages", -1, "validation_accuracy").
      maximize: Whether larger is better.
    """

    name: str
    path: tuple[str | int, ...]
    maximize: bool = False


@dataclass
class Resources:
    """What one trial takes on a cluster; fractions share a device."""

    cpus: float = 1.0
    gpus: float = 0.0
    tpus: float = 0.0  # chips


@dataclass
class Halving:
    """Asynchronous successive halving (arXiv 1810.05934) over the records of ``metrics.jsonl``.

    At 1, `reduction`, `reduction`^2, ... times `grace` records a trial goes on only if it is among the best
    1/`reduction` of those that came as far.  Only records that hold `metric` count.
    """

    metric: str = "validation_accuracy"
    maximize: bool = True
    phase: str = ""  # only records whose phase begins with this
    grace: int = 1
    reduction: int = 3
    most: int = 100  # records after which nothing is stopped any more


@dataclass(frozen=True)
class Between:
    """A real number; with `log`, its logarithm is uniform."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Whole:
    """A whole number, `high` included."""

    low: int
    high: int


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    options: tuple[Any, ...]


Range = Between | Whole | Choice


@dataclass
class Search:
    """Trials that a strategy proposes, a generation at a time, from the results of those before.

    Attributes:
      program: As in `Trial`.
      config: As in `Trial`.
      ranges: Field of the configuration to its range.
      strategy: Of evosax (e.g. "CMA_ES", "DifferentialEvolution"), of `compressjax.search` ("NSGA2", for several
        objectives), or of Optuna: "tpe".
      population: Trials per generation.
      generations: How many.
      seed: Everything follows from it and from the results.
    """

    program: str
    config: str
    ranges: dict[str, Range]
    strategy: str = "DifferentialEvolution"
    population: int = 8
    generations: int = 4
    seed: int = 0


@dataclass
class Sweep:
    """Trials, listed or proposed, how they are compared, and what they need.

    Attributes:
      trials: Listed trials; equal ones count once.
      search: Instead of a list: where proposals come from.
      objectives: The first one orders the table; the first two make the Pareto front.
      resources: Of one trial, on a cluster.
      retries: How often a trial is started again when its process or its machine is lost.
      halving: Stops bad trials early, on a cluster.
    """

    trials: tuple[Trial, ...] = ()
    search: Search | None = None
    objectives: tuple[Objective, ...] = ()
    resources: Resources = field(default_factory=Resources)
    retries: int = 3
    halving: Halving | None = None


def grid(program: str, config: str, values: Values) -> tuple[Trial, ...]:
    """Every combination of the values, the last field changing fastest.

    Args:
      program: As in `Trial`.
      config: As in `Trial`.
      values: Field to the values it takes.

    Returns:
      The trials.

    >>> [t.overrides for t in grid("compress", "configs/digits_admm.py", {"seed": (0, 1), "solver": ("admm",)})]
    [{'seed': 0, 'solver': 'admm'}, {'seed': 1, 'solver': 'admm'}]
    """
    found = itertools.product(*values.values())
    return tuple(Trial(program, config, dict(zip(values, combination, strict=True))) for combination in found)


def random(program: str, config: str, ranges: Mapping[str, Range], count: int, seed: int = 0) -> tuple[Trial, ...]:
    """Independent draws; more draws with the same seed begin with the same trials.

    Args:
      program: As in `Trial`.
      config: As in `Trial`.
      ranges: Field to its range.
      count: How many trials.
      seed: Everything follows from it.

    Returns:
      The trials; real numbers have six digits, so that a command line stays readable.

    Raises:
      ValueError: If a range is none: its bounds not in order, a logarithm of 0, fewer than two options.

    >>> [t.overrides for t in random("compress", "configs/digits_admm.py", {"seed": Whole(0, 9)}, 2)]
    [{'seed': 6}, {'seed': 6}]
    """
    _check_ranges("ranges", ranges)
    generator = stdlib_random.Random(seed)
    return tuple(
        Trial(program, config, {name: _draw(range_, generator) for name, range_ in ranges.items()})
        for _ in range(count)
    )


def _draw(range_: Range, generator: stdlib_random.Random) -> Any:
    if isinstance(range_, Choice):
        return generator.choice(range_.options)
    if isinstance(range_, Whole):
        return generator.randint(range_.low, range_.high)
    if range_.log:
        return rounded(math.exp(generator.uniform(math.log(range_.low), math.log(range_.high))), range_)
    return rounded(generator.uniform(range_.low, range_.high), range_)


def rounded(value: float, range_: Between) -> float:
    """Six digits, still within the range.

    >>> rounded(0.30000001192092896, Between(0.1, 0.3))
    0.3
    """
    return min(max(float(f"{value:.6g}"), range_.low), range_.high)


def check(sweep: Sweep) -> None:
    """Verifies types and ranges; a trial's own configuration is read by its engine and checked by its program.

    Raises:
      ValueError: Naming the first field that is wrong, what it holds and what it may hold.

    >>> check(Sweep(trials=(), search=None))
    Traceback (most recent call last):
    ...
    ValueError: The sweep has no trials and no search: give it one of the two.
    """
    from experiments import schema

    schema.check_kind(sweep, Sweep, "experiments.sweep")
    schema.check_types(sweep, "config")
    if bool(sweep.trials) == bool(sweep.search):
        has = "both trials and a search" if sweep.trials else "no trials and no search"
        raise ValueError(f"The sweep has {has}: give it one of the two.")
    for i, trial in enumerate(sweep.trials):
        _check_overrides(f"config.trials[{i}].overrides", trial.overrides)
    for i, objective in enumerate(sweep.objectives):
        if not objective.path:
            raise ValueError(f"config.objectives[{i}].path is empty; it is a place in report.json.")
    if len({objective.name for objective in sweep.objectives}) < len(sweep.objectives):
        raise ValueError("config.objectives has two of the same name.")
    schema.check_types(sweep.resources, "config.resources")
    for name, value in asdict(sweep.resources).items():
        least(f"config.resources.{name}", value, 0)
    least("config.retries", sweep.retries, 0)
    if sweep.halving:
        _check_halving(sweep)
    if sweep.search:
        _check_search(sweep.search, sweep.objectives)


def _check_overrides(at: str, overrides: Any) -> None:
    try:
        if not all(isinstance(name, str) for name in overrides):
            raise TypeError("a name that is no string")
        json.dumps(overrides, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{at} is {overrides!r:.80} ({error}); it must map fields to plain values.") from error


def _check_halving(sweep: Sweep) -> None:
    from experiments import schema

    halving = sweep.halving
    schema.check_types(halving, "config.halving")
    if sweep.search or halving is None:
        raise ValueError("config.halving stops listed trials; a search needs the results of all it proposed.")
    least("config.halving.grace", halving.grace, 1)
    least("config.halving.reduction", halving.reduction, 2)
    least("config.halving.most", halving.most, halving.grace)


def _check_search(search: Search, objectives: Sequence[Objective]) -> None:
    least("config.search.population", search.population, 1)
    least("config.search.generations", search.generations, 1)
    least("config.search.seed", search.seed, 0)
    if not search.ranges:
        raise ValueError("config.search.ranges is empty; name at least one field and its range.")
    if not objectives:
        raise ValueError("config.search needs config.objectives: what is to be better.")
    if len(objectives) > 1:
        choice("config.search.strategy (of several objectives)", search.strategy, ("NSGA2", "tpe"))
    _check_ranges("config.search.ranges", search.ranges)


def _check_ranges(of: str, ranges: Mapping[str, Range]) -> None:
    for name, range_ in ranges.items():
        at = f"{of}[{name!r}]"
        if isinstance(range_, Choice):
            if len(range_.options) < 2:
                raise ValueError(f"{at} is {range_!r}; give at least two options.")
        else:
            if not (range_.low < range_.high and math.isfinite(range_.high - range_.low)):
                raise ValueError(f"{at} is {range_!r}; its bounds must be finite numbers in order.")
            if isinstance(range_, Between) and range_.log:
                positive(f"{at}.low", range_.low)
