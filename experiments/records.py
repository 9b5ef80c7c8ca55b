"""The records in ``results/`` as rows: means and deviations over seeds, each network beside its control.

A record is a run's ``report.json`` under the name ``<config>-seed<k>.json``; see `experiments.results`.
"""

import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.text import percent

CONTROL, ABLATION = "_control", "_norescale"
PROGRAMS = {"stages", "cuts", "curves", "schemes"}  # the entry that tells which program wrote a report
NAME = re.compile(r"(?P<config>.+)-seed(?P<seed>\d+)\.json")


@dataclass(frozen=True)
class Record:
    """One run: the name of its configuration, its seed, and its ``report.json``."""

    config: str
    seed: int
    report: Mapping[str, Any]


@dataclass(frozen=True)
class Measure:
    """Mean over seeds, sample standard deviation (None for one seed), number of seeds.

    >>> measure([0.991, 0.993])
    Measure(mean=0.992, std=0.0014142135623730963, n=2)
    """

    mean: float
    std: float | None
    n: int

    @property
    def percent(self) -> str:
        """As a text, with the deviation if there is one.

        >>> measure([0.991]).percent, measure([0.991, 0.993]).percent
        ('99.10 %', '99.20 ± 0.14 %')
        """
        return percent(self.mean) if self.std is None else f"{100 * self.mean:.2f} ± {100 * self.std:.2f} %"


def _higher(a: Measure | None, b: Measure) -> bool:
    """Whether `a` has the higher mean, by more than the rounding of a sum."""
    return a is not None and a.mean > b.mean + 1e-9


@dataclass(frozen=True)
class StageRow:
    """A pruned network (or the dense one): ADMM beside its control."""

    config: str
    stage: str
    solver: str
    weights: float
    ratio: float
    accuracy: Measure
    control: Measure | None
    control_ratio: float | None
    published: str

    @property
    def control_wins(self) -> bool:
        """Whether the control's mean test accuracy is higher."""
        return _higher(self.control, self.accuracy)


@dataclass(frozen=True)
class FileRow:
    """A quantized network, evaluated after reading its file back."""

    config: str
    name: str
    weights: float
    bytes: float
    ratio_data: float
    ratio_file: float
    accuracy: Measure
    control: Measure | None
    published: str

    @property
    def control_wins(self) -> bool:
        """Whether the control's mean test accuracy is higher."""
        return _higher(self.control, self.accuracy)


@dataclass(frozen=True)
class AblationRow:
    """One stage with the dual rescaled, and without."""

    config: str
    stage: str
    ratio: float
    rescaled: Measure
    plain: Measure
    rescaled_projected: Measure | None
    plain_projected: Measure | None


def load(folder: Path) -> list[Record]:
    """The records of a folder, by config and seed; other JSON files in it are left alone.

    Raises:
      ValueError: If a file is not the report its name promises.
    """
    out = []
    for file in sorted(folder.glob("*.json")):
        match = NAME.fullmatch(file.name)
        if not match:
            continue
        try:
            report = json.loads(file.read_text())
        except ValueError as error:
            raise ValueError(f"{file} is not valid JSON.") from error
        if (
            not isinstance(report, dict)
            or "dense" not in report
            or not {"stages", "cuts", "curves", "schemes"} & report.keys()
        ):
            raise ValueError(
                f"{file} is not the report.json of a run: it has no entries 'dense' and 'stages', 'cuts' or 'curves'."
            )
        if report.get("seed", int(match["seed"])) != int(match["seed"]):
            raise ValueError(f"{file} holds a run with seed {report['seed']}; rename it or copy the right report.")
        out.append(Record(match["config"], int(match["seed"]), report))
    return sorted(out, key=lambda record: (record.config, record.seed))


def measure(values: Iterable[float]) -> Measure:
    """Mean and sample standard deviation over seeds."""
    found = list(values)
    return Measure(statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else None, len(found))


def stage_rows(records: Sequence[Record]) -> list[StageRow]:
    """One row per config and stage, the dense network first; a control without its ADMM run has rows of its own.

    Args:
      records: In any order.

    Returns:
      Rows by config, in the order of the stages.
    """
    out = []
    for config, runs in _groups(records).items():
        if config.endswith(ABLATION) or _has_base(config, CONTROL, records):
            continue
        dense = [run.report["dense"] for run in runs]
        out.append(
            StageRow(
                config=config,
                stage="dense",
                solver="",
                weights=_mean(dense, "weights"),
                ratio=1.0,
                accuracy=measure(d["test_accuracy"] for d in dense),
                control=None,
                control_ratio=None,
                published="",
            )
        )
        control = _by_name(_groups(records).get(config + CONTROL, ()), "stages")
        for name, stages in _by_name(runs, "stages").items():
            other = control.get(name)
            out.append(
                StageRow(
                    config=config,
                    stage=name,
                    solver=stages[0].get("solver", ""),
                    weights=_mean(stages, "weights"),
                    ratio=_mean(stages, "ratio"),
                    accuracy=measure(s["test_accuracy"] for s in stages),
                    control=measure(s["test_accuracy"] for s in other) if other else None,
                    control_ratio=_mean(other, "ratio") if other else None,
                    published=stages[0].get("published") or "",
                )
            )
    return out


def file_rows(records: Sequence[Record]) -> list[FileRow]:
    """One row per config and quantized file."""
    out = []
    for config, runs in _groups(records).items():
        if config.endswith(ABLATION) or _has_base(config, CONTROL, records):
            continue
        control = _by_name(_groups(records).get(config + CONTROL, ()), "quantized")
        for name, items in _by_name(runs, "quantized").items():
            other = control.get(name)
            out.append(
                FileRow(
                    config=config,
                    name=name,
                    weights=_mean(items, "weights"),
                    bytes=_mean(items, "bytes"),
                    ratio_data=_mean(items, "ratio_data"),
                    ratio_file=_mean(items, "ratio_file"),
                    accuracy=measure(i["test_accuracy"] for i in items),
                    control=measure(i["test_accuracy"] for i in other) if other else None,
                    published=items[0].get("published") or "",
                )
            )
    return out


def ablation_rows(records: Sequence[Record]) -> list[AblationRow]:
    """One row per stage that was run with and without rescaling the dual."""
    out = []
    groups = _groups(records)
    for config, runs in groups.items():
        base = config.removesuffix(ABLATION)
        if base == config or base not in groups:
            continue
        rescaled = _by_name(groups[base], "stages")
        for name, plain in _by_name(runs, "stages").items():
            if name in rescaled:
                out.append(
                    AblationRow(
                        config=base,
                        stage=name,
                        ratio=_mean(rescaled[name], "ratio"),
                        rescaled=measure(s["test_accuracy"] for s in rescaled[name]),
                        plain=measure(s["test_accuracy"] for s in plain),
                        rescaled_projected=_projected(rescaled[name]),
                        plain_projected=_projected(plain),
                    )
                )
    return out


def _groups(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records by config, in the order of names."""
    out: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: (record.config, record.seed)):
        out.setdefault(record.config, []).append(record)
    return out


def _has_base(config: str, suffix: str, records: Sequence[Record]) -> bool:
    base = config.removesuffix(suffix)
    return base != config and any(record.config == base for record in records)


def _by_name(runs: Sequence[Record], key: str) -> dict[str, list[Mapping[str, Any]]]:
    """Stages or files of the same name over the seeds."""
    out: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        for item in run.report.get(key) or ():
            name = item.get("name") or Path(str(item.get("file", ""))).stem
            out.setdefault(name, []).append(item)
    return out


def _mean(items: Sequence[Mapping[str, Any]], key: str) -> float:
    return statistics.fmean(item[key] for item in items)


def _projected(stages: Sequence[Mapping[str, Any]]) -> Measure | None:
    found = [s["projected_validation_accuracy"] for s in stages if s.get("projected_validation_accuracy") is not None]
    return measure(found) if found else None
