"""The configuration of a shrink run: which channels to remove, by which score, against which cost.

A run takes one trained network and makes several cuts of it, each from the same dense parameters, so that one report
compares scores, amounts and platforms.
"""

from dataclasses import dataclass, field

from experiments.schema import (
    LARGEST_BATCH,
    Admm,
    Base,
    Fit,
    check_admm,
    check_base,
    check_fit,
    check_kind,
    choice,
    least,
    most,
    positive,
)

SCORES = ("l1", "l2", "geometric_median", "taylor", "norm_scale", "importance", "random")
ALLOCATIONS = ("uniform", "global", "per_cost", "trim", "zeros")
COSTS = ("macs", "roofline", "simd", "systolic", "fpga", "host")
METHODS = ("group_lasso", "slimming", "admm")


@dataclass
class Sparsify(Admm):
    """Training that drives whole channels to zero before anything is cut; `epochs` 0 leaves it out.

    ADMM trains towards `widths` and takes the fields of `experiments.schema.Admm`; the others do not use those.
    """

    epochs: float = 0.0
    method: str = "group_lasso"
    widths: dict[str, int] = field(default_factory=dict)  # ADMM: glob of a producing kernel -> channels left
    strength: float = 1e-3  # weight of the penalty, relative to the mean loss
    reweight: int = 0  # group lasso: steps between refreshes of the groups' weights (0: all groups weigh the same)
    delta: float = 0.05  # group lasso, reweighted: share of the mean energy below which a group counts as gone
    groups: dict[str, float] = field(default_factory=dict)  # glob of a producing kernel -> factor on the strength


@dataclass
class Cut:
    """One cut of the dense network."""

    score: str = "l2"
    # uniform: the same share of every group; global: one ranking of all members; per_cost: one ranking by score per
    # cost saved; trim: greedy, judged by validation accuracy; zeros: what training drove to zero
    allocation: str = "uniform"
    removed: float = 0.5  # share of the cost that goes
    cost: str = "macs"  # or a platform: the share is of its latency then
    multiple: int = 0  # widths are multiples of this where a group is large enough (0: config.multiple)
    widths: dict[str, int] = field(default_factory=dict)  # glob of a producing kernel -> channels left, instead


@dataclass
class ShrinkConfig(Base):
    """One shrink run, from a trained network to several smaller ones."""

    sparsify: Sparsify = field(default_factory=Sparsify)
    cuts: tuple[Cut, ...] = ()
    retrain: Fit = field(default_factory=Fit)  # after every cut
    fixed: tuple[str, ...] = ()  # globs of leaves none of whose channels may go
    multiple: int = 1  # widths are multiples of this where a group is large enough
    floor: float = 0.125  # share of every group that stays at least
    score_images: int = 2048  # training images for scores that need gradients
    reestimate_images: int = 4096  # training images for the statistics of batch normalization after a cut
    trim_rounds: int = 12
    trim_images: int = 1000  # validation images that judge the candidates of a round
    latency_batch: int = 128  # images per call where latency is measured or modelled


def check(config: ShrinkConfig) -> None:
    """Verifies types and ranges.

    Raises:
      ValueError: Naming the first field that is wrong, what it holds and what it may hold.

    >>> check(ShrinkConfig(cuts=(Cut(score="luck"),)))
    Traceback (most recent call last):
    ...
    ValueError: config.cuts[0].score is 'luck'; choose one of l1, l2, geometric_median, taylor, norm_scale, ...
    """
    check_kind(config, ShrinkConfig, "experiments.shrink")
    check_base(config)
    check_fit("config.sparsify", config.sparsify)
    choice("config.sparsify.method", config.sparsify.method, METHODS)
    least("config.sparsify.strength", config.sparsify.strength, 0)
    least("config.sparsify.reweight", config.sparsify.reweight, 0)
    positive("config.sparsify.delta", config.sparsify.delta)
    for rule, factor in config.sparsify.groups.items():
        positive(f"config.sparsify.groups[{rule!r}]", factor)
    _check_method(config.sparsify)
    check_fit("config.retrain", config.retrain)
    for name in ("multiple", "score_images", "reestimate_images", "trim_rounds", "trim_images", "latency_batch"):
        least(f"config.{name}", getattr(config, name), 1)
    most("config.latency_batch", config.latency_batch, LARGEST_BATCH)
    if not 0 <= config.floor <= 1:
        raise ValueError(f"config.floor is {config.floor}; it is a share between 0 and 1.")
    if not config.cuts:
        raise ValueError("config.cuts is empty; name at least one cut.")
    names = [cut_name(cut) for cut in config.cuts]
    for i, cut in enumerate(config.cuts):
        at = f"config.cuts[{i}]"
        choice(f"{at}.score", cut.score, SCORES)
        choice(f"{at}.allocation", cut.allocation, ALLOCATIONS)
        choice(f"{at}.cost", cut.cost, COSTS)
        least(f"{at}.multiple", cut.multiple, 0)
        if not 0 <= cut.removed < 1:
            raise ValueError(f"{at}.removed is {cut.removed}; it is a share from 0 up to, not including, 1.")
        if cut.allocation == "trim" and not cut.widths and not cut.removed:
            raise ValueError(f"{at}.removed is 0; there is nothing to trim.")
        slims = config.sparsify.epochs and config.sparsify.method == "slimming"
        if cut.allocation == "zeros" and not cut.widths and slims:
            raise ValueError(
                f"{at}.allocation is 'zeros', but slimming zeros scales, not channels: rank them by score 'norm_scale'."
            )
        for rule, width in cut.widths.items():
            least(f"{at}.widths[{rule!r}]", width, 1)
        if names[i] in names[:i]:
            raise ValueError(f"{at} is the same as an earlier cut ({names[i]}); remove one of them.")


def _check_method(sparsify: Sparsify) -> None:
    """Raises `ValueError` for fields that the chosen method does not have."""
    if not sparsify.epochs:
        return
    if sparsify.method == "admm":
        check_admm("config.sparsify", sparsify)
        if not sparsify.widths:
            raise ValueError("config.sparsify.widths is empty; ADMM needs widths to train towards.")
    elif sparsify.widths:
        raise ValueError(f"config.sparsify.widths belongs to admm; {sparsify.method} has no target.")
    for rule, width in sparsify.widths.items():
        least(f"config.sparsify.widths[{rule!r}]", width, 1)
    if sparsify.method != "group_lasso" and (sparsify.groups or sparsify.reweight):
        raise ValueError(f"config.sparsify.groups and .reweight belong to group_lasso; {sparsify.method} has neither.")


def cut_name(cut: Cut) -> str:
    """Name of a cut and of its artefact, without suffix.

    >>> cut_name(Cut(score="taylor", allocation="global", removed=0.5)), cut_name(Cut(widths={"conv1/kernel": 3}))
    ('taylor-global-macs-50', 'l2-3')
    """
    if cut.widths:
        return f"{cut.score}-{'-'.join(str(width) for width in cut.widths.values())}"
    if cut.allocation == "zeros":
        return "zeros"
    rounded = f"-x{cut.multiple}" if cut.multiple else ""
    return f"{cut.score}-{cut.allocation}-{cut.cost}-{100 * cut.removed:.3g}{rounded}"
