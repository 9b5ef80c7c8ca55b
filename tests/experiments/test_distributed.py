"""One run on several processes: the same numbers, and nothing lost when one of them dies or all are asked to stop."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import storage, trees
from compressjax.data import Split
from experiments import launch
from experiments.distributed import ALONE, Fleet, Preempted, make_mesh
from experiments.fitting import accuracy
from experiments.workdir import read_metrics
from tests.experiments import spmd

ROOT = Path(__file__).parents[2]
FILES = ("metrics.jsonl", "dense.cjx", "stage-1.cjx")
TOLERANCE = 1e-5  # of losses and residuals, relative: two processes add a batch's gradients in another order
PATIENCE = 900  # seconds; nothing is expected to take that long


def together(count, workdir, *flags, program=("tests/experiments/spmd.py",), config="tests/experiments/spmd.py"):
    """Runs a program on `count` processes of one device each: their exit codes and what they said."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("XLA_FLAGS", None)
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    common = [sys.executable, *program, f"--config={config}", f"--workdir={workdir}", *flags]
    places = [[]]
    if count > 1:
        meet = ["--distributed", f"--coordinator_address={address}", f"--num_processes={count}"]
        places = [[*meet, "--heartbeat_seconds=10", f"--process_id={i}"] for i in range(count)]
    processes = [
        subprocess.Popen(
            [*common, *place], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for place in places
    ]
    try:
        said = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], said


def finish(count, workdir):
    codes, said = together(count, workdir)
    assert codes == [0] * count, "\n".join(text[-3000:] for text in said)


def contents(workdir):
    return {name: (workdir / name).read_bytes() for name in FILES}


def assert_close(found, expected):
    """The same records and the same networks, to `TOLERANCE`; a few of 360 images may fall on the other side."""
    ours, theirs = read_metrics(found), read_metrics(expected)
    assert [(r["phase"], r["step"]) for r in ours] == [(r["phase"], r["step"]) for r in theirs]
    for one, other in zip(ours, theirs, strict=True):
        for name, factor in (("loss", 1), ("primal", 10)):
            a, b = one.get(name), other.get(name)
            assert (a is None) == (b is None)  # a phase without training has no loss
            if a is not None:
                assert a == pytest.approx(b, rel=factor * TOLERANCE)
        assert one["validation_accuracy"] == pytest.approx(other["validation_accuracy"], abs=0.006)
        assert one["nonzeros"] == other["nonzeros"]
    for name in FILES[1:]:
        a, b = (trees.leaves(storage.load(place / name).params) for place in (found, expected))
        for path in a:
            np.testing.assert_allclose(a[path], b[path], rtol=1e-3, atol=TOLERANCE)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alone")
    spmd.train(spmd.get_config(), workdir, ALONE)
    return workdir


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("two")
    finish(2, workdir)
    return workdir


def test_two_processes_compute_what_one_does(alone, two):
    assert_close(two, alone)
    assert len(read_metrics(two)) == 3 * spmd.PHASES


@pytest.mark.faults
def test_a_preempted_then_broken_run_ends_like_an_uninterrupted_one(alone, two, tmp_path):
    workdir = tmp_path / "run"
    codes, said = together(2, workdir, "--fault=term:4:1")
    assert codes == [launch.PREEMPTED] * 2, said
    assert all("step 11 of pretrain is kept; the same command again continues" in text for text in said)
    begun = len(read_metrics(workdir))
    assert 0 < begun < len(read_metrics(two))
    codes, said = together(2, workdir, "--fault=step:8:0")
    assert codes[0] == -signal.SIGKILL
    assert codes[1] not in (0, launch.PREEMPTED), said[1]
    assert len(read_metrics(workdir)) >= begun
    other = tmp_path / "other"
    shutil.copytree(workdir, other)
    finish(2, workdir)
    assert contents(workdir) == contents(two)
    spmd.train(spmd.get_config(), other, ALONE)  # with another number of processes
    assert_close(other, alone)


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("victim", [0, 1])
def test_killed_in_the_middle_of_a_save(victim, two, tmp_path):
    codes, said = together(2, tmp_path, f"--fault=save:3:{victim}")
    assert codes[victim] == -signal.SIGKILL, said
    assert codes[1 - victim] not in (0, launch.PREEMPTED)
    assert "Writing to" not in said[1 - victim]  # the disk is not to blame
    assert "another process of this run was lost" in said[1 - victim] or "another task died" in said[1 - victim]
    finish(2, tmp_path)
    assert contents(tmp_path) == contents(two)


@pytest.mark.slow
@pytest.mark.faults
def test_four_processes_go_on_as_two_and_as_one(alone, tmp_path):
    finish(4, tmp_path / "four")
    assert_close(tmp_path / "four", alone)
    codes, said = together(4, tmp_path / "run", "--fault=step:8:2")
    assert codes[2] == -signal.SIGKILL, said
    assert 0 not in codes
    codes, said = together(2, tmp_path / "run", "--fault=term:10:0")
    assert codes == [launch.PREEMPTED] * 2, said
    finish(1, tmp_path / "run")
    assert_close(tmp_path / "run", alone)


class Asked:
    """Says at its `number`-th call that the run is to stop."""

    def __init__(self, number):
        self.left = number

    def __call__(self):
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("steps", [0, 3, 8, 13])
def test_a_run_that_is_asked_to_stop_goes_on_from_that_very_step(steps, alone, tmp_path):
    with pytest.raises(Preempted, match=f"step {steps} of pretrain"):
        spmd.train(spmd.get_config(), tmp_path, Fleet(stopping=Asked(steps)))
    kept = [int(path.name) for path in (tmp_path / "checkpoints").glob("[0-9]*")]
    assert max(kept, default=0) == steps
    spmd.train(spmd.get_config(), tmp_path, ALONE)
    assert contents(tmp_path) == contents(alone)


@pytest.mark.faults
def test_sigterm_saves_and_has_its_own_exit_code(alone, tmp_path):
    codes, said = together(1, tmp_path, "--fault=term:19:0")
    assert codes == [75], said
    assert "stopped: step 3 of stage-1/admm is kept" in said[0]
    spmd.train(spmd.get_config(), tmp_path, ALONE)
    assert contents(tmp_path) == contents(alone)


def test_a_mesh_shares_the_images_of_an_evaluation():
    mesh = make_mesh()
    assert dict(mesh.shape) == {"data": jax.device_count(), "population": 1, "model": 1}
    fleet = Fleet(mesh=mesh)

    class Model:
        @staticmethod
        def apply(params, x):
            return jax.nn.one_hot(jnp.round(255 * x[:, 0, 0, 0]).astype("int32") % 10, 10) * params["scale"]

    values = np.arange(1234) % 256
    wrong = np.arange(1234) % 5 == 0
    split = Split(values.astype(np.uint8).reshape(-1, 1, 1, 1), ((values + wrong) % 10).astype(np.int32))
    params = {"scale": np.ones((), np.float32)}
    expected = accuracy(Model, params, split)
    assert expected == pytest.approx(0.8, abs=0.01)
    assert accuracy(Model, fleet.replicate(params), split, fleet) == expected


def test_rows_are_read_by_the_device_that_needs_them():
    fleet, read = Fleet(mesh=make_mesh()), []
    data = np.arange(40.0).reshape(20, 2)

    def rows(index):
        read.append(len(index))
        return data[index]

    index = np.array([3, 1, 19, 4])
    batch = fleet.feed(rows, index)
    np.testing.assert_array_equal(batch, data[index])
    assert max(read) == 4 // jax.device_count()


def test_what_does_not_divide_is_one_sentence():
    fleet = Fleet(mesh=make_mesh())
    size = 2 * jax.device_count() - 1
    with pytest.raises(ValueError, match=f"config.batch_size is {size}, which .* choose a multiple of"):
        fleet.check_batch(size)
    with pytest.raises(ValueError, match="do not divide into 1 x 3"):
        make_mesh(model=3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--process_id=0"], "add --distributed"),
        (["--distributed", "--num_processes=2"], "--num_processes alone does not place a process"),
        (["--distributed"], "could not join the processes of this run"),
    ],
)
def test_flags_that_do_not_place_a_process(flags, message, tmp_path):
    codes, said = together(1, tmp_path / "run", *flags)
    assert codes == [1]
    assert message in said[0]
    assert "Traceback" not in said[0]
    assert not (tmp_path / "run").exists()


def records(workdir):
    """Trials by what they are of, without the time they took; their order depends on who was done first."""
    found = {}
    for record in read_metrics(workdir):
        found[record["task"], record["keep"], record["seed"]] = {k: v for k, v in record.items() if k != "seconds"}
    return found


def by_one_and_by_two(program, config, folder):
    """Workdirs of the same run by one process and by two."""
    for count in (1, 2):
        codes, said = together(count, folder / f"{count}", program=("-m", program), config=config)
        assert codes == [0] * count, "\n".join(text[-3000:] for text in said)
    return folder / "1", folder / "2"


@pytest.mark.slow
def test_evolve_shares_its_trials(tmp_path):
    one, two = by_one_and_by_two("experiments.evolve", "configs/evolve_pruning.py:tiny", tmp_path)
    assert records(two).keys() == records(one).keys()
    for key, record in records(one).items():
        assert records(two)[key] == pytest.approx(record, abs=0.01)  # one of 180 images or so
    assert (two / "candidates.jsonl").read_text() == (one / "candidates.jsonl").read_text()
    assert len(read_metrics(two)) == len(read_metrics(one))  # nothing was done twice


@pytest.mark.slow
def test_shrink_on_two_processes_is_that_on_one(tmp_path):
    one, two = by_one_and_by_two("experiments.shrink", "configs/lenet5_ssl.py:tiny", tmp_path)
    ours, theirs = read_metrics(two), read_metrics(one)
    assert [(r["phase"], r["step"]) for r in ours] == [(r["phase"], r["step"]) for r in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a["validation_accuracy"] == pytest.approx(b["validation_accuracy"], abs=0.02)
