"""The figure of `experiments.evolve` that no other search has."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import style

Record = Mapping[str, Any]
NAMES = {"evolved": "evolved", "random_formulas": "random formulas"}
OURS = tuple(NAMES)


@style.styled
def transfer(found: Record) -> Figure:
    """Test accuracy after retraining of every score on every task."""
    tasks = found["tasks"]
    figure, axes = style.new_figure(3.2 * len(tasks) + 1.2, 0.2 * len(tasks[0]["rows"]) + 1.2, 1, len(tasks))
    for ax, task in zip(axes[0], tasks, strict=True):
        rows = sorted(task["rows"], key=lambda row: row["test"]["mean"])
        places = np.arange(len(rows))
        for place, row in zip(places, rows, strict=True):
            colour = style.BLUE if row["name"] in OURS else style.GREY
            value, spread = row["test"]["mean"], row["test"]["std"] or 0.0
            ax.errorbar(value, place, xerr=spread, fmt="o", color=colour, markersize=4, capsize=2)
        ax.set_yticks(places, [NAMES.get(row["name"], row["name"].replace("_", " ")) for row in rows])
        ax.set_title(f"{task['name']} ({task['role']})")
        ax.set_xlabel("test accuracy")
        ax.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    return figure
