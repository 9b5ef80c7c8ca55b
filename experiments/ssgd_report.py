"""The report of `experiments.ssgd`: ``report.json`` of the whole run and of every seed, and the page made of it."""

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from compressjax import trees
from experiments import report, schema, style
from experiments.curve_records import LABELS, label
from experiments.curves import Candidate, CurvesConfig, name
from experiments.fitting import accuracy
from experiments.records import measure
from experiments.runner import Run
from experiments.ssgd import prune
from experiments.text import duration, percent, times
from experiments.workdir import Workdir

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
        name(candidate): [_curve(run, candidate, ratios, run.data.validation) for run in runs]
        for candidate in config.candidates
    }
    # Dense accuracy is left out of the mean: what is asked for is what remains after pruning.
    scores = {key: float(np.mean([curve[1:] for curve in curves])) for key, curves in validation.items()}
    chosen: dict[str, Candidate] = {}
    for candidate in config.candidates:
        best = chosen.get(candidate.method)
        if best is None or scores[name(candidate)] > scores[name(best)]:
            chosen[candidate.method] = candidate
    seeds = []
    for index, run in enumerate(runs):
        curves = []
        for candidate in chosen.values():
            test = _curve(run, candidate, ratios, run.data.test())
            params = run.load(f"{name(candidate)}.cjx")
            rows = zip(ratios, validation[name(candidate)][index], test, strict=True)
            curves.append(
                {
                    **_described(config, candidate),
                    "points": [
                        {
                            "ratio": ratio,
                            "weights": _weights(prune(params, ratio)),
                            "validation_accuracy": ours,
                            "test_accuracy": theirs,
                        }
                        for ratio, ours, theirs in rows
                    ],
                }
            )
        seeds.append(_of_seed(run, curves))
        run.workdir.write("report.json", json.dumps(seeds[-1], indent=1).encode())
    return {
        "config": schema.to_dict(config),
        "seeds": [run.config.seed for run in runs],
        "dataset": config.dataset,
        "splits": seeds[0]["splits"],
        "device": seeds[0]["device"],
        "dense": {"weights": seeds[0]["dense"]["weights"], "parameters": seeds[0]["dense"]["parameters"]},
        "curves": [_mean([seed["curves"][i] for seed in seeds]) for i in range(len(chosen))],
        "candidates": [
            {
                **_described(config, candidate),
                "chosen": candidate in chosen.values(),
                "score": scores[name(candidate)],
                "validation_accuracy": np.mean(validation[name(candidate)], axis=0).tolist(),
            }
            for candidate in config.candidates
        ],
        "seconds": sum(seed["seconds"] for seed in seeds),
    }


def _curve(run: Run[CurvesConfig], candidate: Candidate, ratios: Sequence[float], split: Any) -> list[float]:
    """Accuracy on a split at every ratio."""
    params = run.load(f"{name(candidate)}.cjx")
    return [accuracy(run.model, prune(params, ratio), split) for ratio in ratios]


def _weights(params: Any) -> int:
    """Non-zero entries of all kernels."""
    return sum(int(np.count_nonzero(leaf)) for path, leaf in trees.leaves(params).items() if path.endswith("kernel"))


def _described(config: CurvesConfig, candidate: Candidate) -> dict[str, Any]:
    rate = candidate.learning_rate or config.pretrain.learning_rate
    return {"name": name(candidate), **dataclasses.asdict(candidate), "learning_rate": rate}


def _of_seed(run: Run[CurvesConfig], curves: Sequence[Record]) -> dict[str, Any]:
    """The report of one seed, in the format of the other programs' records."""
    plain = next(curve for curve in curves if curve["method"] == "sgd")
    dense = plain["points"][0]
    restored = run.workdir.restore()
    parameters = jax.eval_shape(run.model.init, jax.random.key(0))
    return {
        "config": schema.to_dict(run.config),
        "seed": run.config.seed,
        "dataset": run.config.dataset,
        "splits": {"train": len(run.data.train.labels), "validation": len(run.data.validation.labels)},
        "device": jax.devices()[0].device_kind,
        "dense": {
            "weights": dense["weights"],
            "parameters": sum(leaf.size for leaf in trees.leaves(parameters).values()),
            "validation_accuracy": dense["validation_accuracy"],
            "test_accuracy": dense["test_accuracy"],
        },
        "curves": list(curves),
        "seconds": restored[2]["seconds"] if restored else 0.0,
    }


def _mean(curves: Sequence[Record]) -> dict[str, Any]:
    """One candidate over all seeds."""
    points = []
    for same in zip(*(curve["points"] for curve in curves), strict=True):
        found = {key: measure(point[key] for point in same) for key in ("validation_accuracy", "test_accuracy")}
        points.append(
            {
                "ratio": same[0]["ratio"],
                "weights": statistics.fmean(point["weights"] for point in same),
                **{key: dataclasses.asdict(value) for key, value in found.items()},
            }
        )
    return {**curves[0], "points": points}


def headline(found: Record) -> str:
    """The table that a person reads first: test accuracy by method and ratio."""
    ratios = [point["ratio"] for point in found["curves"][0]["points"]]
    width = max(len(LABELS[curve["method"]]) for curve in found["curves"])
    lines = [" " * width + "".join(("dense" if ratio == 1 else times(ratio)).rjust(18) for ratio in ratios)]
    for curve in found["curves"]:
        texts = [_text(point["test_accuracy"]).rjust(18) for point in curve["points"]]
        lines.append(LABELS[curve["method"]].ljust(width) + "".join(texts))
    return "\n".join(lines)


def _text(value: Record) -> str:
    spread = "" if value["std"] is None else f" ± {100 * value['std']:.2f}"
    return f"{100 * value['mean']:.2f}{spread} %"


@style.styled
def accuracy_against_ratio(found: Record) -> Figure:
    """Test accuracy after pruning against the ratio, log x; bars are standard deviations over the seeds."""
    figure, axes = style.new_figure(7.6, 3.8)
    ax = axes[0, 0]
    for curve, colour in zip(found["curves"], style.colours([c["name"] for c in found["curves"]]), strict=True):
        points = [(p["ratio"], p["test_accuracy"]["mean"], p["test_accuracy"]["std"] or 0.0) for p in curve["points"]]
        x, y, spread = zip(*points, strict=True)
        ax.errorbar(
            x, y, yerr=spread, fmt="o-", color=colour, markersize=4, linewidth=1.3, capsize=2, label=label(curve)
        )
    style.ratio_axis(ax, [point["ratio"] for point in found["curves"][0]["points"]])
    style.percent_axis(ax)
    ax.set_xlabel("fewer weights")
    ax.set_ylabel("test accuracy, not retrained")
    style.legend(ax, loc="lower left")
    return figure


CANDIDATES: tuple[report.Column, ...] = (
    ("candidate", lambda r: label(r)),
    ("mean over the ratios", lambda r: percent(r["score"])),
    ("dense", lambda r: percent(r["validation_accuracy"][0])),
    ("", lambda r: "chosen" if r["chosen"] else ""),
)


def write_html(workdir: Workdir) -> None:
    """Writes ``report.html`` beside ``report.json``."""
    found = json.loads((workdir.path / "report.json").read_text())
    workdir.write("report.html", html(found).encode())


def html(found: Record) -> str:
    """The page as text."""
    config, runs = found["config"], len(found["seeds"])
    title = f"{config['model']} on {found['dataset']}, pruned without retraining"
    ratios = [point["ratio"] for point in found["curves"][0]["points"]]

    def cell(i: int) -> report.Column:
        return ("dense" if ratios[i] == 1 else times(ratios[i]), lambda r: _text(r["points"][i]["test_accuracy"]))

    columns: tuple[report.Column, ...] = (("method", lambda r: label(r)), *(cell(i) for i in range(len(ratios))))
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{found['dense']['weights']:,} weights, trained from scratch in {len(found['curves'])} ways for "
        f"{config['pretrain']['epochs']:g} epochs, then pruned by magnitude over all kernels together.</p>",
        f'<p class="soft">{runs} seed{"s" if runs > 1 else ""}, {duration(found["seconds"])} of training. Mean ± '
        "sample standard deviation; all choices made on the validation split, the test split read once at the end.</p>",
        "<h2>Test accuracy</h2>",
        report.table(columns, found["curves"], ("method",)),
        *report.picture(
            "Accuracy against ratio",
            accuracy_against_ratio(found),
            "Test accuracy right after pruning. Bars: standard deviation over the seeds.",
        ),
        "<h2>Candidates</h2>",
        report.table(CANDIDATES, found["candidates"], ("candidate", "")),
        '<p class="soft">Validation accuracy, mean over the seeds; the best mean over the ratios is chosen.</p>',
        "<details><summary>Configuration</summary>",
        f"<pre>{escape(json.dumps(config, indent=2))}</pre></details>",
    ]
    return report.page(title, body)
