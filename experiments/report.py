"""Turns a run directory into one self-contained page, ``report.html``: no script, no font, no image from elsewhere.

    python -m experiments.report --workdir=runs/digits_admm [--control=runs/digits_control]

Headline numbers first, then the tables, then the plots.  Every figure comes from ``report.json`` and ``metrics.jsonl``;
what a run did not do is left out, and a missing control is said to be missing.
"""

import base64
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import app, flags

from experiments.launch import refuse_arguments
from experiments.text import bits, count, duration, number, percent, size, times

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = Mapping[str, Any]
Column = tuple[str, Callable[[Record], str]]

CSS = """
:root { color-scheme: light; --ink: #22262d; --soft: #6b7280; --line: #e5e7eb; --accent: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 2.2rem 1.4rem 4rem; color: var(--ink); background: #fff;
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; letter-spacing: -0.01em; }
h2 { font-size: 1.05rem; margin: 2.6rem 0 0.6rem; }
p { margin: 0.5rem 0; } .soft { color: var(--soft); font-size: 0.9rem; }
.cards { display: flex; flex-wrap: wrap; gap: 0.7rem; margin: 1.3rem 0 0; }
.card { flex: 1 1 7.8rem; border: 1px solid var(--line); border-radius: 8px; padding: 0.7rem 0.9rem; }
.card b { display: block; font-size: 1.45rem; line-height: 1.25; font-weight: 650; font-variant-numeric: tabular-nums; }
.card span { display: block; color: var(--soft); font-size: 0.8rem; line-height: 1.35; }
.card.first b { color: var(--accent); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.83rem; font-variant-numeric: tabular-nums; }
th { text-align: right; font-weight: 600; color: var(--soft); vertical-align: bottom; }
th, td { padding: 0.32rem 0.5rem; border-bottom: 1px solid var(--line); }
td { text-align: right; white-space: nowrap; } td.text { white-space: normal; }
th.text, td.text { text-align: left; }
figure { margin: 0; } figure img { width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: 0.85rem; margin-top: 0.2rem; }
details { margin-top: 2.6rem; } summary { cursor: pointer; color: var(--soft); }
pre { background: #f7f8fa; border-radius: 6px; padding: 0.9rem; overflow-x: auto; font-size: 0.78rem; }
@media print { body { max-width: none; padding: 0; } figure, table { break-inside: avoid; } }
"""


def write_html(workdir: str | os.PathLike[str], control: str | os.PathLike[str] | None = None) -> Path:
    """Writes ``report.html`` into a finished run's directory.

    Args:
      workdir: Directory that holds ``report.json`` and, if the plots over steps are wanted, ``metrics.jsonl``.
      control: Directory of a control run, whose stages are drawn and listed beside this run's; by default the
        control that this run made itself (``--config.control``), if any.

    Returns:
      Path of the page.

    Raises:
      ValueError: If the run has not finished, or one of its files is not what it should be.
    """
    from experiments.workdir import write_atomic

    path = Path(workdir)
    metrics = read_metrics(path)
    report = read_report(path, metrics)
    stages = read_report(Path(control), read_metrics(Path(control)))["stages"] if control else report["control"]
    page = path / "report.html"
    try:
        write_atomic(page, html(report, metrics, stages).encode())
    except KeyError as error:
        raise ValueError(f"{path / 'report.json'} has no entry {error}: it is not the report of a run.") from error
    except (TypeError, AttributeError, IndexError, ArithmeticError) as error:
        raise ValueError(
            f"{path / 'report.json'} holds something else than the report of a run ({error}); remove it and run the "
            "same command again."
        ) from error
    except OSError as error:
        raise ValueError(f"{page} cannot be written: {error.strerror}.") from error
    return page


def read_report(path: Path, metrics: Sequence[Record] = ()) -> dict[str, Any]:
    """``report.json`` of a run directory, or a sentence that says how far the run is."""
    from experiments import workdir

    file = path / "report.json"
    if not file.exists():
        if metrics:
            last = metrics[-1]
            raise ValueError(
                f"The run in {path} has not finished: its last record is step {last['step']} of {last['phase']}. "
                "Run the same command again to resume it; the report is written at the end."
            )
        raise ValueError(f"{path} holds no report.json and no metrics.jsonl: it is not the directory of a run.")
    return {"stages": [], "control": [], "quantized": [], "histograms": {}, **workdir.read_report(path)}


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """``metrics.jsonl`` of a run directory; empty if there is none."""
    from experiments import workdir

    return workdir.read_metrics(path)


def html(report: Record, metrics: Sequence[Record] = (), control: Sequence[Record] = ()) -> str:
    """The page as text.

    Args:
      report: Contents of ``report.json``.
      metrics: Records of ``metrics.jsonl``.
      control: Stages of the control run.

    Returns:
      One HTML document.
    """
    config = report.get("config") or {}
    model, dataset = str(config.get("model", "network")), str(report.get("dataset", ""))
    title = f"{model} on {dataset}" if dataset else model
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{summary(report)}</p>",
        f'<p class="soft">{circumstances(report)}</p>',
        cards(report),
        *_tables(report, control),
        *_plots(report, metrics, control),
        "<details><summary>Configuration</summary>",
        f"<pre>{escape(json.dumps(config, indent=2))}</pre></details>",
    ]
    return page(title, body)


def page(title: str, body: Sequence[str]) -> str:
    """A self-contained HTML document in the house style."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def picture(title: str, figure: "Figure | None", caption: str) -> list[str]:
    """A titled figure, embedded; nothing for None."""
    from experiments import style

    if figure is None:
        return []
    data = base64.b64encode(style.render(figure)).decode()
    return [
        f'<h2>{escape(title)}</h2><figure><img alt="{escape(title)}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    ]


def summary(report: Record) -> str:
    """One sentence: what became what."""
    dense, quantized, stages = report["dense"], report["quantized"], report["stages"]
    was = f"A network of {dense['parameters']:,} parameters ({size(4 * dense['parameters'])} as float32)"
    if quantized:
        best = quantized[-1]
        return (
            f"{was} became a file of {best['bytes']:,} bytes. The network read back from that file classifies "
            f"{percent(best['test_accuracy'])} of the test images; the dense one {percent(dense['test_accuracy'])}."
        )
    if stages:
        best = stages[-1]
        return (
            f"{was} was pruned from {dense['weights']:,} to {best['weights']:,} weights. It classifies "
            f"{percent(best['test_accuracy'])} of the test images; the dense one {percent(dense['test_accuracy'])}."
        )
    accuracy = percent(dense["test_accuracy"])
    return f"{was} was trained; nothing was compressed. It classifies {accuracy} of the test images."


def circumstances(report: Record) -> str:
    """What the numbers rest on: seed, time, split."""
    parts = [f"One run, seed {report.get('seed', 0)}"]
    if report.get("seconds"):
        parts.append(f"{duration(report['seconds'])} of training")
    parts.append("every choice made on the validation split, the test split read once at the end")
    return escape(", ".join(parts)) + "."


def cards(report: Record) -> str:
    """The headline numbers."""
    dense, quantized, stages = report["dense"], report["quantized"], report["stages"]
    shown: list[tuple[str, str]] = []
    if quantized:
        best = quantized[-1]
        shown = [
            (percent(best["test_accuracy"]), "test accuracy of the reloaded file"),
            (times(best["ratio_file"]), "smaller, everything in the file counted"),
            (times(best["ratio_data"]), "smaller, weight values only"),
            (f"{best['bytes']:,}", "bytes in the file"),
            (f"{best['weights']:,}", f"non-zero weights of {dense['weights']:,}"),
        ]
    elif stages:
        best = stages[-1]
        shown = [
            (percent(best["test_accuracy"]), "test accuracy after pruning"),
            (times(best["ratio"]), "fewer weights"),
            (f"{best['weights']:,}", f"non-zero weights of {dense['weights']:,}"),
        ]
    shown.append((percent(dense["test_accuracy"]), f"dense baseline, {size(4 * dense['parameters'])}"))
    items = [
        f'<div class="card{" first" if i == 0 else ""}"><b>{escape(value)}</b><span>{escape(label)}</span></div>'
        for i, (value, label) in enumerate(shown)
    ]
    return f'<div class="cards">{"".join(items)}</div>'


def table(columns: Sequence[Column], rows: Sequence[Record], text: Sequence[str] = ()) -> str:
    """An HTML table without the columns that are empty in every row; `text` names the left-aligned ones."""
    shown = [(name, cell) for name, cell in columns if any(cell(row) not in ("", "–") for row in rows)]
    kind = {name: ' class="text"' if name in text else "" for name, _ in shown}
    head = "".join(f"<th{kind[name]}>{escape(name)}</th>" for name, _ in shown)
    body = "\n".join(
        "<tr>" + "".join(f"<td{kind[name]}>{escape(cell(row))}</td>" for name, cell in shown) + "</tr>" for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


METHODS = {"admm": "ADMM", "gradual_magnitude": "gradual magnitude (control)"}
STAGES: tuple[Column, ...] = (
    ("stage", lambda r: str(r.get("name", ""))),
    ("method", lambda r: METHODS.get(r.get("solver", ""), str(r.get("solver", "")))),
    ("weights", lambda r: count(r.get("weights"))),
    ("ratio", lambda r: times(r.get("ratio"))),
    ("test", lambda r: percent(r.get("test_accuracy"))),
    ("validation", lambda r: percent(r.get("validation_accuracy"))),
    ("validation before retraining", lambda r: percent(r.get("projected_validation_accuracy"))),
    ("units per layer", lambda r: "–".join(str(w) for w in r.get("widths") or ())),
    ("MACs", lambda r: count(r.get("macs"))),
    ("ms, batch 1", lambda r: number(r.get("milliseconds"))),
    ("epochs", lambda r: number(r.get("epochs"))),
    ("published", lambda r: str(r.get("published") or "")),
)
FILES: tuple[Column, ...] = (
    ("file", lambda r: str(r.get("file", ""))),
    ("bits per weight", lambda r: bits(r.get("bits") or {})),
    ("weights", lambda r: count(r.get("weights"))),
    ("bytes", lambda r: count(r.get("bytes"))),
    ("test, reloaded", lambda r: percent(r.get("test_accuracy"))),
    ("validation", lambda r: percent(r.get("validation_accuracy"))),
    ("ratio, values only", lambda r: times(r.get("ratio_data"))),
    ("values and biases", lambda r: times(r.get("ratio_data_with_biases"))),
    ("whole file, no biases", lambda r: times(r.get("ratio_file_without_biases"))),
    ("ratio, whole file", lambda r: times(r.get("ratio_file"))),
    ("ms, batch 1", lambda r: number(r.get("milliseconds"))),
    ("published", lambda r: str(r.get("published") or "")),
)


def _tables(report: Record, control: Sequence[Record]) -> list[str]:
    out = []
    if report["stages"]:
        first = {"name": "dense", "ratio": 1.0, **report["dense"]}
        rows = [*report["stages"], *control]
        solvers = list(dict.fromkeys(str(row.get("solver")) for row in rows))
        title, columns = "Stages", STAGES
        if len(solvers) == 1:  # one word in the title instead of a column of it
            title = f"Stages: {METHODS.get(solvers[0], solvers[0])}"
            columns = tuple(column for column in STAGES if column[0] != "method")
        out += [f"<h2>{escape(title)}</h2>", table(columns, [first, *rows], ("stage", "method", "published"))]
        notes = (
            "MACs are counted on the remaining units with dense arithmetic; milliseconds are measured on this machine."
        )
        if "gradual_magnitude" not in solvers:
            notes += (
                " The control (gradual magnitude pruning at the same epochs) is not part of this run: "
                "repeat it with --config.control=True in another workdir."
            )
        out.append(f'<p class="soft">{escape(notes)}</p>')
    if report["quantized"]:
        out += ["<h2>Files</h2>", table(FILES, report["quantized"], ("file", "published"))]
        notes = (
            "Values only: 32 bits per original weight over the bits of the surviving values, as in the publications. "
            "Whole file: all original parameters, biases included, as float32 over every byte of the file."
        )
        out.append(f'<p class="soft">{escape(notes)}</p>')
    return out


def _plots(report: Record, metrics: Sequence[Record], control: Sequence[Record]) -> list[str]:
    from experiments import plots
    from experiments.published import published

    config = report.get("config") or {}
    known = report.get("published") or published(str(report.get("dataset")), str(config.get("model")))
    out: list[str] = []

    def add(title: str, figure: "Figure | None", caption: str) -> None:
        out.extend(picture(title, figure, caption))

    add(
        "Accuracy against ratio",
        plots.accuracy_against_ratio(report, control, known),
        "Test accuracy of each stage and each reloaded file." + _sources(known, bool(report["quantized"])),
    )
    add("Weights kept in each layer", plots.keep_counts(report), "Non-zero weights of each kernel after each stage.")
    if report["quantized"]:
        item = report["quantized"][-1]
        add(f"Bytes of {item['file']}", plots.bytes_by_stream(item), "Where the bytes of the smallest file go.")
    add("Weights before and after", plots.weight_histograms(report), "Dense network and final network; log counts.")
    add(
        "Validation accuracy",
        plots.validation_accuracy(metrics),
        "The axis is logarithmic in the error: the last tenths of a point have as much room as the first tens.",
    )
    add(
        "ADMM residuals",
        plots.residuals(metrics),
        "Relative residuals at the last refresh of Z and U. Both small: the weights have met their constraint.",
    )
    return out


def _sources(known: Sequence[Record], files: bool) -> str:
    """Whose the published figures in the plot are."""
    shown = [p for p in known if files or p.get("kind") == "pruning"]
    if not shown:
        return ""
    listed = "; ".join(f"{p['ratio']:,.5g}× {p['label']}" for p in sorted(shown, key=lambda p: p["ratio"]))
    dotted = (
        " A dotted line is a ratio published without its accuracy." if any(not p.get("accuracy") for p in shown) else ""
    )
    return f" Published: {listed}.{dotted}"


def main(argv: list[str]) -> None:
    """Flag shell around `write_html`."""
    refuse_arguments(argv)
    try:
        print(f"Report: {write_html(flags.FLAGS.workdir, flags.FLAGS.control)}")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Directory of a finished run.")
    flags.DEFINE_string("control", None, "Directory of its control run, if there is one.")
    flags.mark_flag_as_required("workdir")
    app.run(main)
