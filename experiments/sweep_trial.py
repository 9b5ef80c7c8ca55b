"""One trial in a process of its own, in a directory that says everything about it.

    trial.json      program, configuration file, overrides
    attempts.jsonl  one line per start: host and time
    trial.log       what the program printed
    report.json     of the program: the trial is finished
    ended.json      otherwise, why it will not be run again: it failed by itself, or it was stopped early

The process dies with the one that waits for it, however that one ends, so that a trial is never run by two machines at
once: it watches its standard input, whose other end only the waiting process holds.

    python -m experiments.sweep_trial MODULE ARGUMENT ...      # what a sweep starts
"""

import fcntl
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from experiments import schema
from experiments.launch import PREEMPTED
from experiments.sweep_config import Resources, Trial
from experiments.workdir import CONFIG, LOCK, REPORT, begun, check_config, write_atomic

TRIAL, ATTEMPTS, LOG, ENDED = "trial.json", "attempts.jsonl", "trial.log", "ended.json"
FINISHED, FAILED, STOPPED, LOST = "finished", "failed", "stopped", "lost"
PREPARED, UNFINISHED = "prepared", "unfinished"


class LostError(Exception):
    """A trial's process did not end by itself: it was killed or asked to stop, or its directory stayed locked."""


@dataclass(frozen=True)
class Job:
    """A trial and where it runs.

    Attributes:
      trial: What.
      directory: Its workdir, absolute.
      root: Working directory of its process, where relative paths of its configuration begin.
      environment: Variables that are set for it.
    """

    trial: Trial
    directory: str
    root: str
    environment: Mapping[str, str]


def prepare(directory: Path, trial: Trial) -> None:
    """Makes a trial's directory, which says what the trial is."""
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / TRIAL).exists():
        write_atomic(directory / TRIAL, json.dumps(asdict(trial), indent=1).encode())


def check_unchanged(directory: Path, config: Any) -> None:
    """Raises `ValueError` if a trial that has begun did so with another configuration: its file was edited since."""
    known = (directory / CONFIG).exists() and is_dataclass(config)  # of all programs here; others may do as they like
    if known and ((directory / REPORT).exists() or begun(directory)):
        check_config(directory, schema.to_dict(config))


def read_trial(directory: Path) -> Trial:
    """The trial that a directory was made for."""
    try:
        found = json.loads((directory / TRIAL).read_text())
        overrides = {name: _tuples(value) for name, value in found["overrides"].items()}
        return Trial(found["program"], found["config"], overrides)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{directory / TRIAL} cannot be read; remove its directory to start the trial again."
        ) from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def state(directory: Path) -> tuple[str, str]:
    """How far a trial is, and why it ended if it did not finish: (status, reason)."""
    if (directory / REPORT).exists():
        return FINISHED, ""
    if (directory / ENDED).exists():
        ended = json.loads((directory / ENDED).read_text())
        return ended["status"], ended["reason"]
    return (UNFINISHED if (directory / ATTEMPTS).exists() else PREPARED), ""


def end(directory: Path, status: str, reason: str) -> None:
    """Notes that a trial will not be run again."""
    write_atomic(directory / ENDED, json.dumps({"status": status, "reason": reason}).encode())


def begin(directory: Path) -> None:
    """Notes that a trial is started."""
    with open(directory / ATTEMPTS, "a") as file:
        file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}) + "\n")


def environment(resources: Resources) -> dict[str, str]:
    """Variables that keep JAX to the devices a trial was given; Ray itself hides the others.

    >>> environment(Resources(cpus=2))
    {'JAX_PLATFORMS': 'cpu'}
    >>> environment(Resources(gpus=0.5))
    {'JAX_PLATFORMS': 'cuda,cpu', 'XLA_PYTHON_CLIENT_MEM_FRACTION': '0.45'}
    """
    if resources.tpus:
        return {"JAX_PLATFORMS": "tpu,cpu"}
    if not resources.gpus:
        return {"JAX_PLATFORMS": "cpu"}
    shared = {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 * resources.gpus:.2g}"} if resources.gpus < 1 else {}
    return {"JAX_PLATFORMS": "cuda,cpu", **shared}


def attempt(job: Job, watch: Callable[[], None] = lambda: None, *, every: float = 0.2, patience: float = 120.0) -> None:
    """Runs a trial to its end, unless it has ended already.

    Args:
      job: The trial.
      watch: Called again and again while it runs.
      every: Seconds between those calls.
      patience: Seconds to wait for another process that is still writing to the directory.

    Raises:
      LostError: If the process was killed: another attempt continues from the trial's last checkpoint.
    """
    directory = Path(job.directory)
    if state(directory)[0] in (FINISHED, FAILED, STOPPED):
        return
    await_writer(directory, patience)
    begin(directory)
    command = [sys.executable, "-m", __name__, job.trial.module, *job.trial.arguments, f"--workdir={directory}"]
    with open(directory / LOG, "ab") as log:
        start = log.tell()
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=job.root,
            env={**os.environ, **job.environment},
        )
        try:
            while process.poll() is None:
                watch()
                try:
                    process.wait(every)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            process.kill()
            process.wait()
            if process.stdin:
                process.stdin.close()
    status = process.returncode
    if (directory / REPORT).exists():
        return
    if status < 0:
        raise LostError(f"killed by {signal.Signals(-status).name}")
    if status == PREEMPTED:
        raise LostError("asked to stop by SIGTERM")
    reason = _reason(directory / LOG, start) or f"exit status {status}"
    end(directory, FAILED, reason if status else f"{job.trial.module} ended without a report.json")


def await_writer(directory: Path, patience: float) -> None:
    """Waits until nobody holds the directory's lock; on a shared file system that may be another machine."""
    deadline = time.monotonic() + patience
    with open(directory / LOCK, "a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise LostError(f"another process has been writing to it for {patience:.0f} seconds") from error
            time.sleep(0.1)


def _reason(log: Path, start: int) -> str:
    """The last error that was printed after `start`, or else the last line."""
    with open(log, "rb") as file:
        file.seek(start)
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or [line.strip() for line in lines] or [""])[-1]


def _die_with_parent() -> None:
    """Ends this process when the other end of standard input is closed."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGKILL)  # as sudden as the end of the machine; the workdir resumes

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Runs the program named by the first argument, with the others as its command line."""
    _die_with_parent()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
