"""Tables, plot and calibration from a record of `experiments.bench_kernels`."""

import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

from experiments import style

SPARSE = ("native", "sliced", "segments")


def to_markdown(record: dict[str, Any]) -> str:
    """Speed-ups by pattern and size, what `prepare` makes of them, and whole networks."""
    tables = {"measurements": _forms, "auto": _auto, "channels": _channels, "networks": _networks}
    return "\n\n".join(table(record) for part, table in tables.items() if part in record)


def break_even(curve: Sequence[tuple[float, float]]) -> float | None:
    """The sparsity from which on a form is as fast as dense, interpolated; None if it never is.

    Args:
      curve: (density, speed-up), in any order.

    >>> break_even([(0.5, 0.5), (0.25, 1.0), (0.1, 2.0)])
    0.75
    >>> break_even([(0.5, 0.5), (0.1, 0.9)])
    """
    points = sorted((1 - density, speedup) for density, speedup in curve)
    if points[-1][1] < 1:
        return None
    # From the sparse end: the last crossing is the one that counts.
    for (low, slow), (high, fast) in zip(reversed(points[:-1]), reversed(points[1:]), strict=True):
        if slow < 1:
            share = math.log(1 / slow) / math.log(fast / slow)
            return low + share * (high - low)
    return points[0][0]


def curves(record: dict[str, Any]) -> dict[tuple[Any, ...], list[tuple[float, float]]]:
    """(shape, rows, block, form) -> (density, speed-up) of the sparse forms."""
    out: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for m in record["measurements"]:
        if m["form"] in SPARSE:
            key = (tuple(m["shape"]), m["rows"], tuple(m["block"]), m["form"])
            out.setdefault(key, []).append((m["density"], m["speedup"]))
    return out


def _forms(record: dict[str, Any]) -> str:
    lines = [
        "| weights | rows | block | form | speed-up at sparsity | break-even |",
        "| --- | ---: | --- | --- | --- | ---: |",
    ]
    for (shape, rows, block, form), curve in sorted(curves(record).items()):
        cells = ", ".join(f"{100 * (1 - d):.0f} %: {s:.2f}x" for d, s in sorted(curve, reverse=True))
        even = break_even(curve)
        shown = "never" if even is None else f"{'≤ ' if even == min(1 - d for d, _ in curve) else ''}{100 * even:.0f} %"
        lines.append(f"| {_by(shape)} | {rows} | {_by(block)} | {form} | {cells} | {shown} |")
    return "\n".join(lines)


def _auto(record: dict[str, Any]) -> str:
    lines = ["| choice | products | slowest | below 0.95x | median |", "| --- | ---: | ---: | ---: | ---: |"]
    for name in sorted({row["name"] for row in record["auto"]}):
        # A dense choice is one of the two dense layouts: its ratio is the error of the timing.
        for dense in (False, True):
            rows = [r for r in record["auto"] if r["name"] == name and r["reason"].startswith("dense") == dense]
            speedups = sorted(row["speedup"] for row in rows)
            if speedups:
                what = f"{name}: {'dense' if dense else 'sparse'}"
                slow, middle = sum(s < 0.95 for s in speedups), speedups[len(speedups) // 2]
                lines.append(f"| {what} | {len(speedups)} | {speedups[0]:.2f}x | {slow} | {middle:.2f}x |")
    return "\n".join(lines)


def _channels(record: dict[str, Any]) -> str:
    lines = ["| whole inputs removed | rows | sparsity | speed-up |", "| --- | ---: | ---: | ---: |"]
    lines += [
        f"| {_by(row['shape'])} | {row['rows']} | {100 * (1 - row['density']):.0f} % | {row['speedup']:.2f}x |"
        for row in record["channels"]
    ]
    return "\n".join(lines)


def _networks(record: dict[str, Any]) -> str:
    lines = ["| network, 90 % pruned | batch | block | convolutions | products | packed | speed-up | forms |"]
    lines.append("| --- | ---: | --- | ---: | ---: | ---: | ---: | --- |")
    for row in record["networks"]:
        forms = ", ".join(f"{row['forms'].count(form)} {form}" for form in sorted(set(row["forms"])))
        times = " | ".join(f"{row[f'{kind}_ms']:.1f} ms" for kind in ("convolutions", "unfolded", "packed"))
        lines.append(
            f"| {row['network']} | {row['batch']} | {row['block']} | {times} | {row['speedup']:.2f}x | {forms} |"
        )
    return "\n".join(lines)


def write_calibration(record: dict[str, Any]) -> Path:
    """Makes a record's measurements those that `prepare` goes by; returns the file."""
    import pallas_kernels as pk

    rows = ({**m, "block": tuple(m["block"]), "shape": tuple(m["shape"])} for m in record["measurements"])
    calibration = pk.Calibration(record["device"], tuple(pk.Measurement(**m) for m in rows))
    path = Path(str(files("pallas_kernels").joinpath("calibration_cpu.json")))
    path.write_text(calibration.to_json() + "\n")
    return path


@style.styled
def plot(record: dict[str, Any], path: Path) -> None:
    """Speed-up against sparsity, one panel per product, one line per pattern: the best form with and without C++."""
    panels = sorted({key[:2] for key in curves(record)})
    columns = max(1, len({rows for _, rows in panels}))
    lines = -(-len(panels) // columns)
    figure, axes = style.new_figure(3.6 * columns + 1.4, 3 * lines, lines, columns)
    blocks = sorted({key[2] for key in curves(record)})
    for axis, (shape, rows) in zip(axes.flat, panels, strict=False):
        for block, colour in zip(blocks, style.colours([_by(block) for block in blocks]), strict=True):
            for forms, dashes in ((SPARSE, "-"), (SPARSE[1:], ":")):
                best: dict[float, float] = {}
                for form in forms:
                    for density, speedup in curves(record).get((shape, rows, block, form), []):
                        best[1 - density] = max(best.get(1 - density, 0), speedup)
                label = _by(block) if dashes == "-" else None
                axis.plot(*zip(*sorted(best.items()), strict=True), dashes, color=colour, label=label, marker=".")
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set(title=f"{_by(shape)}, {rows} row{'s' * (rows > 1)}", xlabel="sparsity", yscale="log")
        axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_formatter("{x:g}×")
    for axis in axes[:, 0]:
        axis.set_ylabel("speed-up over dense")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    title = "blocks\nsolid: with C++\ndotted: XLA"
    figure.legend(handles, labels, loc="outside right upper", title=title, title_fontsize=8)
    path.write_bytes(style.render(figure, path.suffix.removeprefix(".")))


def _by(sizes: Sequence[int]) -> str:
    return "x".join(str(size) for size in sizes)
