"""What the reports of contests share: a seed's record, means over seeds, the printed table, the figure, the page."""

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from compressjax import trees
from experiments import phases, report, schema, style
from experiments.contest import C, Candidate, choose, fitted, name
from experiments.curve_records import LABELS, label
from experiments.fitting import accuracy
from experiments.records import measure
from experiments.runner import Run
from experiments.schema import Fit
from experiments.text import duration, percent, times

Record = Mapping[str, Any]
ACCURACIES = ("validation_accuracy", "test_accuracy")


def weights(params: Any) -> int:
    """Non-zero entries of all kernels."""
    return sum(int(np.count_nonzero(leaf)) for path, leaf in trees.leaves(params).items() if path.endswith("kernel"))


def conclude(
    config: C,
    runs: Sequence[Run[C]],
    fit: Fit,
    plain: str,
    validation: Mapping[str, Sequence[Sequence[float]]],
    scores: Mapping[str, float],
    curve: Callable[[Run[C], Candidate], dict[str, Any]],
) -> dict[str, Any]:
    """Chooses, judges what was chosen, and builds ``report.json`` of the contest; writes that of every seed.

    Args:
      config: Of all seeds together.
      runs: One per seed, trained, their directories open.
      fit: What candidates without a learning rate of their own were trained with.
      plain: The method whose first point is the dense network.
      validation: Accuracies of every candidate, by seed and ratio.
      scores: Of every candidate; the best of each method is chosen.
      curve: (run, candidate) -> its ``points``, growing in ratio; reads the test split.

    Returns:
      JSON-ready.
    """
    chosen = choose(config.candidates, scores)
    seeds = []
    for run in runs:
        curves = [{**_described(candidate, fit), **curve(run, candidate)} for candidate in chosen.values()]
        dense = next(found for found in curves if found["method"] == plain)["points"][0]
        seeds.append(_of_seed(run, dense, curves))
        run.workdir.write_report(seeds[-1])
    return {
        "config": schema.to_dict(config),
        "seeds": [seed["seed"] for seed in seeds],
        "dataset": config.dataset,
        "splits": seeds[0]["splits"],
        "device": seeds[0]["device"],
        "dense": {key: seeds[0]["dense"][key] for key in ("weights", "parameters")},
        "curves": [_mean(same) for same in zip(*(seed["curves"] for seed in seeds), strict=True)],
        "candidates": [
            {
                **_described(candidate, fit),
                "chosen": candidate in chosen.values(),
                "score": scores[name(candidate)],
                "validation_accuracy": np.mean(validation[name(candidate)], axis=0).tolist(),
            }
            for candidate in config.candidates
        ],
        "seconds": sum(seed["seconds"] for seed in seeds),
    }


def judge(run: Run[Any], params: Any) -> dict[str, Any]:
    """The kept weights and the accuracies of a network; reads the test split."""
    return {
        "weights": weights(params),
        "validation_accuracy": accuracy(run.model, params, run.data.validation),
        "test_accuracy": accuracy(run.model, params, run.data.test()),
    }


def _described(candidate: Candidate, fit: Fit) -> dict[str, Any]:
    known = fitted(candidate, fit)
    own = {"learning_rate": known.learning_rate, "optimizer": known.optimizer}
    return {"name": name(candidate), **dataclasses.asdict(candidate), **own}


def _of_seed(run: Run[Any], dense: Record, curves: Sequence[Record]) -> dict[str, Any]:
    """The report of one seed, in the format of the other programs' records."""
    restored = run.workdir.restore()
    return {
        "config": schema.to_dict(run.config),
        "seed": run.config.seed,
        "dataset": run.config.dataset,
        "splits": {"train": len(run.data.train.labels), "validation": len(run.data.validation.labels)},
        "device": jax.devices()[0].device_kind,
        "dense": {
            "weights": dense["weights"],
            "parameters": sum(math.prod(shape) for shape in phases.shapes(run.model).values()),
            **{key: dense[key] for key in ACCURACIES},
        },
        "curves": list(curves),
        "seconds": restored[2]["seconds"] if restored else 0.0,
    }


def _mean(curves: Sequence[Record]) -> dict[str, Any]:
    """One candidate over all seeds."""
    points = [_mean_point(same) for same in zip(*(curve["points"] for curve in curves), strict=True)]
    found = {**curves[0], "points": points}
    return found | ({"reached": _mean_point([curve["reached"] for curve in curves])} if "reached" in found else {})


def _mean_point(points: Sequence[Record]) -> dict[str, Any]:
    found = {key: dataclasses.asdict(measure(point[key] for point in points)) for key in ACCURACIES}
    return {**points[0], **found, "weights": statistics.fmean(point["weights"] for point in points)}


def ratios_of(found: Record) -> list[float]:
    """All ratios of a report, growing; 1 is dense."""
    return sorted({point["ratio"] for curve in found["curves"] for point in curve["points"]})


def headline(found: Record) -> str:
    """The table that a person reads first: test accuracy by method and ratio."""
    ratios = ratios_of(found)
    width = max(len(LABELS[curve["method"]]) for curve in found["curves"])
    lines = [" " * width + "".join(("dense" if ratio == 1 else times(ratio)).rjust(18) for ratio in ratios)]
    for curve in found["curves"]:
        texts = [_cell(curve, ratio).rjust(18) for ratio in ratios]
        lines.append((LABELS[curve["method"]].ljust(width) + "".join(texts)).rstrip())
    return "\n".join(lines)


def _cell(curve: Record, ratio: float) -> str:
    """Test accuracy at one ratio; empty if there is none."""
    for point in curve["points"]:
        if point["ratio"] == ratio:
            value = point["test_accuracy"]
            spread = "" if value["std"] is None else f" ± {100 * value['std']:.2f}"
            return f"{100 * value['mean']:.2f}{spread} %"
    return ""


@style.styled
def accuracy_against_ratio(found: Record, accuracy: str) -> Figure:
    """Test accuracy against the ratio, log x; bars are standard deviations over the seeds.

    Args:
      found: A report of all seeds.
      accuracy: What the y axis says.
    """
    figure, axes = style.new_figure(7.6, 3.8)
    ax = axes[0, 0]
    for i, (curve, colour) in enumerate(
        zip(found["curves"], style.colours([c["name"] for c in found["curves"]]), strict=True)
    ):
        points = [(p["ratio"], p["test_accuracy"]["mean"], p["test_accuracy"]["std"] or 0.0) for p in curve["points"]]
        x, y, spread = zip(*points, strict=True)
        line = "-" if i < len(style.CYCLE) else "--"  # colours start again
        ax.errorbar(
            x, y, yerr=spread, fmt=f"o{line}", color=colour, markersize=4, linewidth=1.3, capsize=2, label=label(curve)
        )
    style.ratio_axis(ax, ratios_of(found))
    style.percent_axis(ax)
    ax.set_xlabel("fewer weights")
    ax.set_ylabel(accuracy)
    style.legend(ax, loc="lower left")
    return figure


def page(found: Record, title: str, first: str, accuracy: str, notes: Sequence[str] = ()) -> str:
    """The whole report as a page.

    Args:
      found: A report of all seeds.
      title: Heading.
      first: What was done, in a sentence or two.
      accuracy: What the accuracies are, for the figure.
      notes: Paragraphs under the table, HTML.
    """
    runs = len(found["seeds"])
    ratios = ratios_of(found)

    def cell(ratio: float) -> report.Column:
        return ("dense" if ratio == 1 else times(ratio), lambda r: _cell(r, ratio))

    columns: tuple[report.Column, ...] = (("method", lambda r: label(r)), *(cell(ratio) for ratio in ratios))
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(first)}</p>",
        f'<p class="soft">{runs} seed{"s" if runs > 1 else ""}, {duration(found["seconds"])} of training. Mean ± '
        "sample standard deviation; all choices made on the validation split, the test split read once at the end.</p>",
        "<h2>Test accuracy</h2>",
        report.table(columns, found["curves"], ("method",)),
        *notes,
        *report.picture(
            "Accuracy against ratio",
            accuracy_against_ratio(found, accuracy),
            f"{accuracy.capitalize()}. Bars: standard deviation over the seeds.",
        ),
        "<h2>Candidates</h2>",
        report.table(CANDIDATES, found["candidates"], ("candidate", "")),
        '<p class="soft">Validation accuracy, mean over the seeds; the best mean over the ratios is chosen.</p>',
        "<details><summary>Configuration</summary>",
        f"<pre>{escape(json.dumps(found['config'], indent=2))}</pre></details>",
    ]
    return report.page(title, body)


CANDIDATES: tuple[report.Column, ...] = (
    ("candidate", lambda r: label(r)),
    ("mean over the ratios", lambda r: percent(r["score"])),
    ("", lambda r: "chosen" if r["chosen"] else ""),
)
