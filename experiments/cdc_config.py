"""The configuration of `experiments.cdc`: class-discriminative channel pruning and its ablations."""

from dataclasses import dataclass, field
from typing import Any

from experiments import task_config
from experiments.channel_scores import NAMES, OF_STATISTICS
from experiments.schema import check_kind, check_types, choice, least
from experiments.task_config import Task

TEACHING = ("none", "output", "hint", "discriminant")


@dataclass
class Teaching:
    """The ablation of distillation: one cut, retrained with every kind of help from the dense network."""

    score: str = "symmetric_divergence"
    removed: float = 0.5
    kinds: tuple[str, ...] = ()  # of TEACHING; (): no ablation
    output: float = 1.0  # weight of the teacher's probabilities, in all kinds but "none"
    inner: float = 0.1  # weight of the loss on features, in "hint" and "discriminant"; the output's stays beside it
    refit: int = 50  # steps between fits of the student's discriminant directions
    images: int = 1000  # training images that directions are fitted to


@dataclass
class CdcConfig:
    """Every score at every amount on every task, with several seeds."""

    tasks: tuple[Task, ...] = ()
    scores: tuple[str, ...] = NAMES
    removed: tuple[float, ...] = (0.3, 0.5, 0.7)  # share of the channels of every group
    repeats: int = 3  # seeds: of the images that are scored and of retraining
    formulas: dict[str, str] = field(default_factory=dict)  # further scores: name -> formula
    coarse: int = 0  # clusters of classes for the early half of the groups, as an ablation; 0: none
    automatic: tuple[str, ...] = ()  # scores also tried with amounts by sensitivity, at the MACs of the uniform cut
    teaching: Teaching = field(default_factory=Teaching)


def check(config: Any) -> None:
    """Verifies types and ranges.

    Raises:
      ValueError: Naming the first field that is wrong, what it holds and what it may hold.

    >>> check(CdcConfig(tasks=(Task(name="a"),), scores=("luck",)))
    Traceback (most recent call last):
    ...
    ValueError: config.scores[0] is 'luck'; choose one of absolute_snr, fisher_ratio, symmetric_divergence, ...
    """
    check_kind(config, CdcConfig, "experiments.cdc")
    check_types(config, "config")
    if not config.tasks or not config.scores or not config.removed:
        raise ValueError("config.tasks, config.scores and config.removed must each name at least one.")
    names: list[str] = []
    for i, task in enumerate(config.tasks):
        task_config.check(f"config.tasks[{i}]", task)
        if task.kept:
            raise ValueError(f"config.tasks[{i}].kept has no use here: amounts are in config.removed.")
        if task.name in names:
            raise ValueError(f"config.tasks[{i}].name is {task.name!r}, which another task has too.")
        names.append(task.name)
    for name in config.formulas:
        if name in NAMES:
            raise ValueError(f"config.formulas has {name!r}, which is the name of a score; choose another name.")
    known = (*NAMES, *config.formulas)
    for field_ in ("scores", "automatic"):
        for i, name in enumerate(getattr(config, field_)):
            choice(f"config.{field_}[{i}]", name, known)
    for i, share in enumerate(config.removed):
        _share(f"config.removed[{i}]", share)
    lists = {name: getattr(config, name) for name in ("scores", "removed", "automatic")}
    for at, values in (*lists.items(), ("teaching.kinds", config.teaching.kinds)):
        for i, value in enumerate(values):
            if value in values[:i]:  # its networks would count twice
                raise ValueError(f"config.{at}[{i}] is {value!r} again.")
    least("config.repeats", config.repeats, 1)
    least("config.coarse", config.coarse, 0)
    if config.coarse and not any(name in OF_STATISTICS for name in config.scores):
        raise ValueError(f"config.coarse needs one of {', '.join(OF_STATISTICS)} in config.scores.")
    teaching = config.teaching
    for i, kind in enumerate(teaching.kinds):
        choice(f"config.teaching.kinds[{i}]", kind, TEACHING)
    choice("config.teaching.score", teaching.score, known)
    _share("config.teaching.removed", teaching.removed)
    for name in ("output", "inner"):
        least(f"config.teaching.{name}", getattr(teaching, name), 0)
    for name in ("refit", "images"):
        least(f"config.teaching.{name}", getattr(teaching, name), 1)
    if "discriminant" in teaching.kinds:  # directions are fitted to whole batches
        least("config.teaching.images", teaching.images, max(task.batch_size for task in config.tasks))


def _share(at: str, share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"{at} is {share}; it is a share between 0 and 1.")
