"""Sweeps on a real Ray cluster of two nodes: kill a worker, a node, the driver; every trial ends once, none is lost."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments import sweep, sweep_ray, sweep_trial
from experiments.sweep_config import Halving, Resources
from experiments.workdir import read_metrics
from tests.experiments.slow_sweep import get_config
from tests.experiments.waiting import DEADLINE, until

pytestmark = pytest.mark.faults
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one processor each, in a process of their own; its `remove()` kills the second."""
    command = [sys.executable, "-m", "tests.experiments.two_nodes"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        lines = iter(process.stdout.readline, "")
        process.address = next(line for line in lines if line.startswith("address=")).strip().removeprefix("address=")

        def remove() -> None:
            process.stdin.write("remove\n")
            process.stdin.flush()
            next(line for line in lines if line == "removed\n")

        process.remove = remove
        yield process
        process.stdin.close()
        process.wait(DEADLINE)


@pytest.fixture
def driver(cluster, tmp_path):
    """Starts the sweep, of trials that wait for files in `gate`; kills what a failed test has left."""
    (tmp_path / "gate").mkdir()
    started = []

    def start(*flags: str) -> subprocess.Popen:
        command = [
            *(sys.executable, "-m", "experiments.sweep", "--engine=ray", f"--ray_address={cluster.address}"),
            *(f"--config=tests/experiments/slow_sweep.py:{tmp_path / 'gate'}", f"--workdir={tmp_path / 'run'}", *flags),
        ]
        started.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def folder(tmp_path: Path, seed: int) -> Path:
    return tmp_path / "run" / "trials" / get_config(str(tmp_path / "gate")).trials[seed].id


def starts(tmp_path: Path) -> list[dict]:
    """All attempts, in order."""
    files = (tmp_path / "run" / "trials").glob(f"*/{sweep_trial.ATTEMPTS}")
    found = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return sorted(found, key=lambda attempt: attempt["time"])


def begun(tmp_path: Path) -> list[int]:
    """Seeds of the trials that wait after their first step."""
    return [seed for seed in range(4) if len(read_metrics(folder(tmp_path, seed))) == 1]


def running(tmp_path: Path) -> int:
    """Processes of trials that are alive."""
    pids = [pid for file in (tmp_path / "run" / "trials").glob("*/pids") for pid in file.read_text().split()]
    return sum(state_of(pid) not in ("Z", "X", "") for pid in pids)


def state_of(pid: str) -> str:
    """R, S, ..., Z for a process that is dead and was not asked for its status; "" for none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def assert_every_trial_ended_once(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (tmp_path / "run" / "trials.jsonl").read_text().splitlines()]
    assert [(row["overrides"]["seed"], row["status"]) for row in rows] == [(seed, "finished") for seed in range(4)]
    for seed in range(4):
        assert (folder(tmp_path, seed) / "ends").read_text() == "end\n"
        assert [record["step"] for record in read_metrics(folder(tmp_path, seed))] == [0, 1, 2]


def test_the_driver_is_killed_and_started_again(driver, tmp_path):
    (tmp_path / "gate" / "0").touch()
    first = driver()
    until(lambda: (folder(tmp_path, 0) / "report.json").exists() and len(begun(tmp_path)) == 2, first)
    waiting = begun(tmp_path)
    first.send_signal(signal.SIGKILL)
    first.wait()
    for seed in waiting:
        sweep_trial.await_writer(folder(tmp_path, seed), DEADLINE)  # its process ends with the driver's workers
    (tmp_path / "gate" / "open").touch()
    output, _ = driver().communicate(timeout=DEADLINE)
    assert "4 trials: 4 finished" in output
    assert_every_trial_ended_once(tmp_path)
    assert len(starts(tmp_path)) == 4 + len(waiting)


def test_a_worker_and_a_node_are_killed(driver, cluster, tmp_path):
    process = driver()
    until(lambda: len(begun(tmp_path)) == 2, process)
    os.kill(starts(tmp_path)[0]["pid"], signal.SIGKILL)
    until(lambda: len(starts(tmp_path)) == 3 and running(tmp_path) == 2, process)
    cluster.remove()
    until(lambda: running(tmp_path) == 1, process)  # the other node has no processor left for what was lost
    (tmp_path / "gate" / "open").touch()
    output, _ = process.communicate(timeout=DEADLINE)
    assert "4 trials: 4 finished" in output
    assert_every_trial_ended_once(tmp_path)
    assert len(starts(tmp_path)) >= 6  # four, and one again for the worker and for the node


@pytest.mark.slow
def test_halving_stops_what_is_worse_than_the_first(tmp_path):
    gate, run = tmp_path / "gate", tmp_path / "run"
    gate.mkdir()
    (gate / "0").touch()  # the others wait after their first record, and would wait for ever
    code = (
        "import sys; from experiments import sweep; from ray._private.utils import get_num_cpus; "
        "from tests.experiments.slow_sweep import halved; "
        "print(sweep.run(halved(sys.argv[1], get_num_cpus()), sys.argv[2], engine='ray', progress=False)['status'])"
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code, gate, run], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        rows = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]
        assert [row["status"] for row in rows] == ["finished", "stopped", "stopped", "stopped"]
        assert [row["reason"] for row in rows[1:]] == ["not among the best after 1 record"] * 3
        assert all(row["attempts"] == 1 for row in rows)


def test_what_can_never_run_is_refused_here_and_said_on_a_cluster_that_may_grow(monkeypatch, capsys):
    machine = SimpleNamespace(init=lambda **_: None, cluster_resources=lambda: {"CPU": 8.0}, shutdown=lambda: None)
    monkeypatch.setitem(sys.modules, "ray", machine)
    wanted = replace(get_config(), resources=Resources(gpus=2.0))
    with pytest.raises(ValueError, match="gpus is 2 and the cluster has 0: ask for less"), sweep_ray.on_ray(wanted):
        pass
    with sweep_ray.on_ray(wanted, "head:6379"):
        assert "gpus is 2 and the cluster has 0 now: trials wait" in capsys.readouterr().err
    with sweep_ray.on_ray(get_config(), "head:6379"):
        assert not capsys.readouterr().err


@pytest.mark.parametrize("halving", [None, Halving()])
def test_without_ray_one_sentence_says_what_to_install(halving, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.chdir(ROOT)
    with pytest.raises(ImportError, match=r"compressjax\[ray\]"):
        sweep.run(replace(get_config(), halving=halving), tmp_path, engine="ray")
