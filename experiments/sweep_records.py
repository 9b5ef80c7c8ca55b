"""The results table of a sweep: one line per trial, made from the trials' directories and nothing else.

So it can be made again at any time, by anyone, whatever ran the trials and whoever was killed meanwhile.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import sweep_trial
from experiments.seal import unseal
from experiments.sweep_config import Objective, Trial
from experiments.text import is_number

Row = dict[str, Any]
TRIALS, TABLE = "trials", "trials.jsonl"


def directory_of(workdir: Path, trial: Trial) -> Path:
    """Where a trial of a sweep lies."""
    return workdir / TRIALS / trial.id


def collect(workdir: Path, objectives: Sequence[Objective], first: Iterable[Trial] = ()) -> list[Row]:
    """All trials that a sweep's directory holds.

    Args:
      workdir: Of the sweep.
      objectives: What to look up in the reports.
      first: Trials that come first, in this order; the others follow by id.

    Returns:
      One row per trial: ``id``, ``program``, ``config``, ``overrides``, ``status``, ``reason``, ``attempts``,
      ``seconds`` (as the program reports them) and ``results``, objective to number or None.
    """
    order = {trial.id: i for i, trial in enumerate(first)}
    found = sorted((workdir / TRIALS).glob(f"*/{sweep_trial.TRIAL}"))
    found.sort(key=lambda path: order.get(path.parent.name, len(order)))
    return [row(path.parent, objectives) for path in found]


def row(directory: Path, objectives: Sequence[Objective]) -> Row:
    """One trial, from its directory."""
    trial = sweep_trial.read_trial(directory)
    status, reason = sweep_trial.state(directory)
    report: dict[str, Any] = {}
    if status == sweep_trial.FINISHED:
        try:
            report = unseal(json.loads((directory / sweep_trial.REPORT).read_bytes()))
        except (ValueError, RecursionError):
            status, reason = sweep_trial.FAILED, "its report.json is damaged; remove it to run the trial again"
    attempts = directory / sweep_trial.ATTEMPTS
    results = {objective.name: lookup(report, objective.path) for objective in objectives}
    missing = [name for name, value in results.items() if value is None]
    if status == sweep_trial.FINISHED and missing:
        reason = f"its report has no number for {', '.join(missing)}"
    return {
        "id": trial.id,
        "program": trial.program,
        "config": trial.config,
        "overrides": trial.overrides,
        "status": status,
        "reason": reason,
        "attempts": attempts.read_text().count("\n") if attempts.exists() else 0,
        "seconds": report.get("seconds"),
        "results": results,
    }


def lookup(report: Any, path: Sequence[str | int]) -> float | None:
    """The number at a place in a report; None if there is none.

    >>> lookup({"stages": [{"ratio": 2.0}, {"ratio": 5.0}]}, ("stages", -1, "ratio"))
    5.0
    """
    for key in path:
        try:
            report = report[key]
        except (KeyError, IndexError, TypeError):
            return None
    return float(report) if is_number(report) else None


def losses(record: Mapping[str, Any], objectives: Sequence[Objective]) -> list[float] | None:
    """The objectives as numbers to be minimized; None if one is missing."""
    values = [record["results"].get(objective.name) for objective in objectives]
    if any(value is None for value in values):
        return None
    return [-value if objective.maximize else value for value, objective in zip(values, objectives, strict=True)]


def front(rows: Sequence[Mapping[str, Any]], objectives: Sequence[Objective]) -> set[str]:
    """Ids of the trials that no other one beats in one objective without losing in another."""
    known = [(record["id"], found) for record in rows if (found := losses(record, objectives)) is not None]
    return {
        name
        for name, mine in known
        if not any(all(a <= b for a, b in zip(other, mine, strict=True)) and other != mine for _, other in known)
    }


def ranked(rows: Sequence[Mapping[str, Any]], objectives: Sequence[Objective]) -> list[Mapping[str, Any]]:
    """Rows from the best by the first objective to those without one."""

    def key(record: Mapping[str, Any]) -> float:
        found = losses(record, objectives[:1])
        return found[0] if found else float("inf")

    return sorted(rows, key=key)


def encode(rows: Iterable[Row]) -> bytes:
    """The table as JSON lines."""
    return "".join(json.dumps(record) + "\n" for record in rows).encode()
