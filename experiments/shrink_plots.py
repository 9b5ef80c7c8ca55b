"""The plots of shrink runs: accuracy against cost, and where the channels went."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from experiments.cut_records import way
from experiments.style import CYCLE, Record, new_figure, styled

MARKERS = "osD^vPX*"


@styled
def accuracy_against_cost(report: Record) -> Figure | None:
    """Test accuracy after retraining, against MACs and measured time."""
    cuts = report.get("cuts") or []
    if not cuts:
        return None
    dense = report["dense"]
    figure, axes = new_figure(7.6, 3.6, columns=2, sharey=True)
    families = _families(cuts)
    for ax, key, divisor, label in (
        (axes[0, 0], "macs", 1e6, "million multiply-adds per image"),
        (axes[0, 1], "milliseconds", 1.0, f"milliseconds for {report['config']['latency_batch']} images"),
    ):
        for i, (name, members) in enumerate(families.items()):
            colour, marker = CYCLE[i % len(CYCLE)], MARKERS[i % len(MARKERS)]
            line = sorted((cut[key] / divisor, cut["test_accuracy"]) for cut in members)
            ax.plot(*zip(*line, strict=True), "-", marker=marker, color=colour, markersize=5, linewidth=1.2, label=name)
        ax.plot(dense[key] / divisor, dense["test_accuracy"], "o", color="black", markersize=6, label="dense")
        ax.set_xlabel(label)
        ax.set_xlim(left=0)
    axes[0, 0].yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.4g} %"))
    axes[0, 0].set_ylabel("test accuracy")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


@styled
def widths_kept(report: Record) -> Figure | None:
    """Share of every group that is left: one row per cut, one column per group."""
    cuts, groups = report.get("cuts") or [], report.get("groups") or {}
    if not cuts or not groups:
        return None
    shares = np.array([[cut["widths"][name] / group["size"] for name, group in groups.items()] for cut in cuts])
    figure, axes = new_figure(7.6, 0.9 + 0.22 * len(cuts))
    ax = axes[0, 0]
    image = ax.imshow(shares, aspect="auto", vmin=0, vmax=1, cmap="viridis")
    ax.set_yticks(range(len(cuts)), [cut["name"] for cut in cuts], fontsize=7)
    ax.set_xticks([])
    ax.set_xlabel(f"{len(groups)} channel groups")
    ax.grid(visible=False)
    bar = figure.colorbar(image, ax=ax, fraction=0.025, pad=0.01)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.0f} %"))
    return figure


def _families(cuts: Sequence[Record]) -> Mapping[str, list[Any]]:
    """Cuts that differ only in how much goes."""
    out: dict[str, list[Any]] = {}
    for cut in cuts:
        out.setdefault(way(cut), []).append(cut)
    return out
