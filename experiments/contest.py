"""A contest: ways to train, each with several seeds, compared at several pruning ratios.

Part of `experiments.ssgd` and `experiments.sparse_training`.  Candidates of one method, such as three strengths of a
penalty, compete on the validation split; the best of each method is what a report is about.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from experiments.schema import OPTIMIZERS, Base, Fit, check_base, choice, least

if TYPE_CHECKING:
    from experiments.phases import Phase
    from experiments.runner import Run

KERNELS = "*kernel"


@dataclass
class Candidate:
    """One way to train.

    What `value` means depends on the method; see the program's configuration.
    """

    method: str
    value: float = 0.0
    learning_rate: float = 0.0  # 0: that of the configuration
    optimizer: str = ""  # "": that of the configuration


@dataclass
class Contest(Base):
    """What all contests need to know."""

    seeds: int = 3  # runs, from `seed` on
    candidates: tuple[Candidate, ...] = ()
    ratios: tuple[float, ...] = (10.0,)  # kernel weights over those that are kept


C = TypeVar("C", bound=Contest)


def name(candidate: Candidate) -> str:
    """Name of a candidate, of its phase and of its artefact, without suffix.

    >>> name(Candidate("ssgd_p", 1.0)), name(Candidate("rigl", 0.3, learning_rate=0.1, optimizer="sgd"))
    ('ssgd_p-1', 'rigl-0.3-sgd-rate-0.1')
    """
    value = f"-{candidate.value:g}" if candidate.value else ""
    optimizer = f"-{candidate.optimizer}" if candidate.optimizer else ""
    rate = f"-rate-{candidate.learning_rate:g}" if candidate.learning_rate else ""
    return f"{candidate.method}{value}{optimizer}{rate}"


def fitted(candidate: Candidate, fit: Fit) -> Fit:
    """The training of a configuration, with what a candidate has of its own."""
    return dataclasses.replace(
        fit,
        learning_rate=candidate.learning_rate or fit.learning_rate,
        optimizer=candidate.optimizer or fit.optimizer,
    )


def check(config: Contest, methods: Sequence[str], check_value: Callable[[str, Candidate], None]) -> None:
    """Verifies what all contests share.

    Args:
      config: Of its program's type already.
      methods: The program's methods; the first is the one that the others are compared with.
      check_value: (place in the configuration, candidate) -> raises `ValueError` for a value the method cannot take.

    Raises:
      ValueError: Naming the first field that is wrong, what it holds and what it may hold.
    """
    check_base(config)
    least("config.seeds", config.seeds, 1)
    if config.load or config.distill.weight:
        raise ValueError("config.load and config.distill.weight have no use here: everything is trained from scratch.")
    if not config.ratios or min(config.ratios) <= 1 or len(set(config.ratios)) < len(config.ratios):
        raise ValueError(f"config.ratios is {tuple(config.ratios)}; name at least one, each once, all above 1.")
    names: list[str] = []
    for i, candidate in enumerate(config.candidates):
        at = f"config.candidates[{i}]"
        choice(f"{at}.method", candidate.method, tuple(methods))
        least(f"{at}.learning_rate", candidate.learning_rate, 0)
        choice(f"{at}.optimizer", candidate.optimizer, ("", *OPTIMIZERS))
        check_value(f"{at}.value", candidate)
        if name(candidate) in names:
            raise ValueError(f"{at} is the same as an earlier candidate ({name(candidate)}); remove one of them.")
        names.append(name(candidate))
    if methods[0] not in {candidate.method for candidate in config.candidates}:
        raise ValueError(f"config.candidates holds no {methods[0]!r}; the others are compared with it.")


def run(
    config: C,
    workdir: str | Path,
    plan: "Callable[[Run[C]], list[Phase]]",
    summarize: "Callable[[C, Sequence[Run[C]]], dict[str, Any]]",
    html: Callable[[dict[str, Any]], str],
    *,
    progress: bool = True,
) -> dict[str, Any]:
    """Runs (or resumes) a checked contest and returns its report.

    Args:
      config: Of all seeds together.
      workdir: Where; seed k gets the directory ``seed<k>`` in it.
      plan: The phases of one seed.
      summarize: (configuration, one trained run per seed, directories open) -> report; it may write one of each seed.
      html: The report as a page.
      progress: Whether to show progress bars.

    Returns:
      The contents of ``report.json``.
    """
    from experiments.runner import Run
    from experiments.schema import to_dict
    from experiments.workdir import Workdir, read_metrics

    with Workdir(workdir, to_dict(config)) as directory:

        def make() -> dict[str, Any]:
            trained = {record["seed"] for record in read_metrics(directory.path)}
            with contextlib.ExitStack() as stack:
                runs = []
                for seed in range(config.seed, config.seed + config.seeds):
                    own = dataclasses.replace(config, seed=seed, seeds=1)
                    place = stack.enter_context(Workdir(directory.path / f"seed{seed}", to_dict(own)))
                    this = Run(own, place, plan, progress=progress).train()
                    if seed not in trained:
                        directory.record({"seed": seed, "phases": len(this.phases)})
                    runs.append(this)
                return summarize(config, runs)

        return directory.finish(make, html)


def choose(candidates: Sequence[Candidate], scores: Mapping[str, float]) -> dict[str, Candidate]:
    """The best candidate of every method; the earlier one of equals.

    >>> choose([Candidate("l1", 0.1), Candidate("l1", 0.2)], {"l1-0.1": 0.5, "l1-0.2": 0.6})["l1"].value
    0.2
    """
    chosen: dict[str, Candidate] = {}
    for candidate in candidates:
        best = chosen.get(candidate.method)
        if best is None or scores[name(candidate)] > scores[name(best)]:
            chosen[candidate.method] = candidate
    return chosen
