"""Full disks, jumping clocks and second writers, on a run that trains nothing.

Part of `experiments.faults`.  The stand-in for a run keeps records, checkpoints, an artefact and a report like any
other, and takes a moment.  ``python -m experiments.fault_workdirs DIR`` is the same in a process of its own.
"""

import contextlib
import functools
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from experiments.fault_tally import Tally, judged
from experiments.workdir import REPORT, Workdir

STEPS, SIZE = 4, 20_000
CONFIG = {"steps": STEPS, "size": SIZE}
WRITERS = 8
YEAR = 365 * 86_400.0


def stand_in(path: Path, between: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Runs (or resumes) a computation in a run directory, with a checkpoint after every step.

    Args:
      path: The directory.
      between: Is called after every step.

    Returns:
      The contents of ``report.json``.
    """
    from compressjax import storage

    with Workdir(path, CONFIG) as directory:
        if not (directory.path / REPORT).exists():
            restored = directory.restore()
            number, arrays = restored[:2] if restored else (0, {"w": np.zeros(SIZE, np.float32)})
            weights = np.asarray(arrays["w"])
            for step in range(number, STEPS):
                weights = np.cos(3 * weights + np.arange(SIZE, dtype=np.float32) + step).astype(np.float32)
                directory.record({"step": step + 1, "mean": float(weights.mean())})
                directory.save(step + 1, {"w": weights}, {"step": step + 1})
                between()
            directory.write("model.cjx", storage.encode({"w": weights[:1000]}))
            directory.write_report({"config": CONFIG, "mean": float(weights.mean())})
        return directory.report()


def disks(folder: Path, cases: int, seed: int = 0) -> Tally:
    """Runs the stand-in where the disk is too small for it, then frees the space and runs it again.

    Args:
      folder: An empty one, to write in.
      cases: How many sizes.
      seed: Of the sizes.

    Returns:
      What came of it: the run is refused in a sentence, leaves no half-written file, and ends right given space.
    """
    from experiments.fault_kills import compare

    draw, whole = random.Random(seed), folder / "whole"
    stand_in(whole)
    needed = sum(file.stat().st_size for file in whole.rglob("*") if file.is_file())
    small, how = (tmpfs, "tmpfs") if mountable(folder) else (short_files, "limited file size")
    tally = Tally(f"full disk ({how})")

    def attempt(size: int) -> None:
        with small(folder / "disk", size) as place:
            try:
                stand_in(place / "run")
            except ValueError:
                stale = [file.name for file in place.rglob(".*.tmp")]
                if stale:
                    raise AssertionError(f"left half-written: {stale}") from None
                raise
            finally:
                shutil.copytree(place / "run", folder / "grown", dirs_exist_ok=True)

    for _ in range(cases):
        size = draw.randrange(needed // 20, needed)
        judged(tally, f"{size:,} bytes", functools.partial(attempt, size))
        stand_in(folder / "grown")
        found = compare(whole, folder / "grown")
        tally.lost, tally.repeated = tally.lost + found["lost"], tally.repeated + found["repeated"]
        if any(found.values()):
            tally.silent += 1
            tally.flaw(f"{size:,} bytes: {found}")
        shutil.rmtree(folder / "grown")
    return tally


@contextlib.contextmanager
def tmpfs(place: Path, size: int) -> Iterator[Path]:
    """A file system in memory of so many bytes; only a superuser may mount one."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={max(size, 1 << 16)}", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@contextlib.contextmanager
def short_files(place: Path, size: int) -> Iterator[Path]:
    """A directory in which no file may be longer than a part of so many bytes."""
    place.mkdir(parents=True, exist_ok=True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails instead
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(64, size // 10), before[1]))
    try:
        yield place
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
        shutil.rmtree(place)


def mountable(folder: Path) -> bool:
    """Whether this process may mount a file system."""
    place = folder / "mountable"
    place.mkdir(parents=True, exist_ok=True)
    try:
        with tmpfs(place, 1 << 16):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def clocks(folder: Path, cases: int, seed: int = 0) -> Tally:
    """Runs the stand-in while the clock jumps by up to ten years, back and forth, and is interrupted once.

    Args:
      folder: An empty one, to write in.
      cases: How many runs.
      seed: Of the jumps.

    Returns:
      What came of it: the same records and results as with a steady clock.
    """
    from experiments.fault_kills import compare

    tally, draw = Tally("clock jumps"), random.Random(seed)
    stand_in(folder / "whole")
    now, stop = time.time, [0]

    def jumping() -> float:
        return max(0.0, now() + draw.uniform(-10, 10) * YEAR)

    def jumping_ns() -> int:
        return int(1e9 * jumping())

    def interrupt() -> None:
        stop[0] -= 1
        if stop[0] == 0:
            raise InterruptedError

    def attempt(path: Path) -> None:
        with mock.patch("time.time", jumping), mock.patch("time.time_ns", jumping_ns):
            stop[0] = draw.randint(1, STEPS)
            with contextlib.suppress(InterruptedError):
                stand_in(path, interrupt)
            stand_in(path)
        found = compare(folder / "whole", path)
        tally.lost, tally.repeated = tally.lost + found["lost"], tally.repeated + found["repeated"]
        if any(found.values()):
            raise AssertionError(f"{found}")

    for i in range(cases):
        judged(tally, f"run {i}", functools.partial(attempt, folder / f"run{i}"))
    return tally


def writers(folder: Path, cases: int) -> Tally:
    """Opens one directory from several threads at once.

    Args:
      folder: An empty one, to write in.
      cases: How many times.

    Returns:
      What came of it: one may write, all others are refused.
    """
    tally = Tally("two writers")
    for i in range(cases):
        start, end = threading.Barrier(WRITERS), threading.Barrier(WRITERS)
        with ThreadPoolExecutor(WRITERS) as pool:
            attempts = [pool.submit(_write, folder / f"run{i}", start, end) for _ in range(WRITERS)]
        for attempt in attempts:
            judged(tally, f"run {i}", attempt.result)
        inside = sum(attempt.exception() is None for attempt in attempts)
        if inside != 1:
            tally.silent += 1
            tally.flaw(f"{inside} of {WRITERS} were let in")
    return tally


def _write(path: Path, start: threading.Barrier, end: threading.Barrier) -> None:
    start.wait()
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(Workdir(path, CONFIG)).record({"step": 0})
        finally:
            end.wait()  # nobody leaves before all have tried


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else stand_in(Path(sys.argv[1]))
