"""The report of `experiments.ssgd`: ``report.json`` of the whole run and of every seed, and the page made of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments import contest_report
from experiments.contest import Candidate, name
from experiments.curves import CurvesConfig
from experiments.fitting import accuracy
from experiments.runner import Run
from experiments.ssgd import prune

Record = Mapping[str, Any]


def summarize(config: CurvesConfig, runs: Sequence[Run[CurvesConfig]]) -> dict[str, Any]:
    """Builds ``report.json`` (format: docs/ssgd.md) and writes one for every seed.  The test split is read here, once.

    Args:
      config: Of all seeds together.
      runs: One per seed, trained, their directories open.

    Returns:
      JSON-ready.
    """
    ratios = (1.0, *sorted(config.ratios))
    validation = {
        name(candidate): [
            [accuracy(run.model, params, run.data.validation) for params in _pruned(run, candidate, ratios)]
            for run in runs
        ]
        for candidate in config.candidates
    }
    # Dense accuracy is left out of the mean: what is asked for is what remains after pruning.
    scores = {key: float(np.mean([curve[1:] for curve in curves])) for key, curves in validation.items()}

    def curve(run: Run[CurvesConfig], candidate: Candidate) -> dict[str, Any]:
        pruned = zip(ratios, _pruned(run, candidate, ratios), strict=True)
        return {"points": [{"ratio": ratio, **contest_report.judge(run, params)} for ratio, params in pruned]}

    return contest_report.conclude(config, runs, config.pretrain, "sgd", validation, scores, curve)


def _pruned(run: Run[CurvesConfig], candidate: Candidate, ratios: Sequence[float]) -> list[Any]:
    """The trained network pruned to every ratio."""
    params = run.load(f"{name(candidate)}.cjx")
    return [prune(params, ratio) for ratio in ratios]


def html(found: Record) -> str:
    """The page as text."""
    config = found["config"]
    return contest_report.page(
        found,
        f"{config['model']} on {found['dataset']}, pruned without retraining",
        f"{found['dense']['weights']:,} weights, trained from scratch in {len(found['curves'])} ways for "
        f"{config['pretrain']['epochs']:g} epochs, then pruned by magnitude over all kernels together.",
        "test accuracy, not retrained",
    )
