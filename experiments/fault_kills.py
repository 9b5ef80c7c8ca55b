"""Runs that are killed at random moments, started again until they end, and compared with a run that was left alone.

Part of `experiments.faults`.
"""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.fault_tally import Tally
from experiments.launch import PREEMPTED
from experiments.workdir import read_metrics, read_report

ROOT = Path(__file__).parents[1]
TIMES = {"seconds", "milliseconds"}  # entries that no two runs share
PER_RUN = 5  # kills, after which a run may go on to its end
PATIENCE = 1800.0  # seconds after which a run that was left alone counts as hanging


@dataclass(frozen=True)
class Program:
    """A program and the arguments of a run that takes seconds.

    Attributes:
      name: Of the module in `experiments`.
      arguments: All but the directory.
      workdir: The flag in front of the directory.
    """

    name: str
    arguments: tuple[str, ...] = ()
    workdir: str = "--workdir="

    def command(self, workdir: Path) -> list[str]:
        """What to start."""
        return [sys.executable, "-m", f"experiments.{self.name}", *self.arguments, f"{self.workdir}{workdir}"]


SHORT = (  # several checkpoints within a phase, not only between phases
    "--config.pretrain.epochs=4",
    "--config.checkpoint_every=1",
    "--config.log_every=1",
)
STAND_IN = Program("fault_workdirs", workdir="")  # seconds, nearly all of them to start
PROGRAMS = (
    Program("compress", ("--config=configs/digits_admm.py:tiny", *SHORT)),
    Program("evolve", ("--config=configs/evolve_pruning.py:tiny",)),
)


def campaign(
    program: Program,
    folder: Path,
    *,
    kills: int,
    seed: int = 0,
    kind: signal.Signals = signal.SIGKILL,
    note: Callable[[Tally], None] = lambda _: None,
) -> Tally:
    """Kills runs of a program until there were enough kills and the last run has ended.

    The first run is left alone and is what the others are compared with.  Half of the kills come at a moment drawn from
    the time that it took, half as soon as a checkpoint or a file is being written after such a moment.

    Args:
      program: What to run.
      folder: For the runs; those that ended right are removed.
      kills: How many.
      seed: Of the moments.
      kind: The signal.
      note: Is told how things stand after every run that ended.

    Returns:
      What became of them.
    """
    tally = Tally(f"{kind.name} in {program.name}")
    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / f"{program.name}-whole"
    begin = time.monotonic()
    code, said = left_alone(program, whole)
    if code:
        raise ValueError(f"The undisturbed run of {program.name} failed: {said}")
    lasts = time.monotonic() - begin
    while tally.tried < kills:
        workdir = folder / f"{program.name}-{kind.name}-{tally.runs}"
        for _ in range(min(PER_RUN, kills - tally.tried)):
            writing, begin = draw.random() < 0.5, time.monotonic()
            code, caught = killed(program, workdir, draw.uniform(0.0, lasts), kind, writing=writing)
            tally.tried += code != 0
            tally.writing += caught
            if code not in (0, -kind, PREEMPTED):  # whatever the next start makes of it
                tally.errors[f"status {code}"] += 1
                tally.flaw(f"{workdir.name} ended with status {code} before it was killed")
            if code == 0:  # the first run also compiled, so this one was faster
                lasts = time.monotonic() - begin
                break
        code, said = left_alone(program, workdir)
        tally.runs += 1
        if code:
            tally.errors[said] += 1
            tally.flaw(f"{workdir.name} ended with status {code}: {said}")
            note(tally)
            continue
        found = compare(whole, workdir)
        tally.lost, tally.repeated = tally.lost + found["lost"], tally.repeated + found["repeated"]
        tally.silent += len(found["changed"])
        if any(found.values()):
            tally.flaw(f"{workdir.name}: {found}")
        else:
            tally.right += 1
            shutil.rmtree(workdir)
        note(tally)
    return tally


def left_alone(program: Program, workdir: Path) -> tuple[int, str]:
    """Runs to the end: exit status, and the last line of complaint."""
    done = subprocess.run(
        program.command(workdir), cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    return done.returncode, (done.stderr.strip().splitlines() or [""])[-1]


def killed(
    program: Program, workdir: Path, after: float, kind: signal.Signals, *, writing: bool = False
) -> tuple[int, bool]:
    """Starts a run and sends it a signal after so many seconds; with `writing`, once it writes something then.

    Returns:
      Its exit status, 0 if it ended before, and whether it was caught writing.
    """
    caught = False
    with subprocess.Popen(
        program.command(workdir), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            while writing and not caught and process.poll() is None:
                caught = any(_unfinished(workdir))
                time.sleep(0.002)  # leaves the processor to the run
            process.send_signal(kind)
    return process.returncode, caught and process.returncode != 0


def _unfinished(workdir: Path) -> Iterator[Path]:
    """Files and checkpoints that are being written: both have "tmp" in their names until they are whole."""
    for pattern in (".*.tmp", "checkpoints/*tmp*", "*/.*.tmp", "*/checkpoints/*tmp*"):
        yield from workdir.glob(pattern)


def compare(whole: Path, parts: Path) -> dict[str, Any]:
    """What two finished runs leave, times aside.

    Returns:
      Numbers of records ``lost`` and ``repeated``, names of files ``changed`` and of unfinished ones ``left`` behind.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     compare(Path(folder), Path(folder))
    {'lost': 0, 'repeated': 0, 'changed': [], 'left': []}
    """
    lost = repeated = 0
    for place in {file.parent.relative_to(whole) for file in whole.rglob("metrics.jsonl")}:
        ours, theirs = (Counter(_texts(root / place)) for root in (whole, parts))
        lost += (ours - theirs).total()
        repeated += (theirs - ours).total()
    left = [str(path.relative_to(parts)) for path in _unfinished(parts)]
    before, after = _results(whole), _results(parts)
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    return {"lost": lost, "repeated": repeated, "changed": changed, "left": left}


def _texts(workdir: Path) -> list[str]:
    return [json.dumps(timeless(record)) for record in read_metrics(workdir)]


def _results(workdir: Path) -> dict[str, Any]:
    """Artefacts as bytes, reports without times."""
    files = (*workdir.rglob("*.cjx"), *workdir.rglob("candidates.jsonl"))
    found: dict[str, Any] = {str(file.relative_to(workdir)): file.read_bytes() for file in files}
    for file in workdir.rglob("report.json"):
        found[str(file.relative_to(workdir))] = timeless(read_report(file.parent))
    return found


def timeless(value: Any) -> Any:
    """JSON without the entries that say how long something took.

    >>> timeless({"a": [{"seconds": 1.5, "b": 2}]})
    {'a': [{'b': 2}]}
    """
    if isinstance(value, Mapping):
        return {name: timeless(item) for name, item in value.items() if name not in TIMES}
    return [timeless(item) for item in value] if isinstance(value, list) else value
