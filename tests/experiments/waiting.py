"""Waiting for what other processes do, without an assertion about time."""

import subprocess
import time
from collections.abc import Callable

DEADLINE = 240.0  # generous: a loaded machine starts processes slowly


def until(condition: Callable[[], object], *processes: subprocess.Popen) -> None:
    """Waits for a condition on files, and not for one that a dead process was to bring about."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < end
        time.sleep(0.05)
