"""The report of `experiments.sparse_training`: ``report.json`` of the whole run and of every seed, and the page."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from experiments import contest_report
from experiments.contest import Candidate, name
from experiments.fitting import accuracy
from experiments.runner import Run
from experiments.sparse_config import SparseConfig, epochs
from experiments.sparse_methods import file
from experiments.text import percent, times

Record = Mapping[str, Any]


def summarize(config: SparseConfig, runs: Sequence[Run[SparseConfig]]) -> dict[str, Any]:
    """Builds ``report.json`` (format: docs/sparse_training.md) and writes one for every seed.

    The test split is read here, once.

    Args:
      config: Of all seeds together.
      runs: One per seed, trained, their directories open.

    Returns:
      JSON-ready.
    """
    validation = {
        name(candidate): [
            [
                accuracy(run.model, run.load(file(candidate, ratio)), run.data.validation)
                for ratio in _ratios(config, candidate)
            ]
            for run in runs
        ]
        for candidate in config.candidates
    }
    scores = {key: float(np.mean(found)) for key, found in validation.items()}

    def curve(run: Run[SparseConfig], candidate: Candidate) -> dict[str, Any]:
        points = [
            {
                "ratio": ratio,
                "epochs": epochs(config, candidate, ratio),
                **contest_report.judge(run, run.load(file(candidate, ratio))),
            }
            for ratio in _ratios(config, candidate)
        ]
        if candidate.method != "soft_threshold":
            return {"points": points}
        return {"points": points, "reached": contest_report.judge(run, run.load(file(candidate, 1)))}

    return contest_report.conclude(config, runs, config.train, "dense", validation, scores, curve)


def _ratios(config: SparseConfig, candidate: Candidate) -> list[float]:
    return [1.0] if candidate.method == "dense" else sorted(config.ratios)


def html(found: Record) -> str:
    """The page as text."""
    config = found["config"]
    notes = [
        f'<p class="soft">{escape(_reached(curve, found["dense"]["weights"]))}</p>'
        for curve in found["curves"]
        if "reached" in curve
    ]
    return contest_report.page(
        found,
        f"{config['model']} on {found['dataset']}, ways to a sparse network",
        f"{found['dense']['weights']:,} weights, trained to the same counts in {len(found['curves']) - 1} ways, "
        f"{config['train']['epochs']:g} epochs each; where a method took more, it is said.",
        "test accuracy",
        notes,
    )


def _reached(curve: Record, weights: int) -> str:
    """What soft thresholds reached before anything was projected."""
    reached = curve["reached"]
    return (
        "STR's density cannot be asked for: before projection and masked training it had "
        f"{reached['weights']:,.0f} weights ({times(weights / reached['weights'])}) and "
        f"{percent(reached['test_accuracy']['mean'])} test accuracy, means over the seeds. Where that is sparser than "
        "a column asks, the column shows the sparser network."
    )
