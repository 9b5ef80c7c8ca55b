"""The configuration of a run of `experiments.ssgd`: ways to train, and the ratios at which the results are pruned.

Candidates of one method, such as three strengths of an l1 penalty, compete on the validation split; the best of each
method is what the report is about.
"""

from dataclasses import dataclass, field

from experiments.schema import Base, Fit, check_base, check_kind, choice, least, positive

METHODS = ("sgd", "l1", "powerprop", "ssgd_log_l2", "ssgd_log_l1", "ssgd_p")


@dataclass
class Candidate:
    """One way to train from scratch.

    What `value` means depends on the method: l1, the strength of the penalty; powerprop, the exponent; ssgd_log_l2 and
    ssgd_log_l1, eps; ssgd_p, p; sgd has none.
    """

    method: str = "sgd"
    value: float = 0.0
    learning_rate: float = 0.0  # 0: that of config.pretrain


@dataclass
class CurvesConfig(Base):
    """Every candidate trained with every seed as `pretrain` says, then pruned by magnitude and not retrained."""

    pretrain: Fit = field(default_factory=lambda: Fit(optimizer="sgd", learning_rate=0.05, final_learning_rate=0.0))
    seeds: int = 3  # runs, from `seed` on
    candidates: tuple[Candidate, ...] = ()
    ratios: tuple[float, ...] = (2.0, 5.0, 10.0, 20.0, 30.0, 50.0)  # kernel weights over those that are kept


def check(config: CurvesConfig) -> None:
    """Verifies types and ranges.

    Raises:
      ValueError: Naming the first field that is wrong, what it holds and what it may hold.

    >>> check(CurvesConfig(candidates=(Candidate(method="prayer"),)))
    Traceback (most recent call last):
    ...
    ValueError: config.candidates[0].method is 'prayer'; choose one of sgd, l1, powerprop, ssgd_log_l2, ...
    """
    check_kind(config, CurvesConfig, "experiments.ssgd")
    check_base(config)
    least("config.seeds", config.seeds, 1)
    if config.load or config.distill.weight:
        raise ValueError("config.load and config.distill.weight have no use here: everything is trained from scratch.")
    if not config.ratios or min(config.ratios) <= 1 or len(set(config.ratios)) < len(config.ratios):
        raise ValueError(f"config.ratios is {tuple(config.ratios)}; name at least one, each once, all above 1.")
    names: list[str] = []
    for i, candidate in enumerate(config.candidates):
        at = f"config.candidates[{i}]"
        choice(f"{at}.method", candidate.method, METHODS)
        least(f"{at}.learning_rate", candidate.learning_rate, 0)
        _check_value(f"{at}.value", candidate)
        if name(candidate) in names:
            raise ValueError(f"{at} is the same as an earlier candidate ({name(candidate)}); remove one of them.")
        names.append(name(candidate))
    if "sgd" not in {candidate.method for candidate in config.candidates}:
        raise ValueError("config.candidates holds no 'sgd'; the others are compared with it.")


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


def name(candidate: Candidate) -> str:
    """Name of a candidate, of its phase and of its artefact, without suffix.

    >>> name(Candidate("ssgd_p", 1.0)), name(Candidate("powerprop", 2.0, learning_rate=0.1)), name(Candidate())
    ('ssgd_p-1', 'powerprop-2-rate-0.1', 'sgd')
    """
    value = f"-{candidate.value:g}" if candidate.method != "sgd" else ""
    rate = f"-rate-{candidate.learning_rate:g}" if candidate.learning_rate else ""
    return f"{candidate.method}{value}{rate}"
