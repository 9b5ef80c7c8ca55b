"""Damaged files: what was written comes back, or a ValueError, within bounded memory."""

import random

import numpy as np
import pytest

from compressjax import storage
from experiments import fault_files
from experiments.seal import checksum, seal, unseal
from experiments.workdir import METRICS, REPORT, Workdir, read_metrics, read_report

pytestmark = pytest.mark.faults


def lawful(tally, tried):
    assert tally.tried == tried
    assert not tally.flaws
    assert tally.silent == 0
    assert set(tally.errors) <= {"ValueError"}


def test_damaged_artefacts():
    plain, sealed = fault_files.artefacts(60)
    lawful(plain, 60)
    assert plain.refused == 60  # the checksum sees everything
    lawful(sealed, 60)


def test_damaged_records_reports_and_configurations(tmp_path):
    lawful(fault_files.texts(tmp_path, 400), 400)


# Orbax gives up a read that fails half-way, and its futures find their event loop closed when they are collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_damaged_checkpoints(tmp_path):
    tally = fault_files.checkpoints(tmp_path, 12)
    lawful(tally, 12)
    assert tally.refused


def test_another_version_in_the_header_is_noticed():
    for data in fault_files.artefact_bytes()[::6]:
        for version in (b"\1", b"\2"):
            with pytest.raises(ValueError, match="checksum"):
                storage.decode(data[:3] + version + data[4:])


def test_damage_always_changes_something():
    draw = random.Random(0)
    for data in (b"", b"x", bytes(30)):
        assert all(fault_files.damage(data, draw, [b"other"])[1] != data for _ in range(50))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"loss": 0.5', b'"loss": 0.6', "line 1 .*checksum does not match"),
        (b'"crc"', b'"cRc"', "line 1 .*has no checksum"),
        (b"}\n{", b"}\r{", "line 1 .*not valid JSON"),
        (b'{"step": 1', b"[" * 100_000, "line 2 .*nests too deeply|line 2 .*not valid JSON"),
        (b'"step"', b'"st\xffp"', "line 1 .*not valid JSON"),
    ],
)
def test_a_damaged_record_is_named(old, new, message, tmp_path):
    with Workdir(tmp_path, {}) as directory:
        for step in range(3):
            directory.record({"step": step, "loss": 0.5})
    file = tmp_path / METRICS
    file.write_bytes(file.read_bytes().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_metrics(tmp_path)


def test_records_and_reports_of_older_runs_have_no_checksums(tmp_path):
    (tmp_path / METRICS).write_text('{"step": 0}\n{"step": 1}\n')
    (tmp_path / REPORT).write_text('{"seed": 0}')
    assert read_metrics(tmp_path) == [{"step": 0}, {"step": 1}]
    assert read_report(tmp_path) == {"seed": 0}


def test_a_run_that_began_without_checksums_goes_on_without(tmp_path):
    with Workdir(tmp_path, {}):
        (tmp_path / METRICS).write_text('{"step": 0}\n')
    with Workdir(tmp_path, {}) as directory:
        for step in range(1, 4):
            directory.record({"step": step})
        directory.write_report({"seed": 0})
        assert directory.report() == {"seed": 0}
    assert read_metrics(tmp_path) == [{"step": step} for step in range(4)]
    assert (tmp_path / METRICS).read_text().count("crc") == 0


def test_a_changed_report_is_refused(tmp_path):
    with Workdir(tmp_path, {}) as directory:
        directory.record({"step": 0})
        directory.write_report({"dense": {"test_accuracy": 0.75}})
        assert directory.report() == {"dense": {"test_accuracy": 0.75}}
        file = tmp_path / REPORT
        file.write_text(file.read_text().replace("0.75", "0.95"))
        with pytest.raises(ValueError, match=r"report.json is damaged \(its checksum .* remove it and run"):
            directory.report()


def test_records_that_a_checkpoint_covers_may_not_change(tmp_path):
    with Workdir(tmp_path, {}) as directory:
        directory.record({"step": 0})
        directory.save(1, {"w": np.zeros(2)}, {"phase": 0})
    file = tmp_path / METRICS
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b" ")  # its last line looks like one that was being written
    with Workdir(tmp_path, {}) as directory, pytest.raises(ValueError, match="lost records that checkpoint 1 covers"):
        directory.restore()
    file.write_bytes(whole.replace(b"0", b"1"))
    with Workdir(tmp_path, {}) as directory, pytest.raises(ValueError, match="checkpoint 1 covers other records"):
        directory.restore()


def test_a_checkpoint_with_other_arrays_is_refused(tmp_path, monkeypatch):
    with Workdir(tmp_path, {}) as directory:
        monkeypatch.setattr("experiments.workdir.checksum", lambda arrays: checksum(arrays) ^ 1)
        directory.save(1, {"w": np.arange(3.0)}, {"phase": 0})
        monkeypatch.undo()
        with pytest.raises(ValueError, match=r"Checkpoint 1 .* cannot be read"):
            directory.restore()


@pytest.mark.parametrize("values", [{}, {"a": [1, 2.5, None, "é"], "b": {"c": True}}])
def test_seal_and_unseal(values):
    assert unseal(seal(values, 7), 7) == values
    with pytest.raises(ValueError, match="checksum"):
        unseal(seal(values, 7), 8)
    with pytest.raises(ValueError, match="list"):
        unseal([values])


@pytest.mark.slow
def test_reports_edited_by_hand(tiny_run, tmp_path):
    _, report = tiny_run
    lawful(fault_files.pages(tmp_path, report, 40), 40)
