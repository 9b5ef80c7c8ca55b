"""The README's picture: test accuracy against ratio over all recorded runs, means and deviations over seeds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import style
from experiments.published import published
from experiments.records import ABLATION, Measure, Record, file_rows, measure, stage_rows


def figure(records: Sequence[Record], path: Path) -> Path | None:
    """Draws test accuracy against ratio, one row of panels per data set and network: pruned networks, then files.

    Args:
      records: In any order.
      path: ``.svg`` or ``.png``; its folder is made.

    Returns:
      The path, or None if there is nothing to draw.
    """
    drawn = _draw(records)
    if drawn is None:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(style.render(drawn, path.suffix.removeprefix("."), dpi=160))
    return path


def _draw(records: Sequence[Record]) -> Any:
    tasks: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        model = (record.report.get("config") or {}).get("model", "")
        if not record.config.endswith(ABLATION) and (record.report["stages"] or record.report.get("quantized")):
            tasks.setdefault((str(record.report.get("dataset", "")), str(model)), []).append(record)
    if not tasks:
        return None

    @style.styled
    def draw() -> Any:
        picture, axes = style.new_figure(9.0, 3.7 * len(tasks), rows=len(tasks), columns=2, sharey="row")
        for (left, right), ((dataset, model), runs) in zip(axes, tasks.items(), strict=True):
            known = published(dataset, model)
            stages = [row for row in stage_rows(runs) if row.stage != "dense"]
            files = file_rows(runs)
            configs = list(dict.fromkeys([*(row.config for row in stages), *(row.config for row in files)]))

            def pruned(config: str, stages: Sequence[Any] = stages) -> tuple[tuple[float, Measure], ...]:
                return tuple((row.ratio, row.accuracy) for row in stages if row.config == config)

            colours = dict(zip(configs, style.colours(configs), strict=True))
            for config in configs:
                colour, own = colours[config], [row for row in stages if row.config == config]
                same = [name for name in configs if pruned(name) == pruned(config)]  # other files of the same networks
                if same[0] == config:
                    _line(left, pruned(config), ", ".join(same), colour)
                controlled = [(r.control_ratio or r.ratio, r.control) for r in own if r.control]
                _line(left, controlled, f"{config}, control", colour, hollow=True)
                own_files = [row for row in files if row.config == config]
                _line(right, [(r.ratio_file, r.accuracy) for r in own_files], f"{config}, whole file", colour, "D")
                data = [(r.ratio_data, r.accuracy) for r in own_files]
                _line(right, data, f"{config}, values only", colour, "D", hollow=True)
            dense = measure(run.report["dense"]["test_accuracy"] for run in runs).mean
            found = [m.mean for r in stages for m in (r.accuracy, r.control) if m]
            found += [r.accuracy.mean for r in files]
            style.accuracy_range(left, [dense, *found, *style.known_accuracies(known)])
            style.dense_line(left, dense)
            style.dense_line(right, dense, text=False)
            style.percent_axis(left)
            pruning = [p for p in known if p["kind"] == "pruning"]
            ratios = [r for row in stages for r in (row.ratio, row.control_ratio) if r]
            style.ratio_panel(left, ratios, pruning, "fewer weights")
            sizes = [r for row in files for r in (row.ratio_file, row.ratio_data)]
            others = [p for p in known if p["kind"] != "pruning"] if files else []
            style.ratio_panel(right, sizes, others, "smaller on disk, against float32")
            right.set_visible(bool(files))
            left.set_ylabel("test accuracy")
            left.set_title(f"{model} on {dataset}")
        return picture

    return draw()


def _line(
    ax: Any,
    points: Sequence[tuple[float, Measure]],
    label: str,
    colour: str,
    marker: str = "o",
    *,
    hollow: bool = False,
) -> None:
    """Means with error bars; hollow markers and dashes for what is only compared with."""
    if not points:
        return
    points = sorted(points, key=lambda point: point[0])
    ax.errorbar(
        [ratio for ratio, _ in points],
        [m.mean for _, m in points],
        yerr=[m.std or 0.0 for _, m in points],
        fmt=marker,
        linestyle=":" if marker == "D" else "--" if hollow else "-",
        linewidth=1.2,
        color=colour,
        markerfacecolor="white" if hollow else colour,
        markersize=5,
        elinewidth=0.9,
        capsize=2,
        label=label,
        zorder=4,
    )
