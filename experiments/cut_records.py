"""Records of shrink runs as one compact table per configuration: a row per way to cut, a column per share removed.

A record is the ``report.json`` of `experiments.shrink` under the name ``results/<config>-seed<k>.json``.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.records import Measure, Record, measure
from experiments.text import percent


@dataclass(frozen=True)
class Cell:
    """One cut over all seeds.

    Attributes:
      accuracy: Test accuracy after retraining.
      before: Validation accuracy after the cut, before retraining.
      macs_ratio: How many times fewer multiply-adds.
      speedup: How many times faster, measured.
    """

    accuracy: Measure
    before: float
    macs_ratio: float
    speedup: float


def cells(records: Sequence[Record]) -> dict[str, dict[str, dict[float | None, Cell]]]:
    """Config -> way to cut -> share removed, None where the cut was not chosen by one -> cell."""
    found: dict[str, dict[str, dict[float | None, list[Any]]]] = {}
    for record in records:
        for cut in record.report["cuts"]:
            family = found.setdefault(record.config, {}).setdefault(way(cut), {})
            share = float(cut["removed"]) if _by_share(cut) else None
            family.setdefault(share, []).append(cut)
    return {
        config: {name: {share: _cell(cuts) for share, cuts in row.items()} for name, row in rows.items()}
        for config, rows in found.items()
    }


def _by_share(cut: Mapping[str, Any]) -> bool:
    """Whether a share of the cost was asked for, and not widths or whatever training left."""
    return "-".join((cut["score"], cut["allocation"], cut["cost"])) in cut["name"]


def way(cut: Mapping[str, Any]) -> str:
    """How a cut was chosen, without how much.

    >>> way({"score": "l1", "allocation": "uniform", "cost": "macs", "name": "l1-uniform-macs-30"})
    'l1, uniform'
    >>> way({"score": "l2", "allocation": "trim", "cost": "simd", "name": "l2-trim-simd-30"})
    'l2, trim (simd)'
    >>> cut = {"score": "l2", "allocation": "global", "cost": "macs", "multiple": 8, "name": "l2-global-macs-30-x8"}
    >>> way(cut)
    'l2, global, multiples of 8'
    """
    if cut["name"] == "zeros":
        return "zeroed by training"
    if not _by_share(cut):
        return f"{cut['name'].split('-', 1)[1]} units, {cut['score'].replace('_', ' ')}"
    cost = "" if cut["cost"] == "macs" else f" ({cut['cost']})"
    rounded = f", multiples of {cut['multiple']}" if cut.get("multiple") else ""
    return f"{cut['score'].replace('_', ' ')}, {cut['allocation'].replace('_', ' ')}{cost}{rounded}"


def _cell(cuts: Sequence[Any]) -> Cell:
    return Cell(
        accuracy=measure(cut["test_accuracy"] for cut in cuts),
        before=statistics.fmean(cut["before_accuracy"] for cut in cuts),
        macs_ratio=statistics.fmean(cut["macs_ratio"] for cut in cuts),
        speedup=statistics.fmean(cut["speedup"] for cut in cuts),
    )


def to_markdown(records: Sequence[Record]) -> str:
    """One table per configuration; empty for no records."""
    parts = []
    for config, rows in cells(records).items():
        runs = [record for record in records if record.config == config]
        dense = measure(run.report["dense"]["test_accuracy"] for run in runs)
        macs = statistics.fmean(run.report["dense"]["macs"] for run in runs)
        shares = sorted({share for row in rows.values() for share in row}, key=lambda share: (share is None, share))
        head = ["cut", *("as named" if s is None else f"{100 * s:.3g} % of the cost removed" for s in shares)]
        lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * len(shares)]
        for name, row in rows.items():
            cells_ = [_text(row[share]) if share in row else "" for share in shares]
            lines.append("| " + " | ".join([name, *cells_]) + " |")
        title = (
            f"`{config}`: dense {percent(dense.mean)}, {macs / 1e6:,.2f} M multiply-adds; "
            f"{len(runs)} seed{'s' if len(runs) > 1 else ''}"
        )
        parts.append(f"{title}\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _text(cell: Cell) -> str:
    return (
        f"{percent(cell.before)} → {cell.accuracy.percent}; {cell.macs_ratio:.2f}× fewer MACs, "
        f"{cell.speedup:.2f}× faster"
    )
