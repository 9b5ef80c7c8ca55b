"""The configuration of `experiments.storage_study`: kinds of sparsity, a ladder of ratios for each, and bits."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from experiments.schema import (
    LARGEST_BATCH,
    Admm,
    Base,
    Fit,
    check_admm,
    check_base,
    check_fit,
    check_kind,
    check_widths,
    choice,
    least,
    most,
    positive,
)

if TYPE_CHECKING:  # a configuration is read, and --help printed, before JAX is needed
    from compressjax.projections import Constraint

WEIGHTS, NM, BLOCKS, FILTERS = KINDS = ("weights", "nm", "blocks", "filters")
LABELS = {WEIGHTS: "single weights", NM: "N:M", BLOCKS: "block-punched", FILTERS: "filters and columns"}
DENSE = "dense"  # name of the network that all ladders start from
FLOAT = 32  # bits of a network that is not quantized


@dataclass
class Scheme:
    """One kind of sparsity and its ladder."""

    kind: str = WEIGHTS
    ratios: tuple[float, ...] = (
        2.0,
        4.0,
        8.0,
        16.0,
    )  # kernel weights over those that are kept; each rung from the last


@dataclass
class StudyConfig(Base):
    """Every scheme up its ladder from one dense network; the best rung that keeps the accuracy, at several bits."""

    widths: tuple[int, ...] = ()  # of the dense network; (): the published ones
    schemes: tuple[Scheme, ...] = tuple(Scheme(kind) for kind in KINDS)
    prune: Admm = field(default_factory=Admm)  # every rung: ADMM towards the set,
    retrain: Fit = field(default_factory=Fit)  # then masked retraining
    quantize: Fit = field(default_factory=Fit)  # of the best rung, to every number of bits: gradual freezing
    bits: tuple[int, ...] = (1, 2, 3, 4, 8)
    tolerance: float = 0.01  # validation accuracy that a rung may lose
    block: tuple[int, ...] = (4, 4)  # inputs, outputs of a block; where it does not divide a layer, the next divisor
    group: int = 16  # M of N:M, likewise
    latency_batch: int = 1
    latency_repeats: int = 15


def check(config: StudyConfig) -> None:
    """Verifies types and ranges.

    Raises:
      ValueError: Naming the first field that is wrong, what it holds and what it may hold.

    >>> check(StudyConfig(schemes=(Scheme("rows"),)))
    Traceback (most recent call last):
    ...
    ValueError: config.schemes[0].kind is 'rows'; choose one of weights, nm, blocks, filters.
    """
    check_kind(config, StudyConfig, "experiments.storage_study")
    check_base(config)
    for i, scheme in enumerate(config.schemes):
        at = f"config.schemes[{i}]"
        choice(f"{at}.kind", scheme.kind, KINDS)
        if not scheme.ratios or min(scheme.ratios) <= 1 or list(scheme.ratios) != sorted(set(scheme.ratios)):
            raise ValueError(f"{at}.ratios is {tuple(scheme.ratios)}; name at least one, above 1 and rising.")
    kinds = [scheme.kind for scheme in config.schemes]
    if WEIGHTS not in kinds or len(set(kinds)) < max(2, len(kinds)):
        raise ValueError(f"config.schemes has the kinds {kinds}; name 'weights' and at least one other, each once.")
    check_widths("config.widths", config.widths)
    check_admm("config.prune", config.prune)
    check_fit("config.retrain", config.retrain)
    check_fit("config.quantize", config.quantize)
    if not config.bits or not all(1 <= bits <= 8 for bits in config.bits) or len(set(config.bits)) < len(config.bits):
        raise ValueError(f"config.bits is {tuple(config.bits)}; name at least one from 1 to 8, each once.")
    least("config.tolerance", config.tolerance, 0)
    if len(config.block) != 2 or min(config.block) < 1:
        raise ValueError(f"config.block is {tuple(config.block)}; it must be two positive numbers, inputs and outputs.")
    least("config.group", config.group, 2)
    for name in ("latency_batch", "latency_repeats"):
        positive(f"config.{name}", getattr(config, name))
        most(f"config.{name}", getattr(config, name), LARGEST_BATCH)


def rung(kind: str, ratio: float) -> str:
    """Name of a pruned network and of its artefact, without suffix.

    >>> rung("nm", 4.0)
    'nm-4'
    """
    return f"{kind}-{ratio:g}"


def kernels(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The leaves that are pruned, with their shapes."""
    return {path: shape for path, shape in shapes.items() if path.endswith("kernel")}


def rules(
    config: StudyConfig, kind: str, ratio: float, shapes: Mapping[str, tuple[int, ...]], classes: int
) -> "dict[str, Constraint]":
    """The sets of one rung by path.  All kinds share one allocation over the layers, ERK; dense layers have no set.

    Args:
      config: Blocks and groups.
      kind: One of `KINDS`.
      ratio: Kernel weights over those that are kept.
      shapes: Of all leaves.
      classes: Outputs of the network, which no filter pruning may remove.

    Returns:
      Path -> constraint.

    Raises:
      ValueError: If every layer stays dense.

    >>> rules(StudyConfig(), "nm", 4.0, {"fc1/kernel": (64, 80), "fc2/kernel": (80, 10)}, 10)
    {'fc1/kernel': NM(n=3, m=16, axis=-2), 'fc2/kernel': NM(n=11, m=16, axis=-2)}
    """
    from compressjax import masks

    known = kernels(shapes)
    found = {}
    for path, count in masks.erk(known, 1 / ratio).items():
        shape = known[path]
        density = count / math.prod(shape)
        constraint = _constraint(config, kind, density, count, shape, classes) if density < 1 else None
        if constraint is not None:
            found[path] = constraint
    if not found:
        raise ValueError(f"At {ratio:g}x no layer of this network can be pruned as {LABELS[kind]}.")
    return found


def _constraint(
    config: StudyConfig, kind: str, density: float, count: int, shape: tuple[int, ...], classes: int
) -> "Constraint | None":
    from compressjax import projections

    inputs, outputs = shape[-2:]
    if kind == WEIGHTS:
        return projections.Cardinality(count)
    if kind == NM:
        group = _divisor(config.group, inputs)
        kept = max(1, round(density * group))
        return projections.NM(kept, group) if kept < group else None
    if kind == BLOCKS:
        block = (_divisor(config.block[0], inputs), _divisor(config.block[1], outputs))
        whole = projections.BlockPunched(block)
        return projections.BlockPunched(block, max(1, round(density * whole.groups(shape))))
    rows = math.prod(shape[:-1])
    # Half of the cut (as a logarithm) by filters, the rest by columns; outputs of the network stay.
    last = len(shape) == 2 and outputs == classes
    filters = outputs if last else max(1, round(math.sqrt(density) * outputs))
    return projections.Submatrix(filters, min(rows, max(1, round(count / filters))))


def _divisor(most: int, length: int) -> int:
    """The largest divisor of `length` that is at most `most`.

    >>> _divisor(16, 20), _divisor(16, 800), _divisor(4, 3)
    (10, 16, 3)
    """
    return max(size for size in range(1, most + 1) if length % size == 0)
