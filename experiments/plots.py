"""The plots of reports and of the README, drawn by matplotlib without a display and without pyplot's global state.

Every function takes plain records (`report.json`, `metrics.jsonl`), and returns a figure, or None if the records hold
nothing for it.  Accuracies are shares; axes show per cent.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from experiments import style
from experiments.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, YELLOW, Record, finite, new_figure, styled

SOLVERS = {"admm": ("ADMM", BLUE, "o"), "gradual_magnitude": ("gradual magnitude (control)", ORANGE, "s")}


@styled
def accuracy_against_ratio(report: Record, control: Sequence[Record], published: Sequence[Record]) -> Figure | None:
    """Test accuracy against compression ratio, log x: the pruned networks, and beside them the files.

    Args:
      report: ``report.json``.
      control: Stages of the control run, if there is one.
      published: Published figures; see `experiments.published`.

    Returns:
      The figure, or None if nothing was compressed.
    """
    stages, quantized = [*(report.get("stages") or []), *control], report.get("quantized") or []
    if not stages and not quantized:
        return None
    figure, axes = new_figure(7.6, 3.5, columns=bool(stages) + bool(quantized), sharey=True)
    panels = iter(axes[0])
    dense = report["dense"]["test_accuracy"]
    known = [p for p in published if quantized or p.get("kind") == "pruning"]
    if stages:
        ax, points = next(panels), [p for p in known if p.get("kind") == "pruning"]
        for solver, (name, colour, marker) in SOLVERS.items():
            line = sorted((s["ratio"], s["test_accuracy"]) for s in stages if s.get("solver") == solver)
            if line:
                dashed = "--" if solver == "gradual_magnitude" else "-"
                ax.plot(
                    *zip(*line, strict=True), dashed, marker=marker, color=colour, markersize=5, label=name, zorder=4
                )
        style.ratio_panel(ax, [s["ratio"] for s in stages], points, "fewer weights")
    if quantized:
        ax, points = next(panels), [p for p in known if p.get("kind") != "pruning"]
        for i, item in enumerate(quantized):
            y = item["test_accuracy"]
            whole, values = item["ratio_file"], item["ratio_data"]
            ax.plot([whole, values], [y, y], "-", color=GREEN, linewidth=0.8, alpha=0.6)
            ax.plot(whole, y, "D", color=GREEN, markersize=6, label="" if i else "whole file", zorder=5)
            name = "" if i else "weight values only"
            ax.plot(values, y, "D", color=GREEN, markersize=6, markerfacecolor="white", label=name, zorder=5)
        ratios = [item[key] for item in quantized for key in ("ratio_file", "ratio_data")]
        style.ratio_panel(ax, ratios, points, "smaller on disk, against float32")
    reached = [item["test_accuracy"] for item in [*stages, *quantized]]
    style.accuracy_range(axes[0, 0], [dense, *reached, *style.known_accuracies(known)])
    style.dense_line(axes[0, 0], dense)
    for ax in axes[0, 1:]:
        style.dense_line(ax, dense, text=False)
    style.percent_axis(axes[0, 0])
    axes[0, 0].set_ylabel("test accuracy")
    return figure


@styled
def keep_counts(report: Record) -> Figure | None:
    """Non-zero weights of each layer, stage by stage, log y; the dense counts come from the histograms."""
    stages = report.get("stages") or []
    if not stages:
        return None
    dense = {path: sum(h["dense"]) for path, h in (report.get("histograms") or {}).items()}
    names = (["dense"] if dense else []) + [s["name"] for s in stages]
    paths = list(stages[0]["nonzeros"])
    figure, axes = new_figure(7.6, 3.1)
    ax = axes[0, 0]
    ends = {}
    for path, colour in zip(paths, style.colours(paths), strict=True):
        counts = ([dense.get(path, math.nan)] if dense else []) + [s["nonzeros"].get(path, math.nan) for s in stages]
        positive = [finite(c) if c else math.nan for c in counts]
        ax.plot(range(len(names)), positive, "o-", color=colour, markersize=4, linewidth=1.4)
        ends[path] = (positive[-1], colour, counts[-1])
    ax.set_yscale("log")
    ax.set_xticks(range(len(names)), names)
    ax.set_xlim(-0.15, len(names) - 1 + 0.15)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.0f}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_ylabel("non-zero weights")
    _end_labels(ax, {f"{path} {n:,}": (y, c) for path, (y, c, n) in ends.items()})
    return figure


@styled
def residuals(metrics: Sequence[Record]) -> Figure | None:
    """Relative primal and dual residuals of ADMM per leaf, log y, over the steps of the whole run."""
    steps, groups = timeline(metrics)
    rows = [(step, r) for step, r in zip(steps, metrics, strict=True) if r.get("primal")]
    if not rows:
        return None
    paths = list(dict.fromkeys(path for _, r in rows for path in r["primal"]))
    figure, axes = new_figure(7.6, 4.4, rows=2, sharex=True)
    for ax, key, title in (
        (axes[0, 0], "primal", "primal: ‖W − Z‖ / ‖W‖"),
        (axes[1, 0], "dual", "dual: ‖Z⁺ − Z‖ / ‖U‖"),
    ):
        _shade(ax, groups, labels=key == "primal")
        for path, colour in zip(paths, style.colours(paths), strict=True):
            x, y, phase = [], [], None
            for step, r in rows:
                if r["phase"] != phase:  # no line across the phases between
                    x.append(math.nan)
                    y.append(math.nan)
                    phase = r["phase"]
                value = finite((r.get(key) or {}).get(path))
                x.append(float(step))
                y.append(value if value > 0 else math.nan)
            ax.plot(x, y, ".-", color=colour, markersize=3, linewidth=1.1, label=path)
        if any(finite(v) > 0 for _, r in rows for v in (r.get(key) or {}).values()):
            ax.set_yscale("log")
        ax.set_title(title)
    axes[1, 0].set_xlabel("step")
    axes[1, 0].xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", fontsize=8, frameon=False)
    return figure


STREAMS = {"values": BLUE, "positions": ORANGE, "codebook": GREEN, "codebooks": GREEN}


@styled
def bytes_by_stream(item: Record) -> Figure | None:
    """Bytes of one file: a stacked bar per leaf, and one for the header."""
    streams: Mapping[str, Mapping[str, float]] = item.get("streams") or {}
    if not streams:
        return None
    names = [*streams, "header"]
    kinds = list(dict.fromkeys(kind for leaf in streams.values() for kind in leaf))
    figure, axes = new_figure(7.6, 0.9 + 0.27 * len(names))
    ax = axes[0, 0]
    left = np.zeros(len(names))
    spare = iter((PURPLE, SKY, YELLOW, RED))
    for kind in kinds:
        width = np.array([streams.get(name, {}).get(kind, 0) / 8 for name in names])
        if width.any():
            ax.barh(names, width, left=left, height=0.68, color=STREAMS.get(kind) or next(spare, GREY), label=kind)
        left = left + width
    header = np.array([0.0] * len(streams) + [item.get("header_bits", 0) / 8])
    ax.barh(names, header, height=0.68, color=GREY, label="header")
    for i, total in enumerate(left + header):
        text = f"{total:,.0f}" if total >= 10 else f"{total:,.1f}"
        ax.annotate(text, (total, i), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    ax.invert_yaxis()
    ax.margins(x=0.09)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("bytes")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    style.legend(ax, loc="best")
    return figure


@styled
def weight_histograms(report: Record) -> Figure | None:
    """Weights of each kernel before (grey) and the surviving non-zeros after (blue), log counts."""
    histograms = report.get("histograms") or {}
    if not histograms:
        return None
    columns = min(len(histograms), 2)
    rows = -(-len(histograms) // columns)
    figure, axes = new_figure(7.6, 0.4 + 1.75 * rows, rows=rows, columns=columns)
    for ax, (path, h) in zip(axes.flat, histograms.items(), strict=False):
        edges = np.asarray(h["edges"], float)
        ax.stairs(h["dense"], edges, fill=True, color="#c9cdd4", label="before", baseline=0.5)
        ax.stairs(h["compressed"], edges, fill=True, color=BLUE, alpha=0.85, label="after (non-zeros)", baseline=0.5)
        ax.set_yscale("log")
        ax.set_ylim(0.5, 2.0 * max(max(h["dense"], default=1), max(h["compressed"], default=1), 1))
        ax.set_title(f"{path}   {sum(h['dense']):,} → {sum(h['compressed']):,}")
        ax.yaxis.set_major_locator(LogLocator(numticks=5))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.grid(visible=False, axis="x")
    for ax in list(axes.flat)[len(histograms) :]:
        ax.set_visible(False)
    for ax in axes[:, 0]:
        ax.set_ylabel("weights per bin")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=2, fontsize=8, frameon=False)
    return figure


PHASES = {"admm": BLUE, "gradual_magnitude": ORANGE, "retrain": GREEN, "freeze": PURPLE, "tune": RED}


@styled
def validation_accuracy(metrics: Sequence[Record]) -> Figure | None:
    """Validation accuracy over the steps of the whole run.

    The axis is logarithmic in the error, so that the first epochs and the last tenths of a point are both visible.
    """
    steps, groups = timeline(metrics)
    rows = [(s, r["phase"], finite(r.get("validation_accuracy"))) for s, r in zip(steps, metrics, strict=True)]
    rows = [row for row in rows if math.isfinite(row[2])]
    if not rows:
        return None
    errors = [1.0 - a for _, _, a in rows if a < 1.0] or [0.01]
    floor = min(errors) / 2  # where a perfect score is drawn
    figure, axes = new_figure(7.6, 3.3)
    ax = axes[0, 0]
    _shade(ax, groups)
    seen: set[str] = set()
    for phase in dict.fromkeys(phase for _, phase, _ in rows):
        kind = phase.split("/")[-1] if phase.split("/")[-1] in PHASES else "dense training"
        colour = PHASES.get(kind, GREY)
        points = [(step, max(1.0 - a, floor)) for step, name, a in rows if name == phase]
        label = "_nolegend_" if kind in seen else kind.replace("_", " ").replace("admm", "ADMM")
        seen.add(kind)
        ax.plot(*zip(*points, strict=True), ".-", color=colour, markersize=3, linewidth=1.2, label=label)
    ax.set_yscale("log")
    ax.set_ylim(max(errors) * 1.3, floor / 1.15)
    levels = [0.9, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001]
    ax.yaxis.set_major_locator(FixedLocator([e for e in levels if floor / 1.15 < e < max(errors) * 1.3]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda e, _: f"{100 * (1 - e):.6g} %"))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    ax.set_xlabel("step")
    ax.set_ylabel("validation accuracy")
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return figure


def timeline(metrics: Sequence[Record]) -> tuple[list[int], list[tuple[str, int, int]]]:
    """Steps counted over the whole run, and its groups of phases (the name before ``/``) as (name, begin, end).

    Steps that start again at zero in each phase are laid end to end; steps that already count on are left alone.

    >>> timeline([{"phase": "a/x", "step": 0}, {"phase": "a/x", "step": 5}, {"phase": "b", "step": 0}])
    ([0, 5, 5], [('a', 0, 5), ('b', 5, 5)])
    """
    out: list[int] = []
    groups: list[tuple[str, int, int]] = []
    offset, last, phase = 0, 0, None
    for r in metrics:
        if r["phase"] != phase and r["step"] < last:
            offset += last
        phase, last = r["phase"], r["step"]
        out.append(offset + last)
        name = str(phase).split("/")[0]
        if groups and groups[-1][0] == name:
            groups[-1] = (name, groups[-1][1], out[-1])
        else:
            groups.append((name, groups[-1][2] if groups else out[-1], out[-1]))
    return out, groups


def _shade(ax: Axes, groups: Sequence[tuple[str, int, int]], *, labels: bool = True) -> None:
    """Alternating bands, one per group of phases, with its name."""
    total = max((end for _, _, end in groups), default=0) or 1
    for i, (name, begin, end) in enumerate(groups):
        if i % 2:
            ax.axvspan(begin, end, color="#f3f5f8", zorder=0, linewidth=0)
        if labels and end - begin > 0.025 * total:
            # A narrow band's name stands upright at its lower left, where falling curves have not arrived yet.
            wide = (end - begin) / total > 0.012 * len(name) + 0.02
            ax.annotate(
                name,
                xy=((begin + end) / 2 if wide else begin, 1.0 if wide else 0.0),
                xycoords=("data", "axes fraction"),
                xytext=(0 if wide else 3, -3 if wide else 4),
                textcoords="offset points",
                ha="center" if wide else "left",
                va="top" if wide else "bottom",
                rotation=0 if wide else 90,
                annotation_clip=True,
                fontsize=7,
                color="#7a808a",
            )
    ax.grid(visible=False, axis="x")
    ax.margins(x=0.01)


def _end_labels(ax: Axes, ends: Mapping[str, tuple[float, str]]) -> None:
    """Names lines at their right end, pushed apart where they would overlap (y is logarithmic)."""
    ax.figure.draw_without_rendering()  # type: ignore[union-attr]
    low, high = (math.log(v) for v in ax.get_ylim())
    gap = 0.075
    shown = sorted((label for label, (y, _) in ends.items() if y > 0), key=lambda label: ends[label][0])
    places: list[float] = []
    for label in shown:
        wanted = (math.log(ends[label][0]) - low) / (high - low)
        places.append(max(wanted, places[-1] + gap) if places else wanted)
    for label, place in zip(shown, places, strict=True):
        ax.annotate(label, (1.01, place), xycoords="axes fraction", va="center", fontsize=8, color=ends[label][1])
