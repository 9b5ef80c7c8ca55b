"""Breaks runs, files and configurations on purpose, and counts what comes of it.

    python -m experiments.faults --out=results/faults.json

Whatever is fed or done, there is either the right result or one `ValueError` in one sentence: never another error,
another result, a lost record or half a file.  --parts chooses kinds of faults; a part that --out holds already is kept,
so that the same command again continues.  docs/faults.md says what each does.
"""

import json
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments.launch import refuse_arguments

PARTS = ("values", "overrides", "artefacts", "texts", "checkpoints", "disks", "clocks", "writers", "kills", "sigterm")
COLUMNS = ("tried", "right", "refused", "lost", "repeated", "silent")


def run(part: str, folder: Path, *, cases: int, kills: int, seed: int = 0) -> list[dict[str, Any]]:
    """One kind of fault.

    Args:
      part: One of `PARTS`.
      folder: An empty one, to write in.
      cases: Of configurations and of files each; a hundredth of them of what takes a second each.
      kills: Of every program.
      seed: Of everything that is drawn.

    Returns:
      Records of `experiments.fault_tally.Tally`.

    Raises:
      ValueError: If there is no such part.
    """
    from experiments import fault_configs, fault_files, fault_kills, fault_workdirs

    few = max(1, cases // 100)

    def killed(kind: signal.Signals, times: int) -> list[Any]:
        return [fault_kills.campaign(p, folder, kills=times, seed=seed, kind=kind) for p in fault_kills.PROGRAMS]

    parts: dict[str, Callable[[], Sequence[Any]]] = {
        "values": lambda: [fault_configs.values(cases, seed)],
        "overrides": lambda: [fault_configs.overrides(cases, seed)],
        "artefacts": lambda: fault_files.artefacts(cases, seed),
        "texts": lambda: [fault_files.texts(folder, cases, seed)],
        "checkpoints": lambda: [fault_files.checkpoints(folder, few, seed)],
        "disks": lambda: [fault_workdirs.disks(folder, few, seed)],
        "clocks": lambda: [fault_workdirs.clocks(folder, few, seed)],
        "writers": lambda: [fault_workdirs.writers(folder, few)],
        "kills": lambda: killed(signal.SIGKILL, kills),
        "sigterm": lambda: killed(signal.SIGTERM, max(1, kills // 10)),
    }
    if part not in parts:
        raise ValueError(f"--parts names {part!r}; choose from {', '.join(PARTS)}.")
    return [tally.record() for tally in parts[part]()]


def table(records: Sequence[dict[str, Any]]) -> str:
    """The records as a Markdown table.

    >>> print(
    ...     table(
    ...         [
    ...             {
    ...                 "fault": "flip",
    ...                 "tried": 2,
    ...                 "right": 0,
    ...                 "refused": 2,
    ...                 "lost": 0,
    ...                 "repeated": 0,
    ...                 "silent": 0,
    ...                 "errors": {"ValueError": 2},
    ...             }
    ...         ]
    ...     )
    ... )
    | fault | tried | right | refused | lost | repeated | silent | errors |
    | --- | --- | --- | --- | --- | --- | --- | --- |
    | flip | 2 | 0 | 2 | 0 | 0 | 0 | ValueError 2 |
    """
    rows = [["fault", *COLUMNS, "errors"], ["---"] * (len(COLUMNS) + 2)]
    for record in records:
        errors = ", ".join(f"{name} {count:,}" for name, count in record["errors"].items())
        rows.append([record["fault"], *(f"{record[name]:,}" for name in COLUMNS), errors or "none"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(argv: list[str]) -> None:
    """Flag shell around `run`."""
    refuse_arguments(argv)
    from experiments.workdir import write_atomic

    given, out = flags.FLAGS, Path(flags.FLAGS.out)
    try:
        known: dict[str, Any] = json.loads(out.read_text())["parts"] if out.exists() else {}
        for part in given.parts:
            if part not in known:
                with tempfile.TemporaryDirectory() as folder:
                    settings = {"cases": given.cases, "kills": given.kills, "seed": given.seed}
                    known[part] = {**settings, "records": run(part, Path(folder), **settings)}
                out.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(out, (json.dumps({"parts": known}, indent=1) + "\n").encode())
    except (ValueError, KeyError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    records = [record for part in PARTS if part in known for record in known[part]["records"]]
    print(table(records))
    for record in records:
        for flaw in record["flaws"]:
            print(f"{record['fault']}: {flaw}")
    if any(record["flaws"] or record["lost"] or record["repeated"] or record["silent"] for record in records):
        sys.exit(1)


if __name__ == "__main__":
    flags.DEFINE_string("out", "results/faults.json", "File for the counts.")
    flags.DEFINE_list("parts", list(PARTS), "Kinds of faults.")
    flags.register_validator("parts", lambda parts: set(parts) <= set(PARTS), f"choose from {', '.join(PARTS)}")
    flags.DEFINE_integer("cases", 10_000, "Wrong configurations, and damaged files, of each kind.", lower_bound=1)
    flags.DEFINE_integer("kills", 25, "Kills of every program.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of everything that is drawn.")
    app.run(main)
