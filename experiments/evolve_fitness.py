"""How far the fitness of `experiments.evolve` can be trusted: its noise, and whether longer retraining agrees.

    noise        standard deviation between seeds of retraining of the geometric mean over tasks, pooled over formulas
    gap          of the chosen formula to the best seed, means over the same seeds of retraining
    agreement    Kendall's tau of the search's fitness with the mean over seeds, and with longer retraining

Everything is measured on the validation split, on the published seeds and the finalists.
"""

import dataclasses
import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.stats import kendalltau

from compressjax.search import expressions
from compressjax.zoo import Model
from experiments.evolve_search import Evolution, geometric_mean
from experiments.pruning_tasks import PruningTask


def check(evolution: Evolution, finalists: Sequence[str], chosen: str) -> dict[str, Any]:
    """Tries the seeds and the finalists again.

    Args:
      evolution: After its search.
      finalists: Formulas; `chosen` is one of them.
      chosen: The evolved function.

    Returns:
      ``noise``, ``gap`` (0 if the chosen formula is the best seed), ``tau`` with ``repeats`` and, if the configuration
      asks for it, ``longer``, and ``rows``: of every formula its ``search`` fitness as an accuracy, its ``repeats`` and
      its ``longer`` accuracy.
    """
    config = evolution.config
    formulas = list(dict.fromkeys([*expressions.SEEDS.values(), *finalists]))
    repeated = evolution.compare({text: text for text in formulas})
    rows = []
    for text in formulas:
        by_seed = zip(*([trial["after"] for trial in trials] for trials in repeated[text].values()), strict=True)
        row: dict[str, Any] = {
            "formula": text,
            "search": _together(evolution, text),
            "repeats": [geometric_mean(one) for one in by_seed],
        }
        if config.longer:
            row["longer"] = _together(evolution, text, times=config.longer)
        rows.append(row)
    means = {row["formula"]: statistics.fmean(row["repeats"]) for row in rows}
    best = max(expressions.SEEDS.values(), key=lambda text: means[text])
    tau = {"repeats": agreement([row["search"] for row in rows], list(means.values()))}
    if config.longer:
        tau["longer"] = agreement([row["search"] for row in rows], [row["longer"] for row in rows])
    return {
        "noise": pooled([row["repeats"] for row in rows]),
        "gap": means[chosen] - means[best],
        "tau": tau,
        "rows": rows,
    }


def _together(evolution: Evolution, formula: str, *, times: float = 1.0) -> float:
    """Geometric mean over the tasks with the search's own seed, retrained `times` as long."""
    found = []
    for task in evolution.tasks:
        trial = evolution.trial(
            task, formula, **({} if times == 1.0 else {"kind": f"x{times:g}", "retrain": _for(times)})
        )
        found.append(trial["after"])
    return geometric_mean(found)


def _for(times: float) -> Any:
    return functools.partial(_longer, times=times)


def _longer(task: PruningTask, model: Model, params: Any, seed: int, *, times: float) -> Any:
    fit = task.task.retrain
    return task.retrain(model, params, seed=seed, fit=dataclasses.replace(fit, epochs=times * fit.epochs))


def pooled(groups: Sequence[Sequence[float]]) -> float | None:
    """Standard deviation within groups; None if every group has one value.

    >>> round(pooled([[1.0, 3.0], [5.0, 5.0]]), 3)
    1.0
    """
    free = sum(len(group) - 1 for group in groups)
    if not free:
        return None
    return math.sqrt(sum((len(g) - 1) * statistics.variance(g) for g in groups if len(g) > 1) / free)


def agreement(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's tau-b; None if one of them is constant.

    >>> agreement([1, 2, 3], [1, 3, 2])
    0.333...
    """
    tau = float(kendalltau(first, second).statistic)
    return None if math.isnan(tau) else tau


def sentences(found: Mapping[str, Any]) -> list[str]:
    """The findings in words."""
    out = []
    if found["noise"] is not None:
        times = f", {abs(found['gap']) / found['noise']:.1f} times that" if found["noise"] else ""
        out.append(
            f"Noise of one evaluation (standard deviation between seeds of retraining): {100 * found['noise']:.2f} "
            f"points; on validation images the evolved function is {100 * found['gap']:+.2f} points from the best "
            f"seed{times}."
        )
    names = {"repeats": "the mean over seeds", "longer": "longer retraining"}
    parts = [f"{names[key]} {tau:.2f}" for key, tau in found["tau"].items() if tau is not None]
    if parts:
        out.append(f"Rank correlation (Kendall) of the fitness in the search with {', with '.join(parts)}.")
    return out
