"""The report of `experiments.evolve_amounts`."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import report, style
from experiments.text import percent

Record = Mapping[str, Any]
LABELS = {"uniform": "same share everywhere", "cma_es": "CMA-ES", "greedy": "greedy", "random": "random"}


def headline(found: Record) -> str:
    """The table that a person reads first."""
    config = found["config"]
    lines = [
        f"{config['task']['name']}: {percent(config['macs'])} of the MACs left, channels by {config['score']}; dense "
        f"{percent(found['dense']['test'])} on the test split",
        " " * 24 + "masked, validation".rjust(20) + "cut, test".rjust(18) + "retrained, test".rjust(18),
    ]
    for row in found["rows"]:
        cells = (
            text_of(row["masked"]).rjust(20),
            text_of(row["test_before"]).rjust(18),
            text_of(row["test"]).rjust(18),
        )
        lines.append(LABELS[row["name"]].ljust(24) + "".join(cells))
    return "\n".join(lines)


def text_of(value: Record) -> str:
    """Mean and deviation in percent."""
    spread = "" if value["std"] is None else f" ± {100 * value['std']:.2f}"
    return f"{100 * value['mean']:.2f}{spread} %"


@style.styled
def curves(found: Record) -> Figure:
    """Best masked accuracy against candidates, mean over the seeds, with the range; the uniform cut as a line."""
    figure, axes = style.new_figure(6.0, 3.4)
    ax = axes[0, 0]
    searched = [row for row in found["rows"] if row["searches"][0]["curve"]]
    for row, colour in zip(searched, style.colours([row["name"] for row in searched]), strict=True):
        table = np.array([one["curve"] for one in row["searches"]])
        at = found["config"]["population"] * np.arange(1, table.shape[1] + 1)
        ax.plot(at, table.mean(axis=0), color=colour, linewidth=1.4, label=LABELS[row["name"]])
        ax.fill_between(at, table.min(axis=0), table.max(axis=0), color=colour, alpha=0.15, linewidth=0)
    ax.axhline(found["rows"][0]["masked"]["mean"], color="black", linestyle="--", linewidth=1, label=LABELS["uniform"])
    ax.set_xlabel("candidates")
    ax.set_ylabel("validation accuracy, masked")
    style.percent_axis(ax)
    style.legend(ax, loc="lower right")
    return figure


def html(found: Record) -> str:
    """The whole report as a page."""
    columns: tuple[report.Column, ...] = (
        ("strategy", lambda row: LABELS[row["name"]]),
        ("masked, validation", lambda row: text_of(row["masked"])),
        ("cut, test", lambda row: text_of(row["test_before"])),
        ("retrained, test", lambda row: text_of(row["test"])),
        ("MACs left", lambda row: percent(float(np.mean([one["macs"] for one in row["searches"]])))),
        ("channels, first seed", lambda row: "-".join(str(w) for w in row["searches"][0]["widths"].values())),
    )
    body = [
        "<h1>How many channels each layer keeps</h1>",
        f"<p>{escape(headline(found).splitlines()[0])}.</p>",
        report.table(columns, found["rows"], ("strategy", "channels, first seed")),
        f'<p class="soft">Mean ± standard deviation over {found["config"]["repeats"]} searches. Groups in order: '
        f"{escape(', '.join(group['path'] for group in found['groups'].values()))}.</p>",
        *report.picture("Search", curves(found), "Best so far; bands reach from the worst to the best seed."),
        "<details><summary>Configuration</summary>",
        f"<pre>{escape(json.dumps(found['config'], indent=2))}</pre></details>",
    ]
    return report.page("How many channels each layer keeps", body)
