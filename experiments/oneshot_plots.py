"""The curve of `experiments.oneshot` with bits: bytes of the file against accuracy."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from experiments import style


@style.styled
def curve(report: Mapping[str, Any]) -> Figure:
    """Test accuracy, or divergence, over the bytes of the files: a line per method and sparsity, a point per bits."""
    cells = report["cells"]
    worth = "test_accuracy" if "test_accuracy" in cells[0] else "divergence"
    lines: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for cell in cells:
        sparsity, _, _ = cell["pattern"].rpartition(",")
        lines.setdefault((cell["method"], sparsity), []).append((cell["bytes"], cell[worth]))
    methods = list(dict.fromkeys(method for method, _ in lines))
    sparsities = list(dict.fromkeys(sparsity for _, sparsity in lines))
    colours = dict(zip(sparsities, style.colours(sparsities), strict=True))
    looks = dict(zip(methods, ("-", "--", ":", "-."), strict=False))
    figure, axes = style.new_figure(6.4, 3.6, 1, 1)
    ax = axes[0][0]
    for (method, sparsity), points in lines.items():
        sizes, values = zip(*points, strict=True)
        ax.plot(
            sizes,
            values,
            "o",
            linestyle=looks[method],
            color=colours[sparsity],
            markersize=4,
            linewidth=1.3,
            label=f"{method}, {sparsity}{' removed' if '%' in sparsity else ''}",
        )
    if worth in report["dense"] and report["dense"][worth]:
        ax.axhline(report["dense"][worth], color="black", linestyle=":", linewidth=1)
    ax.set_xlabel("bytes of the file")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.set_ylabel(worth.replace("_", " "))
    style.legend(ax)
    return figure
