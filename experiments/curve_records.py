"""Records of contests as one table per configuration: a row per method, a column per pruning ratio.

A record is the ``report.json`` of one seed under the name ``results/<config>-seed<k>.json``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.records import Measure, Record, measure
from experiments.text import times

LABELS = {
    "sgd": "SGD",
    "l1": "l1",
    "powerprop": "Powerpropagation",
    "ssgd_log_l2": "SSGD, log-sum l2",
    "ssgd_log_l1": "SSGD, log-sum l1",
    "ssgd_p": "SSGD, p-norm",
    "dense": "dense",
    "static": "static random, ERK",
    "set": "SET, ERK",
    "rigl": "RigL, ERK",
    "acdc": "AC/DC",
    "soft_threshold": "STR",
    "snip": "SNIP",
    "grasp": "GraSP",
    "synflow": "SynFlow",
    "lottery_ticket": "lottery ticket",
    "gradual_magnitude": "gradual magnitude (control)",
    "admm": "ADMM",
}
VALUES = {
    "l1": "strength",
    "powerprop": "exponent",
    "ssgd_log_l2": "eps",
    "ssgd_log_l1": "eps",
    "ssgd_p": "p",
    "set": "first share moved",
    "rigl": "first share moved",
    "acdc": "dense phases",
    "soft_threshold": "weight decay",
    "admm": "rho",
}


def cells(records: Sequence[Record]) -> dict[str, dict[str, dict[float, Measure]]]:
    """Config -> method -> ratio (1 is dense) -> test accuracy over the seeds."""
    found: dict[str, dict[str, dict[float, list[float]]]] = {}
    for record in records:
        for curve in record.report["curves"]:
            row = found.setdefault(record.config, {}).setdefault(label(curve), {})
            for point in curve["points"]:
                row.setdefault(float(point["ratio"]), []).append(point["test_accuracy"])
    return {
        config: {name: {ratio: measure(values) for ratio, values in row.items()} for name, row in rows.items()}
        for config, rows in found.items()
    }


def label(curve: Mapping[str, Any]) -> str:
    """A method with its number and learning rate, and with its epochs where they differ between ratios.

    >>> label({"method": "ssgd_p", "value": 1.0, "learning_rate": 0.05})
    'SSGD, p-norm (p 1, learning rate 0.05)'
    >>> spent = [{"epochs": 5.0}, {"epochs": 9.5}]
    >>> label({"method": "snip", "value": 0.0, "optimizer": "adam", "learning_rate": 0.1, "points": spent})
    'SNIP (Adam, learning rate 0.1, 5 to 9.5 epochs)'
    """
    value = f"{VALUES[curve['method']]} {curve['value']:g}, " if curve["method"] in VALUES else ""
    epochs = sorted({point["epochs"] for point in curve.get("points", ()) if "epochs" in point})
    spent = f", {epochs[0]:g} to {epochs[-1]:g} epochs" if len(epochs) > 1 else ""
    optimizer = {"adam": "Adam, ", "sgd": "SGD, "}.get(curve.get("optimizer", ""), "")
    return f"{LABELS[curve['method']]} ({value}{optimizer}learning rate {curve['learning_rate']:g}{spent})"


def trained_sparse(record: Record) -> bool:
    """Whether a record is one of `experiments.sparse_training` rather than of `experiments.ssgd`.

    The method that all others are compared with tells.
    """
    return any(curve["method"] == "dense" for curve in record.report["curves"])


def to_markdown(records: Sequence[Record]) -> str:
    """One table per configuration, the best mean of every column in bold; empty for no records."""
    parts = []
    for config, rows in cells(records).items():
        ratios = sorted({ratio for row in rows.values() for ratio in row})
        best = {ratio: max(row[ratio].mean for row in rows.values() if ratio in row) for ratio in ratios}
        head = ["method", *("dense" if ratio == 1 else times(ratio) for ratio in ratios)]
        lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * len(ratios)]
        for name, row in rows.items():
            texts = [_text(row[ratio], best[ratio]) if ratio in row else "" for ratio in ratios]
            lines.append("| " + " | ".join([name, *texts]) + " |")
        seeds = len({record.seed for record in records if record.config == config})
        parts.append(f"`{config}`: {seeds} seed{'s' if seeds > 1 else ''}\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _text(found: Measure, best: float) -> str:
    return f"**{found.percent}**" if found.mean == best else found.percent
