"""The house style of all plots: colours, axes of ratios and accuracies, published points.

Everything is drawn without a display and without pyplot's global state.
"""

import functools
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

Record = Mapping[str, Any]
P = ParamSpec("P")
T = TypeVar("T")

# Okabe-Ito: distinguishable with every kind of colour vision.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#cc79a7",
    "#56b4e9",
    "#c9b800",
)
GREY = "#8a8f98"
CYCLE = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, GREY)
STYLE: Any = {
    "font.size": 9.0,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": "#3a3f47",
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "xtick.color": "#5a606a",
    "ytick.color": "#5a606a",
    "axes.grid": True,
    "grid.color": "#e8eaee",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "figure.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "compressjax",  # the same records give the same file
}


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Runs a drawing function in the house style, which matplotlib reads from its settings at many moments."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **options: P.kwargs) -> T:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **options)

    return drawn


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, np.ndarray]:
    """An empty figure, sizes in inches; the axes are an array (rows, columns)."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


@styled
def render(figure: Figure, kind: str = "svg", dpi: int = 110) -> bytes:
    """The figure as a file, without the date, so that equal figures give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def finite(value: Any) -> float:
    """The number, or NaN for what is absent or not finite (an ADMM residual is infinite before the first refresh)."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else math.nan


def ratio_axis(ax: Axes, ratios: Iterable[float]) -> None:
    """A logarithmic axis of compression ratios, labelled 10x, 20x, 50x, ..."""
    found = [r for r in ratios if r > 0 and math.isfinite(r)] or [1.0]
    low, high = min(found) / 1.4, max(found) * 1.5
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    few = math.log10(high / low) > 1.7
    ticks = [m * 10.0**e for e in range(-1, 7) for m in ((1, 3) if few else (1, 2, 5)) if low <= m * 10.0**e <= high]
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.4g}×" if x < 1000 else f"{x:,.0f}×"))


def percent_axis(ax: Axes) -> None:
    """Shares shown as per cent on the y axis."""
    low, high = ax.get_ylim()
    digits = 2 if high - low < 0.004 else 1 if high - low < 0.05 else 0
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.{digits}f} %"))


def accuracy_range(ax: Axes, accuracies: Iterable[float]) -> None:
    """Room around the accuracies, never less than half a point, never above 100 %."""
    found = [a for a in accuracies if math.isfinite(a)] or [1.0]
    low, high = min(found), max(found)
    pad = max(0.15 * (high - low), 0.001, (0.005 - (high - low)) / 2)
    ax.set_ylim(low - pad, min(high + pad, 1.0 + 0.02 * (high - low + 2 * pad)))


def dense_line(ax: Axes, accuracy: float, *, text: bool = True) -> None:
    """A dashed line at the dense network's accuracy."""
    ax.axhline(accuracy, color=GREY, linewidth=1.0, linestyle=(0, (5, 3)), zorder=1)
    if not text:
        return
    ax.annotate(
        f"dense {100 * accuracy:.2f} %",
        (0.005, accuracy),
        xycoords=("axes fraction", "data"),
        xytext=(2, 3),
        textcoords="offset points",
        color="#5a606a",
        fontsize=8,
    )


def published_points(ax: Axes, points: Sequence[Record], *, hollow: bool = False, label: str = "published") -> None:
    """Stars at published (ratio, accuracy), each with its ratio; a dotted line where only the ratio was published."""
    unique = {(p["ratio"], p.get("accuracy")) for p in points}
    for i, (ratio, accuracy) in enumerate(sorted(unique, key=lambda point: point[0])):
        text = f"{ratio:,.4g}×" if ratio < 1000 else f"{ratio:,.0f}×"
        if accuracy is None:
            ax.axvline(ratio, color=RED, linewidth=0.9, linestyle=":", zorder=1)
            ax.annotate(
                text,
                (ratio, 0.98),
                xycoords=("data", "axes fraction"),
                xytext=(2, 0),
                textcoords="offset points",
                fontsize=7,
                color=RED,
                va="top",
            )
            continue
        face = "white" if hollow else RED
        ax.plot(ratio, accuracy, "*", color=RED, markersize=9, markerfacecolor=face, label=label, zorder=3)
        label = "_nolegend_"
        # Neighbours such as 71x and 85x take turns above and below.
        above = i % 2
        ax.annotate(
            text,
            (ratio, accuracy),
            xytext=(0, 6 if above else -6),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
            fontsize=7,
            color=RED,
        )


def ratio_panel(ax: Axes, ratios: Sequence[float], points: Sequence[Record], label: str) -> None:
    """Published points, the ratio axis and the legend of a panel that already holds its own points."""
    published_points(ax, [p for p in points if p.get("kind") != "data"], label="published")
    data = [p for p in points if p.get("kind") == "data"]
    published_points(ax, data, hollow=True, label="published, values only")
    ratio_axis(ax, [*ratios, *(p["ratio"] for p in points)])
    ax.set_xlabel(label)
    legend(ax)


def legend(ax: Axes, **options: Any) -> None:
    """A legend where there is room, if anything is labelled."""
    if ax.get_legend_handles_labels()[0]:
        ax.legend(**({"loc": "best"} | options))


def colours(names: Sequence[str]) -> list[str]:
    """One colour per name, in the order of the cycle."""
    return [CYCLE[i % len(CYCLE)] for i in range(len(names))]


def known_accuracies(points: Iterable[Record]) -> list[float]:
    """The accuracies among published figures that state one."""
    return [p["accuracy"] for p in points if p.get("accuracy") is not None]
