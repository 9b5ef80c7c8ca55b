"""The configuration of a run of `experiments.sparse_training`: ways to a sparse network, at equal counts and epochs."""

from dataclasses import dataclass, field

from experiments import contest
from experiments.contest import Candidate, Contest
from experiments.schema import Fit, check_fit, check_kind, least, most, positive

METHODS = (
    "dense",
    "static",
    "set",
    "rigl",
    "acdc",
    "soft_threshold",
    "snip",
    "grasp",
    "synflow",
    "lottery_ticket",
    "gradual_magnitude",
    "admm",
)
LEAST_ROUND_RATIO = 1.01  # nearer to 1 the rounds of a lottery ticket never end
FROM_DENSE = ("gradual_magnitude", "admm")  # begin with the epochs of config.pretrain


@dataclass
class SparseConfig(Contest):
    """Every candidate trained with every seed to every ratio, `train.epochs` epochs in all; lottery tickets take more.

    The value of a candidate: set and rigl, the share of the living weights that moves at first; acdc, the number of
    dense phases; soft_threshold, the weight decay of kernels and thresholds; admm, the final penalty rho; the others
    have none.
    """

    train: Fit = field(default_factory=lambda: Fit(epochs=4))
    settle: float = 1.0  # epochs at the end in which the support is fixed, for methods that change it
    every: int = 50  # optimizer steps between changes of the support (set, rigl, gradual_magnitude, admm)
    pretrain: Fit = field(default_factory=lambda: Fit(epochs=1))  # dense, before gradual_magnitude and admm
    score_images: int = 1000  # training images that snip and grasp see
    score_rounds: int = 100  # rounds of synflow
    rewind: float = 0.25  # epochs after which a lottery ticket's weights are noted
    round_ratio: float = 4.0  # a lottery ticket loses at most this factor of its weights between two trainings


def check(config: SparseConfig) -> None:
    """Verifies types and ranges.

    Raises:
      ValueError: Naming the first field that is wrong, what it holds and what it may hold.

    >>> check(SparseConfig(candidates=(Candidate("rigl", 0.3),)))
    Traceback (most recent call last):
    ...
    ValueError: config.candidates holds no 'dense'; the others are compared with it.
    """
    check_kind(config, SparseConfig, "experiments.sparse_training")
    contest.check(config, METHODS, _check_value)
    check_fit("config.train", config.train)
    for name in ("every", "score_images", "score_rounds"):
        least(f"config.{name}", getattr(config, name), 1)
    for name in ("settle", "rewind"):
        positive(f"config.{name}", getattr(config, name))
    positive("config.pretrain.epochs", config.pretrain.epochs)
    if config.train.epochs <= config.pretrain.epochs + config.settle:
        raise ValueError(
            f"config.train.epochs is {config.train.epochs:g}; it must exceed config.pretrain.epochs and config.settle "
            f"together ({config.pretrain.epochs + config.settle:g}), which are parts of it."
        )
    if not config.round_ratio >= LEAST_ROUND_RATIO:
        raise ValueError(f"config.round_ratio is {config.round_ratio}; it must be at least {LEAST_ROUND_RATIO}.")


def _check_value(at: str, candidate: Candidate) -> None:
    """Raises `ValueError` for a number that the method cannot take."""
    value = candidate.value
    if candidate.method in ("set", "rigl"):
        if not 0 < value <= 1:
            raise ValueError(f"{at} is {value}; it is a share above 0 and up to 1.")
    elif candidate.method == "acdc":
        if value < 1 or value != int(value):
            raise ValueError(f"{at} is {value}; the number of dense phases is a whole number of at least 1.")
        most(at, value, 1000)
    elif candidate.method in ("soft_threshold", "admm"):
        positive(at, value)
    elif value:
        raise ValueError(f"{at} is {value}; {candidate.method} has none.")


def rounds(config: SparseConfig) -> list[float]:
    """The ratios to which a lottery ticket is pruned one after the other: all that are asked for, and some between.

    >>> rounds(SparseConfig(ratios=(10.0, 20.0, 100.0), round_ratio=4.0))
    [3.162..., 10.0, 20.0, 44.72..., 100.0]
    """
    found, last = [], 1.0
    for ratio in sorted(config.ratios):
        parts = 1
        while (ratio / last) ** (1 / parts) > config.round_ratio:
            parts += 1
        found += [last * (ratio / last) ** (i / parts) for i in range(1, parts)] + [ratio]
        last = ratio
    return found


def epochs(config: SparseConfig, candidate: Candidate, ratio: float) -> float:
    """The epochs of training behind one network.

    >>> config = SparseConfig(ratios=(10.0,), train=Fit(epochs=5.0), rewind=0.25)
    >>> epochs(config, Candidate("rigl", 0.3), 10.0), epochs(config, Candidate("lottery_ticket"), 10.0)
    (5.0, 15.25)
    """
    if candidate.method != "lottery_ticket":
        return config.train.epochs
    return config.rewind + config.train.epochs * (2 + rounds(config).index(ratio))
