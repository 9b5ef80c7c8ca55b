"""Runs many trials of the other programs: here, on a Ray cluster, or as command lines for another scheduler.

    python -m experiments.sweep --config=configs/sweep_digits.py --workdir=runs/sweep
    python -m experiments.sweep --config=configs/sweep_digits.py --workdir=runs/sweep --engine=ray
    python -m experiments.sweep --config=configs/sweep_digits.py --workdir=runs/sweep --engine=print

Every trial has a directory of its own below ``trials/``.  The same command again, with any engine, runs what has not
ended yet, each trial from its last checkpoint; ``trials.jsonl`` and ``report.html`` are made from the directories.
"""

import sys
from collections.abc import Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

if TYPE_CHECKING:
    from experiments.sweep_config import Sweep, Trial
    from experiments.workdir import Workdir


def run(
    config: "Sweep",
    workdir: str | Path,
    *,
    engine: str = "inline",
    ray_address: str = "",
    retry_failed: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Runs (or continues) a sweep and returns its report.

    Args:
      config: What to do; see `experiments.sweep_config.Sweep`.
      workdir: Where; on a cluster a directory that all machines share.
      engine: "inline", "ray" or "print".
      ray_address: Of a running Ray cluster; by default a local one is started and ended.
      retry_failed: Whether trials that failed by themselves are run once more.
      progress: Whether to show a bar (it stays quiet when stderr is not a terminal).

    Returns:
      The contents of ``report.json``: counts by status, the best trials, the front.

    Raises:
      ValueError: On any bad input, in one sentence, before the first trial starts.
    """
    from experiments import schema, sweep_config, sweep_engines, sweep_report, sweep_streams
    from experiments.workdir import Workdir

    sweep_config.check(config)
    opened = sweep_engines.engine(engine, config, ray_address=ray_address)
    with Workdir(workdir, schema.to_dict(config)) as directory:
        stream = sweep_streams.stream(config)
        known: dict[str, Trial] = {}
        lost: dict[str, str] = {}
        with opened as execute:
            while batch := stream.ask():
                again = {trial.id for trial in batch} - known.keys() if retry_failed else set()
                known |= {trial.id: trial for trial in batch}
                order = list(known.values())
                rows = _complete(config, directory, execute, batch, order, again, progress and engine != "print")
                lost |= {row["id"]: row["reason"] for row in rows if row["status"] == "lost"}
                if any(row["status"] not in ("finished", "failed", "stopped") for row in rows):
                    break
                stream.tell(rows)
        return sweep_report.write(directory.path, config, list(known.values()), lost)


def _complete(
    config: "Sweep",
    directory: "Workdir",
    execute: Any,
    batch: "Sequence[Trial]",
    order: "Sequence[Trial]",
    again: "Set[str]",
    progress: bool,
) -> list[dict[str, Any]]:
    """Runs those of a batch that have not ended, or failed and are to run `again`; a row for each of the batch."""
    from tqdm import tqdm

    from experiments import sweep_engines, sweep_records, sweep_trial

    unique = {trial.id: trial for trial in batch}
    for trial in unique.values():
        sweep_trial.check_unchanged(sweep_records.directory_of(directory.path, trial), sweep_engines.resolve(trial))
    for trial in unique.values():
        sweep_trial.prepare(sweep_records.directory_of(directory.path, trial), trial)
    jobs = []
    variables = sweep_trial.environment(config.resources)
    for trial in unique.values():
        where = sweep_records.directory_of(directory.path, trial)
        status = sweep_trial.state(where)[0]
        if trial.id in again and status == sweep_trial.FAILED:
            (where / sweep_trial.ENDED).unlink()
            status = sweep_trial.UNFINISHED
        if status not in (sweep_trial.FINISHED, sweep_trial.FAILED, sweep_trial.STOPPED):
            jobs.append(sweep_trial.Job(trial, str(where), str(Path.cwd()), variables))

    rows = {record["id"]: record for record in sweep_records.collect(directory.path, config.objectives, order)}
    directory.write(sweep_records.TABLE, sweep_records.encode(rows.values()))
    with tqdm(total=len(jobs), desc="trials", disable=not (progress and sys.stderr.isatty())) as bar:
        for outcome in execute(jobs):
            where = sweep_records.directory_of(directory.path, unique[outcome.id])
            record = sweep_records.row(where, config.objectives)
            if outcome.status == sweep_trial.LOST:
                record |= {"status": outcome.status, "reason": outcome.reason}
            rows[outcome.id] = record
            directory.write(sweep_records.TABLE, sweep_records.encode(rows.values()))
            bar.update()
            if progress and bar.disable:
                print(f"{outcome.id}: {outcome.status}" + (f", {outcome.reason}" if outcome.reason else ""), flush=True)
    return [rows[name] for name in unique]


def main(argv: list[str]) -> None:
    """Flag shell around `run`."""
    from experiments import launch, sweep_report

    launch.refuse_arguments(argv)
    if flags.FLAGS.engine == "inline":
        launch.cache_compilations()
    result = run(
        flags.FLAGS.config,
        flags.FLAGS.workdir,
        engine=flags.FLAGS.engine,
        ray_address=flags.FLAGS.ray_address,
        retry_failed=flags.FLAGS.retry_failed,
    )
    # Standard output of --engine=print is a list of commands.
    out = sys.stderr if flags.FLAGS.engine == "print" else sys.stdout
    print(sweep_report.headline(result), file=out)
    print(f"Report: {Path(flags.FLAGS.workdir).resolve() / 'report.html'}", file=out)


if __name__ == "__main__":
    from experiments.launch import launch
    from experiments.sweep_engines import ENGINES

    flags.DEFINE_enum("engine", "inline", ENGINES, "Where the trials run.")
    flags.DEFINE_string("ray_address", "", "A running Ray cluster, e.g. auto or 10.0.0.1:6379; by default a local one.")
    flags.DEFINE_bool("retry_failed", False, "Run trials that failed by themselves once more.")
    launch(main)
