"""The report of `experiments.cdc`: the printed tables, the figure, the page."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from matplotlib.figure import Figure

from experiments import report, style
from experiments.cdc_cells import AMOUNTS, AUTOMATIC, COARSE, TEACHING
from experiments.text import duration, percent

Record = Mapping[str, Any]
PARTS = {
    AMOUNTS: "the same share of every group",
    COARSE: "coarse labels for the early half of the groups",
    AUTOMATIC: "amounts by sensitivity, at the same MACs",
}
KINDS = {
    "none": "labels alone",
    "output": "teacher's probabilities",
    "hint": "probabilities and hint",
    "discriminant": "probabilities and discriminants",
}


def headline(found: Record) -> str:
    """Test accuracy before and after retraining, a row per score, a column per amount."""
    lines = []
    for task in found["tasks"]:
        amounts = found["config"]["removed"]
        lines += [
            "",
            f"{task['name']}, dense {percent(task['dense']['test'])}; test accuracy after the cut -> after retraining",
            " " * 42 + "".join(f"{100 * amount:.0f} % gone".rjust(34) for amount in amounts),
        ]
        for part, score in order(task["rows"]):
            cells = [text_of(one(task["rows"], part, score, amount)).rjust(34) for amount in amounts]
            suffix = "" if part == AMOUNTS else f", {part}"
            lines.append(f"{score.replace('_', ' ')}{suffix}".ljust(42) + "".join(cells))
        for row in task["rows"]:
            if row["part"] == TEACHING:
                lines.append(f"{KINDS[row['kind']]:42s}{text_of(row):>34s}")
    return "\n".join(lines).lstrip("\n")


def order(rows: Sequence[Record]) -> list[tuple[str, str]]:
    """Parts and scores, by part, then by mean accuracy after retraining, the best first."""
    sums: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if row["part"] != TEACHING:
            sums.setdefault((row["part"], row["score"]), []).append(row["test"]["mean"])
    parts = list(PARTS)
    return sorted(sums, key=lambda key: (parts.index(key[0]), -sum(sums[key])))


def one(rows: Sequence[Record], part: str, score: str, removed: float) -> Record | None:
    """The row of one cell."""
    return next((r for r in rows if (r["part"], r["score"], r["removed"]) == (part, score, removed)), None)


def text_of(row: Record | None) -> str:
    """Before and after retraining, means and deviations."""
    if row is None:
        return ""
    parts = []
    for name in ("test_before", "test"):
        value = row[name]
        spread = "" if value["std"] is None else f" ± {100 * value['std']:.2f}"
        parts.append(f"{100 * value['mean']:.2f}{spread}")
    return " → ".join(parts)


@style.styled
def accuracies(found: Record) -> Figure:
    """Test accuracy after retraining against the share removed, one panel per task."""
    tasks = found["tasks"]
    figure, axes = style.new_figure(4.6 * len(tasks) + 1.6, 4.2, 1, len(tasks))
    scores = list(dict.fromkeys(row["score"] for task in tasks for row in task["rows"] if row["part"] == AMOUNTS))
    colours = dict(zip(scores, style.colours(scores), strict=True))
    for ax, task in zip(axes[0], tasks, strict=True):
        for number, score in enumerate(scores):
            rows = [r for r in task["rows"] if r["part"] == AMOUNTS and r["score"] == score]
            ax.errorbar(
                [row["removed"] for row in rows],
                [row["test"]["mean"] for row in rows],
                yerr=[row["test"]["std"] or 0.0 for row in rows],
                fmt="o-" if number < len(style.CYCLE) else "s--" if number < 2 * len(style.CYCLE) else "^:",
                color=colours[score],
                markersize=3.5,
                linewidth=1.2,
                capsize=2,
                label=score.replace("_", " "),
            )
        ax.axhline(task["dense"]["test"], color="black", linewidth=0.8, linestyle=":")
        ax.set_title(task["name"])
        ax.set_xlabel("channels removed")
        ax.set_ylabel("test accuracy after retraining")
        ax.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        style.percent_axis(ax)
    style.legend(axes[0, -1], loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def html(found: Record) -> str:
    """The whole report as a page."""
    repeats = found["config"]["repeats"]
    body = [
        "<h1>Class-discriminative channel pruning</h1>",
        f'<p class="soft">{found["networks"]} networks, {duration(found["seconds"])}. Test accuracy after the cut → '
        f"after retraining, mean ± standard deviation over {repeats} seeds.</p>",
        *report.picture("Accuracy by amount", accuracies(found), "Bars: standard deviation over the seeds."),
    ]
    for task in found["tasks"]:
        body.append(f"<h2>{escape(task['name'])}, dense {percent(task['dense']['test'])}</h2>")
        for part, title in PARTS.items():
            scores = [score for kind, score in order(task["rows"]) if kind == part]
            if not scores:
                continue
            rows = [{"score": score} for score in scores]
            columns: tuple[report.Column, ...] = (
                ("score", lambda row: row["score"].replace("_", " ")),
                *(_column(task["rows"], part, amount) for amount in found["config"]["removed"]),
            )
            body += [f"<p>{escape(title.capitalize())}:</p>", report.table(columns, rows, ("score",))]
        taught = [row for row in task["rows"] if row["part"] == TEACHING]
        if taught:
            help_: tuple[report.Column, ...] = (
                ("retrained with", lambda row: KINDS[row["kind"]]),
                ("accuracy", lambda row: text_of(row)),
            )
            body += [
                f"<p>Help from the dense network, {escape(taught[0]['score'].replace('_', ' '))}, "
                f"{100 * taught[0]['removed']:.0f} % removed:</p>",
                report.table(help_, taught, ("retrained with",)),
            ]
    body += [
        "<details><summary>Configuration</summary>",
        f"<pre>{escape(json.dumps(found['config'], indent=2))}</pre></details>",
    ]
    return report.page("Class-discriminative channel pruning", body)


def _column(rows: Sequence[Record], part: str, amount: float) -> report.Column:
    return f"{100 * amount:.0f} % removed", lambda row: text_of(one(rows, part, row["score"], amount))
