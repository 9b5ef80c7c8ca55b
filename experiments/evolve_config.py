"""The configuration of `experiments.evolve`: pruning tasks to evolve a score on, and others to try it on afterwards."""

from dataclasses import dataclass, field
from typing import Any

from experiments import task_config
from experiments.schema import check_kind, check_types, least, most
from experiments.task_config import Task

LARGEST_POPULATION, LONGEST = 100_000, 1000  # formulas, tokens of a formula


@dataclass
class EvolveConfig:
    """One search for a pruning function.

    A candidate's fitness is the geometric mean of its validation accuracies on `tasks`, after pruning by it and a short
    retraining.  Nothing of the search sees a test split or a transfer task.
    """

    tasks: tuple[Task, ...] = ()
    transfer: tuple[Task, ...] = ()
    seed: int = 0
    population: int = 24
    generations: int = 10  # after the first population, which is the published seeds and mutants of them
    length: int = 32  # tokens of a formula at most
    parents: int = 6
    finalists: int = 4  # formulas of different effect that are tried again with other seeds
    repeats: int = 3  # training seeds of everything that is compared at the end
    longer: float = 0.0  # also retrain seeds and finalists so many times as long, to check the fitness; 0: no
    control: bool = True  # also try as many random formulas
    compared: tuple[str, ...] = field(default_factory=tuple)  # scores beside the seeds; see experiments.channel_scores


def check(config: Any) -> None:
    """Verifies types and ranges.

    Raises:
      ValueError: Naming the first field that is wrong, what it holds and what it may hold.

    >>> check(EvolveConfig())
    Traceback (most recent call last):
    ...
    ValueError: config.tasks is empty; name at least one network to prune.
    """
    check_kind(config, EvolveConfig, "experiments.evolve")
    check_types(config, "config")
    if not config.tasks:
        raise ValueError("config.tasks is empty; name at least one network to prune.")
    names = []
    for field_, group in (("tasks", config.tasks), ("transfer", config.transfer)):
        for i, task in enumerate(group):
            at = f"config.{field_}[{i}]"
            task_config.check(at, task)
            if not task.kept:
                raise ValueError(f"{at}.kept is empty; say how many channels stay.")
            if task.name in names:
                raise ValueError(f"{at}.name is {task.name!r}, which another task has too.")
            names.append(task.name)
    seeds = 7
    for name, smallest in (("population", seeds), ("generations", 0), ("length", 19), ("parents", 1)):
        least(f"config.{name}", getattr(config, name), smallest)
    for name in ("finalists", "repeats"):
        least(f"config.{name}", getattr(config, name), 1)
    least("config.seed", config.seed, 0)
    least("config.longer", config.longer, 0)
    most("config.population", config.population, LARGEST_POPULATION)
    most("config.length", config.length, LONGEST)
    if config.parents > config.population:
        raise ValueError(f"config.parents is {config.parents}, more than the population of {config.population}.")
    known = known_scores()
    for i, name in enumerate(config.compared):
        if name not in known:
            raise ValueError(f"config.compared[{i}] is {name!r}; choose one of {', '.join(known)}.")


def known_scores() -> tuple[str, ...]:
    """Names that `compared` may hold."""
    from experiments.channel_scores import NAMES

    return NAMES
