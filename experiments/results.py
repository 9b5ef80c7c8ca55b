"""Generates the README's result tables and figure from the records in ``results/``.

    python -m experiments.results [--check]

A record is a run's ``report.json``, copied as ``results/<config>-seed<k>.json``.  Two suffixes of a config's name have
a meaning: ``_control`` is gradual magnitude pruning at the same epochs, and stands beside every ADMM row;
``_norescale`` is ADMM whose scaled dual is not rescaled when the penalty changes.  The tables go between the two
markers of the README; with ``--check`` nothing is written, and the exit status is 1 if the README is out of date.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments import curve_records, cut_records, study_records
from experiments.launch import refuse_arguments
from experiments.records import (
    AblationRow,
    FileRow,
    Measure,
    Record,
    StageRow,
    ablation_rows,
    file_rows,
    load,
    stage_rows,
)
from experiments.text import times

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


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
    pruned, cut, curves = by_program(records)
    parts = []
    for title, table in (
        ("Pruning", to_markdown(stage_rows(pruned))),
        ("Files", to_markdown(file_rows(pruned))),
        ("Ablation: dual rescaled or not", to_markdown(ablation_rows(pruned))),
        ("Channels", cut_records.to_markdown(cut)),
    ):
        if table:
            parts.append(f"**{title}**\n\n{table}")
    if cut:
        parts.append(
            "Channels are removed, not masked: validation accuracy right after the cut → test accuracy after the short "
            "retraining that the configuration states, mean ± sample standard deviation over seeds; MACs per image, "
            "measured time for a batch."
        )
        if any(record.report.get("config", {}).get("load") == "pretrained" for record in cut):
            parts[-1] += (
                " Pretrained networks were trained on the validation images as well: the accuracy before retraining is "
                "no unseen one there."
            )
    grown = [record for record in curves if curve_records.trained_sparse(record)]
    curves = [record for record in curves if record not in grown]
    if grown:
        parts.append(f"**Ways to a sparse network**\n\n{curve_records.to_markdown(grown)}")
        parts.append(
            "From scratch to the same number of kernel weights, in the same number of epochs where none is named: test "
            "accuracy, mean ± sample standard deviation over seeds."
        )
    if curves:
        parts.append(f"**Pruned without retraining**\n\n{curve_records.to_markdown(curves)}")
        parts.append(
            "Trained from scratch as named, then pruned by magnitude over all kernels together: test accuracy, mean ± "
            "sample standard deviation over seeds; the numbers of each method were chosen on validation images."
        )
    studied = [record for record in records if "schemes" in record.report]
    if studied:
        parts.append(f"**Structured or not**\n\n{study_records.to_markdown(studied)}")
        parts.append(
            "The last rung of each kind's ladder that is within the tolerance, quantized to every number of bits: "
            "bytes of the whole file, in brackets where quantization lost more than the tolerance; speed against the "
            "dense network, measured in packed form."
        )
    if pruned:
        parts.append(_LEGEND)
    return "\n\n".join(parts)


def by_program(records: Sequence[Record]) -> tuple[list[Record], list[Record], list[Record]]:
    """The records of `experiments.compress`, those of `experiments.shrink`, and those of contests."""
    pruned, cut, curves = ([r for r in records if key in r.report] for key in ("stages", "cuts", "curves"))
    return pruned, cut, curves


_LEGEND = (
    "Test accuracy, mean ± sample standard deviation over seeds. The control is gradual magnitude pruning at the "
    "same epochs and learning rates. *Values only* counts 32 bits per original weight against the bits of the "
    "surviving values, as the publications do; *whole file* counts every parameter, biases included, against "
    "every byte of the file."
)


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


def _percent(value: Measure | None) -> str:
    return "" if value is None else value.percent


def _control(row: StageRow | FileRow) -> str:
    if row.control is None:
        return ""
    text = _percent(row.control)
    if row.control.n != row.accuracy.n:
        text += f" (n = {row.control.n})"
    other = getattr(row, "control_ratio", None)
    # After dead units are removed the two may differ by a few weights; more than that is worth saying.
    if other is not None and not math.isclose(other, getattr(row, "ratio", other), rel_tol=0.01):
        text += f" at {times(other)}"
    return text + (" **control wins**" if row.control_wins else "")


def _method(row: StageRow) -> str:
    return f"{row.stage} (control)" if row.solver == "gradual_magnitude" else row.stage


_Columns = Sequence[tuple[str, bool, Callable[[Any], str]]]  # head, right-aligned, cell
_COLUMNS: Mapping[type, _Columns] = {
    StageRow: (
        ("config", False, lambda r: f"`{r.config}`"),
        ("stage", False, _method),
        ("weights", True, lambda r: f"{r.weights:,.0f}"),
        ("ratio", True, lambda r: times(r.ratio)),
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
        ("values only", True, lambda r: times(r.ratio_data)),
        ("whole file", True, lambda r: times(r.ratio_file)),
        ("test accuracy", True, lambda r: _percent(r.accuracy)),
        ("control", True, _control),
        ("seeds", True, lambda r: str(r.accuracy.n)),
        ("published", False, lambda r: r.published),
    ),
    AblationRow: (
        ("config", False, lambda r: f"`{r.config}`"),
        ("stage", False, lambda r: r.stage),
        ("ratio", True, lambda r: times(r.ratio)),
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
    from experiments.picture import figure
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
    drawn = figure(by_program(records)[0], picture) if picture else None
    if picture:
        _draw_crossovers(records, picture)
    return f"{readme}: tables from {len(records)} records" + (f"; figure {drawn}." if drawn else ".")


def _draw_crossovers(records: Sequence[Record], picture: Path) -> None:
    """One figure per storage study, beside the picture, with its suffix."""
    from experiments import style
    from experiments.study_plots import crossover

    for record in records:
        if "schemes" in record.report:
            file = picture.with_name(f"{record.config}{picture.suffix}")
            file.write_bytes(style.render(crossover(record.report), picture.suffix.removeprefix("."), dpi=160))


def main(argv: list[str]) -> None:
    """Flag shell around `run`."""
    refuse_arguments(argv)
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
