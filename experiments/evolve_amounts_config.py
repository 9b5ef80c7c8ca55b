"""The configuration of `experiments.evolve_amounts`: one task, one score, a budget of MACs, and who searches."""

from dataclasses import dataclass, field
from typing import Any

from experiments import task_config
from experiments.channel_scores import NAMES
from experiments.evolve_config import LARGEST_POPULATION
from experiments.schema import check_kind, check_types, choice, least, most
from experiments.task_config import Task

STRATEGIES = ("cma_es", "greedy", "random")


@dataclass
class AmountsConfig:
    """How many channels each group keeps, at a budget of MACs; the score says which."""

    task: Task = field(default_factory=lambda: Task(name="task"))
    score: str = "l1"
    macs: float = 0.3  # share of the MACs that is left
    strategies: tuple[str, ...] = STRATEGIES  # beside the same share of every group, which is always tried
    population: int = 12
    generations: int = 20
    repeats: int = 3  # searches, each with a seed of its own, and as many retrainings
    images: int = 1000  # validation images that judge a candidate, masked and not retrained
    floor: float = 0.05  # least share of a group that stays


def check(config: Any) -> None:
    """Verifies types and ranges.

    Raises:
      ValueError: Naming the first field that is wrong, what it holds and what it may hold.

    >>> check(AmountsConfig(macs=1.5))
    Traceback (most recent call last):
    ...
    ValueError: config.macs is 1.5; it is a share between 0 and 1.
    """
    check_kind(config, AmountsConfig, "experiments.evolve_amounts")
    check_types(config, "config")
    task_config.check("config.task", config.task)
    if config.task.kept:
        raise ValueError("config.task.kept has no use here: the search decides.")
    choice("config.score", config.score, NAMES)
    for name in ("macs", "floor"):
        if not 0 < getattr(config, name) < 1:
            raise ValueError(f"config.{name} is {getattr(config, name)}; it is a share between 0 and 1.")
    if not config.strategies:
        raise ValueError(f"config.strategies is empty; choose some of {', '.join(STRATEGIES)}.")
    for i, name in enumerate(config.strategies):
        choice(f"config.strategies[{i}]", name, STRATEGIES)
        if name in config.strategies[:i]:
            raise ValueError(f"config.strategies[{i}] is {name!r} again.")
    least("config.population", config.population, 4)
    most("config.population", config.population, LARGEST_POPULATION)
    for name in ("generations", "repeats", "images"):
        least(f"config.{name}", getattr(config, name), 1)
