"""Generates the README's result tables and figure from the records in ``results/``.

    python -m experiments.results [--check]

A record is a run's ``report.json``, copied as ``results/<config>-seed<k>.json``.  Two suffixes of a config's name have
a meaning: ``_control`` is gradual magnitude pruning at the same epochs, and stands beside every ADMM row;
``_norescale`` is ADMM whose scaled dual is not rescaled when the penalty changes.  The tables go between the two
markers
of the README; with ``--check`` nothing is written, and the exit status is 1 if the README is out of date.
"""

import json
import math
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import app, flags

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
CONTROL, ABLATION = "_control", "_norescale"
NAME = re.compile(r"(?P<config>.+)-seed(?P<seed>\d+)\.json")


@dataclass(frozen=True)
class Record:
    """One run: the name of its configuration, its seed, and its ``report.json``."""

    config: str
    seed: int
    report: Mapping[str, Any]


@dataclass(frozen=True)
class Measure:
    """Mean over seeds, sample standard deviation (None for one seed), number of seeds.

    >>> measure([0.991, 0.993])
    Measure(mean=0.992, std=0.0014142135623730963, n=2)
    """

    mean: float
    std: float | None
    n: int


def _higher(a: Measure | None, b: Measure) -> bool:
    """Whether `a` has the higher mean, by more than the rounding of a sum."""
    return a is not None and a.mean > b.mean + 1e-9


@dataclass(frozen=True)
class StageRow:
    """A pruned network (or the dense one): ADMM beside its control."""

    config: str
    stage: str
    solver: str
    weights: float
    ratio: float
    accuracy: Measure
    control: Measure | None
    control_ratio: float | None
    published: str

    @property
    def control_wins(self) -> bool:
        """Whether the control's mean test accuracy is higher."""
        return _higher(self.control, self.accuracy)


@dataclass(frozen=True)
class FileRow:
    """A quantized network, evaluated after reading its file back."""

    config: str
    name: str
    weights: float
    bytes: float
    ratio_data: float
    ratio_file: float
    accuracy: Measure
    control: Measure | None
    published: str

    @property
    def control_wins(self) -> bool:
        """Whether the control's mean test accuracy is higher."""
        return _higher(self.control, self.accuracy)


@dataclass(frozen=True)
class AblationRow:
    """One stage with the dual rescaled, and without."""

    config: str
    stage: str
    ratio: float
    rescaled: Measure
    plain: Measure
    rescaled_projected: Measure | None
    plain_projected: Measure | None


def load(folder: Path) -> list[Record]:
    """The records of a folder, by config and seed; other JSON files in it are left alone.

    Raises:
      ValueError: If a file is not the report its name promises.
    """
    out = []
    for file in sorted(folder.glob("*.json")):
        match = NAME.fullmatch(file.name)
        if not match:
            continue
        try:
            report = json.loads(file.read_text())
        except ValueError as error:
            raise ValueError(f"{file} is not valid JSON.") from error
        if not isinstance(report, dict) or not {"dense", "stages"} <= report.keys():
            raise ValueError(f"{file} is not the report.json of a run: it has no entries 'dense' and 'stages'.")
        if report.get("seed", int(match["seed"])) != int(match["seed"]):
            raise ValueError(f"{file} holds a run with seed {report['seed']}; rename it or copy the right report.")
        out.append(Record(match["config"], int(match["seed"]), report))
    return sorted(out, key=lambda record: (record.config, record.seed))


def measure(values: Iterable[float]) -> Measure:
    """Mean and sample standard deviation over seeds."""
    found = list(values)
    return Measure(statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else None, len(found))


def stage_rows(records: Sequence[Record]) -> list[StageRow]:
    """One row per config and stage, the dense network first; a control without its ADMM run has rows of its own.

    Args:
      records: In any order.

    Returns:
      Rows by config, in the order of the stages.
    """
    out = []
    for config, runs in _groups(records).items():
        if config.endswith(ABLATION) or _has_base(config, CONTROL, records):
            continue
        dense = [run.report["dense"] for run in runs]
        out.append(
            StageRow(
                config=config,
                stage="dense",
                solver="",
                weights=_mean(dense, "weights"),
                ratio=1.0,
                accuracy=measure(d["test_accuracy"] for d in dense),
                control=None,
                control_ratio=None,
                published="",
            )
        )
        control = _by_name(_groups(records).get(config + CONTROL, ()), "stages")
        for name, stages in _by_name(runs, "stages").items():
            other = control.get(name)
            out.append(
                StageRow(
                    config=config,
                    stage=name,
                    solver=stages[0].get("solver", ""),
                    weights=_mean(stages, "weights"),
                    ratio=_mean(stages, "ratio"),
                    accuracy=measure(s["test_accuracy"] for s in stages),
                    control=measure(s["test_accuracy"] for s in other) if other else None,
                    control_ratio=_mean(other, "ratio") if other else None,
                    published=stages[0].get("published") or "",
                )
            )
    return out


def file_rows(records: Sequence[Record]) -> list[FileRow]:
    """One row per config and quantized file."""
    out = []
    for config, runs in _groups(records).items():
        if config.endswith(ABLATION) or _has_base(config, CONTROL, records):
            continue
        control = _by_name(_groups(records).get(config + CONTROL, ()), "quantized")
        for name, items in _by_name(runs, "quantized").items():
            other = control.get(name)
            out.append(
                FileRow(
                    config=config,
                    name=name,
                    weights=_mean(items, "weights"),
                    bytes=_mean(items, "bytes"),
                    ratio_data=_mean(items, "ratio_data"),
                    ratio_file=_mean(items, "ratio_file"),
                    accuracy=measure(i["test_accuracy"] for i in items),
                    control=measure(i["test_accuracy"] for i in other) if other else None,
                    published=items[0].get("published") or "",
                )
            )
    return out


def ablation_rows(records: Sequence[Record]) -> list[AblationRow]:
    """One row per stage that was run with and without rescaling the dual."""
    out = []
    groups = _groups(records)
    for config, runs in groups.items():
        base = config.removesuffix(ABLATION)
        if base == config or base not in groups:
            continue
        rescaled = _by_name(groups[base], "stages")
        for name, plain in _by_name(runs, "stages").items():
            if name in rescaled:
                out.append(
                    AblationRow(
                        config=base,
                        stage=name,
                        ratio=_mean(rescaled[name], "ratio"),
                        rescaled=measure(s["test_accuracy"] for s in rescaled[name]),
                        plain=measure(s["test_accuracy"] for s in plain),
                        rescaled_projected=_projected(rescaled[name]),
                        plain_projected=_projected(plain),
                    )
                )
    return out


def to_markdown(rows: Sequence[StageRow] | Sequence[FileRow] | Sequence[AblationRow]) -> str:
    """A Markdown table of one kind of rows; empty for no rows.

    Columns in which every cell is empty are left out.
    """
    if not rows:
        return ""
    columns = _COLUMNS[type(rows[0])]
    cells = [[cell(row).replace("|", "\\|") for _, _, cell in columns] for row in rows]
    shown = [i for i in range(len(columns)) if any(line[i] for line in cells)]
    head = "| " + " | ".join(columns[i][0] for i in shown) + " |"
    rule = "| " + " | ".join("---:" if columns[i][1] else "---" for i in shown) + " |"
    return "\n".join([head, rule, *("| " + " | ".join(line[i] for i in shown) + " |" for line in cells)])


def section(records: Sequence[Record]) -> str:
    """Everything between the README's markers, from the records alone."""
    if not records:
        return "No results yet."
    parts = []
    for title, table in (
        ("Pruning", to_markdown(stage_rows(records))),
        ("Files", to_markdown(file_rows(records))),
        ("Ablation: dual rescaled or not", to_markdown(ablation_rows(records))),
    ):
        if table:
            parts.append(f"**{title}**\n\n{table}")
    parts.append(
        "Test accuracy, mean ± sample standard deviation over seeds. The control is gradual magnitude pruning at the "
        "same epochs and learning rates. *Values only* counts 32 bits per original weight against the bits of the "
        "surviving values, as the publications do; *whole file* counts every parameter, biases included, against "
        "every byte of the file."
    )
    return "\n\n".join(parts)


def insert(readme: str, text: str) -> str:
    r"""The README with `text` between its markers.

    Raises:
      ValueError: If the markers are missing, repeated or in the wrong order.

    >>> insert(f"a {BEGIN} old {END} b", "new") == f"a {BEGIN}\n\nnew\n\n{END} b"
    True
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise ValueError(f"The README must hold {BEGIN} and, after it, {END}, once each.")
    before, after = readme.split(BEGIN)[0], readme.split(END)[1]
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def figure(records: Sequence[Record], path: Path) -> Path | None:
    """Draws test accuracy against ratio, one row of panels per data set and network: pruned networks, then files.

    Args:
      records: In any order.
      path: ``.svg`` or ``.png``; its folder is made.

    Returns:
      The path, or None if there is nothing to draw.
    """
    from experiments import plots

    drawn = _draw(records)
    if drawn is None:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(plots.render(drawn, path.suffix.removeprefix("."), dpi=160))
    return path


def _draw(records: Sequence[Record]) -> Any:
    from experiments import plots
    from experiments.published import published

    tasks: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        model = (record.report.get("config") or {}).get("model", "")
        if not record.config.endswith(ABLATION) and (record.report["stages"] or record.report.get("quantized")):
            tasks.setdefault((str(record.report.get("dataset", "")), str(model)), []).append(record)
    if not tasks:
        return None

    @plots.styled
    def draw() -> Any:
        picture, axes = plots.new_figure(9.0, 3.7 * len(tasks), rows=len(tasks), columns=2, sharey="row")
        for (left, right), ((dataset, model), runs) in zip(axes, tasks.items(), strict=True):
            known = published(dataset, model)
            stages = [row for row in stage_rows(runs) if row.stage != "dense"]
            files = file_rows(runs)
            configs = list(dict.fromkeys([*(row.config for row in stages), *(row.config for row in files)]))
            colours = dict(zip(configs, plots.colours(configs), strict=True))
            for config in configs:
                colour, own = colours[config], [row for row in stages if row.config == config]
                _line(left, [(r.ratio, r.accuracy) for r in own], config, colour)
                controlled = [(r.control_ratio or r.ratio, r.control) for r in own if r.control]
                _line(left, controlled, f"{config}, control", colour, hollow=True)
                own_files = [row for row in files if row.config == config]
                _line(right, [(r.ratio_file, r.accuracy) for r in own_files], f"{config}, whole file", colour, "D")
                data = [(r.ratio_data, r.accuracy) for r in own_files]
                _line(right, data, f"{config}, values only", colour, "D", hollow=True)
            dense = measure(run.report["dense"]["test_accuracy"] for run in runs).mean
            found = [m.mean for r in stages for m in (r.accuracy, r.control) if m]
            found += [r.accuracy.mean for r in files]
            plots.accuracy_range(left, [dense, *found, *plots.known_accuracies(known)])
            plots.dense_line(left, dense)
            plots.dense_line(right, dense, text=False)
            plots.percent_axis(left)
            pruning = [p for p in known if p["kind"] == "pruning"]
            ratios = [r for row in stages for r in (row.ratio, row.control_ratio) if r]
            plots.ratio_panel(left, ratios, pruning, "fewer weights")
            sizes = [r for row in files for r in (row.ratio_file, row.ratio_data)]
            others = [p for p in known if p["kind"] != "pruning"] if files else []
            plots.ratio_panel(right, sizes, others, "smaller on disk, against float32")
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


def _groups(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records by config, in the order of names."""
    out: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: (record.config, record.seed)):
        out.setdefault(record.config, []).append(record)
    return out


def _has_base(config: str, suffix: str, records: Sequence[Record]) -> bool:
    base = config.removesuffix(suffix)
    return base != config and any(record.config == base for record in records)


def _by_name(runs: Sequence[Record], key: str) -> dict[str, list[Mapping[str, Any]]]:
    """Stages or files of the same name over the seeds."""
    out: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        for item in run.report.get(key) or ():
            name = item.get("name") or Path(str(item.get("file", ""))).stem
            out.setdefault(name, []).append(item)
    return out


def _mean(items: Sequence[Mapping[str, Any]], key: str) -> float:
    return statistics.fmean(item[key] for item in items)


def _projected(stages: Sequence[Mapping[str, Any]]) -> Measure | None:
    found = [s["projected_validation_accuracy"] for s in stages if s.get("projected_validation_accuracy") is not None]
    return measure(found) if found else None


def _percent(value: Measure | None) -> str:
    if value is None:
        return ""
    return f"{100 * value.mean:.2f} %" if value.std is None else f"{100 * value.mean:.2f} ± {100 * value.std:.2f} %"


def _times(ratio: float) -> str:
    return "1×" if ratio == 1 else f"{ratio:,.0f}×" if ratio >= 100 else f"{ratio:.1f}×"


def _control(row: StageRow | FileRow) -> str:
    if row.control is None:
        return ""
    text = _percent(row.control)
    if row.control.n != row.accuracy.n:
        text += f" (n = {row.control.n})"
    other = getattr(row, "control_ratio", None)
    # After dead units are removed the two may differ by a few weights; more than that is worth saying.
    if other is not None and not math.isclose(other, getattr(row, "ratio", other), rel_tol=0.01):
        text += f" at {_times(other)}"
    return text + (" **control wins**" if row.control_wins else "")


def _method(row: StageRow) -> str:
    return f"{row.stage} (control)" if row.solver == "gradual_magnitude" else row.stage


_Columns = Sequence[tuple[str, bool, Callable[[Any], str]]]  # head, right-aligned, cell
_COLUMNS: Mapping[type, _Columns] = {
    StageRow: (
        ("config", False, lambda r: f"`{r.config}`"),
        ("stage", False, _method),
        ("weights", True, lambda r: f"{r.weights:,.0f}"),
        ("ratio", True, lambda r: _times(r.ratio)),
        ("test accuracy", True, lambda r: _percent(r.accuracy)),
        ("control", True, _control),
        ("seeds", True, lambda r: str(r.accuracy.n)),
        ("published", False, lambda r: r.published),
    ),
    FileRow: (
        ("config", False, lambda r: f"`{r.config}`"),
        ("file", False, lambda r: r.name),
        ("weights", True, lambda r: f"{r.weights:,.0f}"),
        ("bytes", True, lambda r: f"{r.bytes:,.0f}"),
        ("values only", True, lambda r: _times(r.ratio_data)),
        ("whole file", True, lambda r: _times(r.ratio_file)),
        ("test accuracy", True, lambda r: _percent(r.accuracy)),
        ("control", True, _control),
        ("seeds", True, lambda r: str(r.accuracy.n)),
        ("published", False, lambda r: r.published),
    ),
    AblationRow: (
        ("config", False, lambda r: f"`{r.config}`"),
        ("stage", False, lambda r: r.stage),
        ("ratio", True, lambda r: _times(r.ratio)),
        ("rescaled, test", True, lambda r: _percent(r.rescaled)),
        ("not rescaled, test", True, lambda r: _percent(r.plain)),
        ("rescaled, validation before retraining", True, lambda r: _percent(r.rescaled_projected)),
        ("not rescaled, validation before retraining", True, lambda r: _percent(r.plain_projected)),
        ("seeds", True, lambda r: f"{r.rescaled.n} / {r.plain.n}"),
    ),
}


def run(results: Path, readme: Path, picture: Path | None, *, check: bool = False) -> str:
    """Brings the README and the figure up to date, or with `check` only compares.

    Args:
      results: Folder of records.
      readme: File with the markers.
      picture: Figure to draw, or None.
      check: Write nothing.

    Returns:
      One sentence on what was done.

    Raises:
      ValueError: If a file is missing or wrong; with `check`, if the README is out of date.
    """
    from experiments.workdir import write_atomic

    for needed in (results, readme):
        if not needed.exists():
            raise ValueError(f"{needed} does not exist; run this from the repository's root.")
    records = load(results)
    before = readme.read_text()
    after = insert(before, section(records))
    if check:
        if after != before:
            raise ValueError(f"{readme} is out of date with {results}: run python -m experiments.results.")
        return f"{readme} agrees with {len(records)} records."
    write_atomic(readme, after.encode())
    drawn = figure(records, picture) if picture else None
    return f"{readme}: tables from {len(records)} records" + (f"; figure {drawn}." if drawn else ".")


def main(argv: list[str]) -> None:
    """Flag shell around `run`."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {' '.join(argv[1:])}")
    values = flags.FLAGS
    picture = Path(values.figure) if values.figure else None
    try:
        print(run(Path(values.results), Path(values.readme), picture, check=values.check))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    flags.DEFINE_string("results", "results", "Folder of records, <config>-seed<k>.json.")
    flags.DEFINE_string("readme", "README.md", "File whose tables are generated between its markers.")
    flags.DEFINE_string("figure", "docs/images/accuracy_vs_ratio.svg", "Figure to draw (.svg or .png); empty for none.")
    flags.DEFINE_bool("check", False, "Only compare: exit status 1 if the README is out of date.")
    app.run(main)
