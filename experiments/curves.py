"""The configuration of a run of `experiments.ssgd`: ways to train, and the ratios at which the results are pruned."""

from dataclasses import dataclass, field

from experiments import contest
from experiments.contest import Candidate, Contest
from experiments.schema import Fit, check_kind, least, positive

METHODS = ("sgd", "l1", "powerprop", "ssgd_log_l2", "ssgd_log_l1", "ssgd_p")


@dataclass
class CurvesConfig(Contest):
    """Every candidate trained with every seed as `pretrain` says, then pruned by magnitude and not retrained.

    The value of a candidate: l1, the strength of the penalty; powerprop, the exponent; ssgd_log_l2 and ssgd_log_l1,
    eps; ssgd_p, p; sgd has none.
    """

    pretrain: Fit = field(default_factory=lambda: Fit(optimizer="sgd", learning_rate=0.05, final_learning_rate=0.0))
    ratios: tuple[float, ...] = (2.0, 5.0, 10.0, 20.0, 30.0, 50.0)


def check(config: CurvesConfig) -> None:
    """Verifies types and ranges.

    Raises:
      ValueError: Naming the first field that is wrong, what it holds and what it may hold.

    >>> check(CurvesConfig(candidates=(Candidate("prayer"),)))
    Traceback (most recent call last):
    ...
    ValueError: config.candidates[0].method is 'prayer'; choose one of sgd, l1, powerprop, ssgd_log_l2, ...
    """
    check_kind(config, CurvesConfig, "experiments.ssgd")
    contest.check(config, METHODS, _check_value)


def _check_value(at: str, candidate: Candidate) -> None:
    """Raises `ValueError` for a number that the method cannot take."""
    if candidate.method == "sgd":
        if candidate.value:
            raise ValueError(f"{at} is {candidate.value}; sgd has none.")
    elif candidate.method == "powerprop":
        least(at, candidate.value, 1)
    elif candidate.method == "ssgd_p":
        least(at, candidate.value, 0)
        if candidate.value > 2:
            raise ValueError(f"{at} is {candidate.value}; p is at most 2.")
    else:
        positive(at, candidate.value)
