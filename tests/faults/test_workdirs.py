"""Full disks, jumping clocks, second writers and kills, on a run that trains nothing."""

import signal
import sys

import pytest

from experiments import fault_kills, fault_workdirs
from experiments.workdir import METRICS, Workdir

pytestmark = pytest.mark.faults
KILL = signal.SIGKILL


def lawful(tally):
    assert not tally.flaws
    assert (tally.lost, tally.repeated, tally.silent) == (0, 0, 0)
    assert set(tally.errors) <= {"ValueError"}


def test_full_disks(tmp_path):
    tally = fault_workdirs.disks(tmp_path, 3)
    lawful(tally)
    assert tally.refused


@pytest.mark.slow
def test_full_disks_where_no_file_system_can_be_mounted(tmp_path, monkeypatch):
    monkeypatch.setattr(fault_workdirs, "mountable", lambda _: False)
    tally = fault_workdirs.disks(tmp_path, 3)
    lawful(tally)
    assert tally.fault == "full disk (limited file size)"
    assert tally.refused


def test_jumping_clocks(tmp_path):
    tally = fault_workdirs.clocks(tmp_path, 2)
    lawful(tally)
    assert tally.right == 2


def test_one_of_several_writers_is_let_in(tmp_path):
    tally = fault_workdirs.writers(tmp_path, 3)
    lawful(tally)
    assert (tally.right, tally.refused) == (3, 3 * (fault_workdirs.WRITERS - 1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_killed_stand_ins(kind, tmp_path):
    tally = fault_kills.campaign(fault_kills.STAND_IN, tmp_path, kills=3, kind=kind)
    lawful(tally)
    assert tally.tried == 3
    assert tally.right == tally.runs > 0


class Crashing(fault_kills.Program):
    """Fails when it is started for the first time, unless it is left alone."""

    def command(self, workdir):
        code = "import sys, pathlib as p; w = p.Path(sys.argv[1]); s = w.exists(); w.mkdir(exist_ok=True); "
        return [sys.executable, "-c", code + "sys.exit(0 if s or 'whole' in w.name else 3)", str(workdir)]


def test_a_run_that_ends_in_an_error_by_itself_is_no_kill(tmp_path, monkeypatch):
    killed = fault_kills.killed
    monkeypatch.setattr(fault_kills, "killed", lambda program, workdir, *_, **__: killed(program, workdir, 60.0, KILL))
    tally = fault_kills.campaign(Crashing("crashing"), tmp_path, kills=1)
    assert tally.flaws == ["crashing-SIGKILL-0 ended with status 3 before it was killed"]
    assert tally.errors == {"status 3": 1}


@pytest.mark.slow
@pytest.mark.parametrize("program", fault_kills.PROGRAMS, ids=lambda program: program.name)
def test_killed_programs(program, tmp_path):
    tally = fault_kills.campaign(program, tmp_path, kills=3)
    lawful(tally)
    assert tally.right == tally.runs > 0


def test_differences_between_runs_are_counted(tmp_path):
    for name in ("whole", "parts"):
        with Workdir(tmp_path / name, {}) as directory:
            for step in range(3):
                directory.record({"step": step, "seconds": len(name) + step})
            directory.write("model.cjx", b"whole")
            directory.write_report({"accuracy": 0.5, "seconds": len(name)})
    assert not any(fault_kills.compare(tmp_path / "whole", tmp_path / "parts").values())
    with Workdir(tmp_path / "parts", {}) as directory:
        file = directory.path / METRICS
        lines = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(lines[0] + lines[2] + lines[2])
        directory.write("model.cjx", b"other")
        directory.write_report({"accuracy": 0.25})
        (directory.path / ".model.cjx.tmp").touch()
    found = fault_kills.compare(tmp_path / "whole", tmp_path / "parts")
    assert found == {"lost": 1, "repeated": 1, "changed": ["model.cjx", "report.json"], "left": [".model.cjx.tmp"]}
