"""Law 7: stop anywhere, start again: same final parameters, same metrics file, no duplicate or lost record."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import compress
from experiments.workdir import Workdir
from tests.experiments import tiny

ROOT = Path(__file__).parents[2]
FILES = ("metrics.jsonl", "dense.cjx", "stage-1.cjx", "model.cjx")


@pytest.fixture(scope="module")
def uninterrupted(tiny_run):
    workdir, _ = tiny_run
    return {name: (workdir / name).read_bytes() for name in FILES}


class Stopped(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize(
    ("method", "call"),
    [
        pytest.param("save", 1, marks=pytest.mark.slow),
        pytest.param("save", 3, marks=pytest.mark.slow),
        pytest.param("record", 2, marks=pytest.mark.slow),
        pytest.param("record", 9, marks=pytest.mark.slow),
        pytest.param("write", 2, marks=pytest.mark.slow),
    ],
)
def test_stop_anywhere_and_resume(method, call, uninterrupted, tmp_path, monkeypatch):
    calls = 0
    original = getattr(Workdir, method)

    def failing(self, *arguments):
        nonlocal calls
        calls += 1
        if calls == call:
            raise Stopped
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Workdir, method, failing)
        with pytest.raises(Stopped):
            compress.run(tiny.config(), tmp_path, progress=False)
    compress.run(tiny.config(), tmp_path, progress=False)
    for name, content in uninterrupted.items():
        assert (tmp_path / name).read_bytes() == content, name


@pytest.mark.slow
@pytest.mark.faults
def test_stop_in_the_middle_of_every_kind_of_phase_and_resume(tmp_path, monkeypatch):
    """After a cut, taught by the dense network: recovery, ADMM, its control, freezing, tuning."""
    config, middles = tiny.everything(), {1, 2, 4, 7, 8}
    compress.run(config, tmp_path / "whole", progress=False)
    original, stopped = Workdir.save, set()

    def save_and_stop(self, number, arrays, progress):
        original(self, number, arrays, progress)
        if progress["step"] and progress["phase"] in middles - stopped:
            stopped.add(progress["phase"])
            raise Stopped

    monkeypatch.setattr(Workdir, "save", save_and_stop)
    while True:
        try:
            compress.run(config, tmp_path / "parts", progress=False)
            break
        except Stopped:
            continue
    assert stopped == middles
    files = sorted(file.name for file in (tmp_path / "whole").glob("*.cjx"))
    assert {"cut.cjx", "control-1.cjx", "stage-1-codebook-2bit.cjx"} <= set(files)
    for name in ("metrics.jsonl", *files):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


KILLED = """
import os, signal, sys
from experiments import compress
from experiments.workdir import Workdir
from tests.experiments import tiny

original, calls = Workdir.record, 0

def record(self, values):
    global calls
    calls += 1
    if calls == int(sys.argv[2]):
        with open(self.path / "metrics.jsonl", "a") as file:
            file.write('{"step": 1')  # killed in mid-line
        os.kill(os.getpid(), signal.SIGKILL)
    original(self, values)

Workdir.record = record
compress.run(tiny.config(), sys.argv[1], progress=False)
"""


@pytest.mark.faults
@pytest.mark.parametrize("call", [5, pytest.param(12, marks=pytest.mark.slow)])
def test_kill_9_and_resume(call, uninterrupted, tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(call)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    compress.run(tiny.config(), tmp_path, progress=False)
    for name, content in uninterrupted.items():
        assert (tmp_path / name).read_bytes() == content, name
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]
