"""The run directory: atomic writes, one writer, and disks that fail."""

import json

import numpy as np
import pytest
from jax.experimental import multihost_utils

from experiments.distributed import Fleet
from experiments.workdir import Workdir, differences, read_metrics, write_atomic


def test_records_come_back_and_a_torn_last_line_is_left_out(tmp_path):
    with Workdir(tmp_path, {"a": 1}) as directory:
        directory.record({"step": 0, "loss": 0.5})
        directory.record({"step": 1, "loss": 0.25})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 0, "loss": 0.5}, {"step": 1, "loss": 0.25}]


def test_a_record_after_a_torn_line_starts_on_its_own(tmp_path):
    with Workdir(tmp_path, {}) as directory:
        directory.record({"step": 0})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 1, "lo')
    with Workdir(tmp_path, {}) as directory:
        directory.record({"step": 1})
    assert read_metrics(tmp_path) == [{"step": 0}, {"step": 1}]


def test_restore_cuts_records_past_the_checkpoint(tmp_path):
    with Workdir(tmp_path, {}) as directory:
        directory.record({"step": 0})
        directory.save(1, {"w": np.arange(3.0), "empty": {}}, {"phase": 2})
        directory.record({"step": 1})
    with Workdir(tmp_path, {}) as directory:
        number, arrays, progress = directory.restore()
        assert (number, progress) == (1, {"phase": 2})
        assert np.asarray(arrays["w"]).tolist() == [0.0, 1.0, 2.0]
    assert read_metrics(tmp_path) == [{"step": 0}]


def test_a_finished_run_keeps_its_results_and_gets_a_new_page(tmp_path):
    with Workdir(tmp_path, {}) as directory:
        assert directory.finish(lambda: {"loss": 0.5}, lambda found: f"<p>{found['loss']}</p>") == {"loss": 0.5}
        assert (tmp_path / "report.html").read_text() == "<p>0.5</p>"
        assert directory.finish(lambda: pytest.fail("made again"), lambda found: "new") == {"loss": 0.5}
    assert (tmp_path / "report.html").read_text() == "new"


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(tmp_path):
    with Workdir(tmp_path, {}) as directory:
        (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
        with pytest.raises(
            ValueError, match=r"failed \(No space left on device\); the last complete checkpoint is kept"
        ):
            directory.record({"step": 0})
        directory.write("model.cjx", b"whole")
        (tmp_path / ".model.cjx.tmp").symlink_to("/dev/full")
        with pytest.raises(ValueError, match="No space left"):
            directory.write("model.cjx", b"half")
    assert (tmp_path / "model.cjx").read_bytes() == b"whole"
    assert not (tmp_path / ".model.cjx.tmp").exists()


def test_a_damaged_checkpoint_is_named(tmp_path):
    with Workdir(tmp_path, {}) as directory:
        directory.save(7, {"w": np.arange(3.0)}, {"phase": 0})
    for file in (tmp_path / "checkpoints" / "7").rglob("*"):
        if file.is_file():
            file.write_bytes(b"damaged")
    with Workdir(tmp_path, {}) as directory, pytest.raises(ValueError, match=r"Checkpoint 7 .* cannot be read"):
        directory.restore()


@pytest.mark.parametrize("act", ["save", "restore"])
def test_a_lost_process_is_taken_neither_for_a_full_disk_nor_for_a_damaged_checkpoint(act, tmp_path, monkeypatch):
    def failing(*_, **__):
        multihost_utils.assert_equal(0)

    def broken(*_, **__):
        raise ValueError("UNKNOWN: Gloo AllGather failed: connection closed by peer")

    with Workdir(tmp_path, {}, Fleet(count=2)) as directory:
        directory.save(1, {"w": np.arange(3.0)}, {"phase": 0})
        monkeypatch.setattr(type(directory._checkpoints()), act, failing)
        monkeypatch.setattr(multihost_utils, "process_allgather", broken)
        with pytest.raises(ValueError, match=r"^UNKNOWN: Gloo"):  # as it is: `launch` says what it means
            directory.save(2, {"w": np.arange(3.0)}, {"phase": 1}) if act == "save" else directory.restore()


def test_damaged_configuration_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"a": ')
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n')
    with pytest.raises(ValueError, match="not valid JSON"), Workdir(tmp_path, {"a": 1}):
        pass


def test_write_atomic_replaces(tmp_path):
    write_atomic(tmp_path / "x", b"1")
    write_atomic(tmp_path / "x", b"22")
    assert (tmp_path / "x").read_bytes() == b"22"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_writers_of_different_names_do_not_meet(tmp_path):
    (tmp_path / ".x.tmp").write_bytes(b"half")  # of a writer that is at work
    write_atomic(tmp_path / "x", b"page", writer="page")
    assert (tmp_path / ".x.tmp").read_bytes() == b"half"
    assert (tmp_path / "x").read_bytes() == b"page"


@pytest.mark.parametrize(
    ("a", "b", "names"),
    [
        ({"x": [1, {"y": 2}]}, {"x": [1, {"y": 3}]}, {"x[1].y"}),
        ({"x": [1]}, {"x": [1, 2]}, {"x"}),
        ({"x": 1}, {"y": 1}, {"x", "y"}),
        ({"x": 1.0}, json.loads('{"x": 1.0}'), set()),
    ],
)
def test_differences_are_named(a, b, names):
    assert differences(a, b) == names
