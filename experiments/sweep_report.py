"""The page of a sweep: best trials, Pareto front, sortable table, failures with their reasons.

    python -m experiments.sweep_report --workdir=runs/sweep

It is made from the trials' directories: after a crash, after jobs of another scheduler, or while a sweep is running.
"""

import json
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import app, flags

from experiments import sweep_records
from experiments.launch import refuse_arguments
from experiments.sweep_config import Objective, Sweep, Trial
from experiments.text import count, duration, is_number, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = Mapping[str, Any]
BEST = 5
# Sorts a table by the column whose head is clicked: numbers by value, the rest as text.
SCRIPT = """
document.querySelectorAll("th").forEach((head) => head.addEventListener("click", () => {
  const body = head.closest("table").tBodies[0], column = head.cellIndex, down = head.dataset.down !== "1";
  const key = (row) => { const cell = row.cells[column].textContent, value = parseFloat(cell.replace(/,/g, ""));
    return isNaN(value) ? cell : value; };
  const order = (a, b) => { const x = key(a), y = key(b);
    return typeof x === typeof y ? (x < y ? -1 : x > y ? 1 : 0) : typeof x === "number" ? -1 : 1; };
  head.dataset.down = down ? "1" : "";
  [...body.rows].sort((a, b) => (down ? 1 : -1) * order(a, b)).forEach((row) => body.append(row));
}));
"""


def write(
    workdir: Path,
    sweep: Sweep,
    first: Sequence[Trial] = (),
    lost: Mapping[str, str] | None = None,
    *,
    writer: str = "",
) -> dict[str, Any]:
    """Writes ``trials.jsonl``, ``report.json`` and ``report.html`` of a sweep, finished or not.

    Args:
      workdir: Of the sweep.
      sweep: Its objectives are looked up.
      first: Trials in the order in which they were listed or proposed.
      lost: Ids of trials that were just given up, with the reason; directories do not know that.
      writer: As for `experiments.workdir.write_atomic`: the sweep itself may be running.

    Returns:
      The contents of ``report.json``.
    """
    from experiments.workdir import write_atomic, writing

    rows = sweep_records.collect(workdir, sweep.objectives, first)
    for row in rows:
        if lost and row["id"] in lost:
            row |= {"status": "lost", "reason": lost[row["id"]]}
    report = summarize(rows, sweep.objectives)
    with writing(workdir):
        write_atomic(workdir / sweep_records.TABLE, sweep_records.encode(rows), writer=writer)
        write_atomic(workdir / "report.json", json.dumps(report, indent=1).encode(), writer=writer)
        write_atomic(workdir / "report.html", html(report, rows, sweep.objectives).encode(), writer=writer)
    return report


def summarize(rows: Sequence[Record], objectives: Sequence[Objective]) -> dict[str, Any]:
    """Counts by status, the best trials by each objective, and the ids on the Pareto front."""
    shown = list(objectives[:2])
    return {
        "trials": len(rows),
        "status": dict(sorted(Counter(row["status"] for row in rows).items())),
        "attempts": sum(row["attempts"] for row in rows),
        "seconds": sum(row["seconds"] for row in rows if is_number(row["seconds"])),
        "objectives": [{"name": objective.name, "maximize": objective.maximize} for objective in objectives],
        "best": {
            objective.name: [row for row in sweep_records.ranked(rows, [objective]) if _known(row, objective)][:BEST]
            for objective in objectives
        },
        "front": sorted(sweep_records.front(rows, shown)) if len(shown) == 2 else [],
    }


def headline(report: Record) -> str:
    """The few lines a person reads first."""
    counts = ", ".join(f"{n} {status}" for status, n in report["status"].items()) or "none"
    lines = [f"{report['trials']} trials: {counts}"]
    for name, rows in report["best"].items():
        if rows:
            lines.append(f"best {name}: {number(rows[0]['results'][name])} with {described(rows[0])} ({rows[0]['id']})")
    return "\n".join(lines)


def described(row: Record) -> str:
    """What makes a trial different, in one line."""
    return ", ".join(f"{name} {value}" for name, value in row["overrides"].items()) or row["config"]


def html(report: Record, rows: Sequence[Record], objectives: Sequence[Objective]) -> str:
    """The page as text.

    Args:
      report: As from `summarize`.
      rows: The results table.
      objectives: The columns of results.

    Returns:
      One HTML document.
    """
    from experiments.report import page, picture

    programs = sorted({row["program"].rpartition(".")[2] for row in rows})
    title = f"Sweep of {', '.join(programs)}" if programs else "Sweep"
    ended = [row for row in rows if row["reason"]]
    counts = ", ".join(f"{n} {status}" for status, n in report["status"].items())
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{report['trials']} trials: {escape(counts)}.</p>",
        f'<p class="soft">{report["attempts"]} starts, {duration(report["seconds"])} of the programs\' own time.</p>',
        _cards(report),
        *picture("Pareto front", front_figure(rows, objectives), _caption(objectives)),
        *_best(report),
        "<h2>All trials</h2>",
        '<p class="soft">Click on a column\'s head to sort by it.</p>',
        _table(rows, report, objectives),
        *(["<h2>Not finished</h2>", _failures(ended)] if ended else []),
        f"<script>{SCRIPT}</script>",
    ]
    return page(title, body)


def front_figure(rows: Sequence[Record], objectives: Sequence[Objective]) -> "Figure | None":
    """Every trial by its first two objectives, the front joined by a line; None with fewer than two objectives."""
    if len(objectives) < 2:
        return None
    from experiments import style

    first, second = objectives[:2]
    known = [row for row in rows if sweep_records.losses(row, [first, second]) is not None]
    if not known:
        return None
    best = sweep_records.front(known, [first, second])
    return _scatter(style, known, best, first, second)


def _scatter(style: Any, rows: Sequence[Record], best: set[str], first: Objective, second: Objective) -> "Figure":
    def draw() -> "Figure":
        figure, axes = style.new_figure(5.6, 3.8)
        ax = axes[0, 0]
        point = lambda row: (row["results"][first.name], row["results"][second.name])  # noqa: E731
        others = [point(row) for row in rows if row["id"] not in best]
        front = sorted(point(row) for row in rows if row["id"] in best)
        ax.plot([x for x, _ in others], [y for _, y in others], "o", color=style.GREY, markersize=4, alpha=0.6)
        ax.plot([x for x, _ in front], [y for _, y in front], "o-", color=style.BLUE, linewidth=1.2, markersize=5)
        ax.set_xlabel(first.name)
        ax.set_ylabel(second.name)
        return figure

    return style.styled(draw)()


def _caption(objectives: Sequence[Objective]) -> str:
    wanted = " and ".join(f"{'high' if o.maximize else 'low'} {o.name}" for o in objectives[:2])
    return f"Blue: trials that no other one beats in both, {wanted}. Grey: the others."


def _known(row: Record, objective: Objective) -> bool:
    return row["results"].get(objective.name) is not None


def _cards(report: Record) -> str:
    shown = [(count(report["status"].get("finished", 0)), f"of {report['trials']} trials finished")]
    for name, rows in report["best"].items():
        if rows:
            shown.append((number(rows[0]["results"][name]), f"best {name}"))
    items = [
        f'<div class="card{" first" if i == 1 else ""}"><b>{escape(value)}</b><span>{escape(label)}</span></div>'
        for i, (value, label) in enumerate(shown)
    ]
    return f'<div class="cards">{"".join(items)}</div>'


def _best(report: Record) -> list[str]:
    out: list[str] = []
    for name, rows in report["best"].items():
        if rows:
            lines = [f"{number(row['results'][name]):>10}  {_command(row)}" for row in rows]
            out += [f"<h2>Best {escape(name)}</h2>", f"<pre>{escape(chr(10).join(lines))}</pre>"]
    return out


def _command(row: Record) -> str:
    trial = Trial(row["program"], row["config"], row["overrides"])
    return shlex.join(["python", "-m", trial.module, *trial.arguments])


def _table(rows: Sequence[Record], report: Record, objectives: Sequence[Objective]) -> str:
    from experiments.report import Column, table

    names = list(dict.fromkeys(name for row in rows for name in row["overrides"]))

    def override(name: str) -> Column:
        return name, lambda row: f"{row['overrides'].get(name, '')}"

    def result(objective: Objective) -> Column:
        return objective.name, lambda row: _exact(row["results"].get(objective.name))

    several = len({(row["program"], row["config"]) for row in rows}) > 1
    columns: list[Column] = [
        ("trial", lambda row: row["id"]),
        *([("of", lambda row: f"{row['program']} {row['config']}")] if several else []),
        *(override(name) for name in names),
        *(result(objective) for objective in objectives),
        ("front", lambda row: "yes" if row["id"] in report["front"] else ""),
        ("status", lambda row: row["status"]),
        ("starts", lambda row: count(row["attempts"])),
        ("seconds", lambda row: number(row["seconds"])),
    ]
    return table(columns, sweep_records.ranked(rows, objectives), ("trial", "of", "status"))


def _exact(value: Any) -> str:
    return f"{value:.5g}" if is_number(value) else ""


def _failures(rows: Sequence[Record]) -> str:
    from experiments.report import table

    columns = (
        ("trial", lambda row: row["id"]),
        ("with", described),
        ("status", lambda row: row["status"]),
        ("reason", lambda row: row["reason"]),
    )
    return table(columns, rows, ("trial", "with", "status", "reason"))


def objectives_of(workdir: Path) -> tuple[Objective, ...]:
    """The objectives that a sweep's directory was last run with."""
    file = workdir / "config.json"
    try:
        found = json.loads(file.read_text())["objectives"]
        return tuple(Objective(o["name"], tuple(o["path"]), o["maximize"]) for o in found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} cannot be read: {workdir} is not the directory of a sweep.") from error


def main(argv: list[str]) -> None:
    """Flag shell around `write`."""
    refuse_arguments(argv)
    workdir = Path(flags.FLAGS.workdir)
    try:
        print(headline(write(workdir, Sweep(objectives=objectives_of(workdir)), writer="page")))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"Report: {workdir.resolve() / 'report.html'}")


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Directory of a sweep.")
    flags.mark_flag_as_required("workdir")
    app.run(main)
