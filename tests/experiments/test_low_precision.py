"""A low-precision run of seconds: files hold levels, reports follow from files, integers agree, bad input."""

import numpy as np
import pytest

from compressjax import storage
from configs import lenet300_low_precision
from experiments import low_precision
from experiments.schema import Fit
from experiments.schemes import LowPrecisionConfig, Scheme
from experiments.workdir import Workdir, read_report


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    return workdir, low_precision.run(lenet300_low_precision.get_config("tiny"), workdir, progress=False)


def test_every_scheme_is_reported_beside_float(finished):
    _, report = finished
    assert [row["name"] for row in report["rows"]] == ["dense", "float", "lsq4-lsq4", "dorefa2-pact3"]
    for row in report["rows"]:
        assert 0.1 < row["test_accuracy"] <= 1.0
    assert report["rows"][2]["bytes"] < report["rows"][1]["bytes"] / 6


def test_files_hold_levels_and_nothing_else_is_quantized(finished):
    workdir, report = finished
    for row, most in zip(report["rows"][2:], (16, 4), strict=True):
        params = storage.load(workdir / f"{row['name']}.cjx").params
        assert 1 < max(len(np.unique(params[f"fc{i}"]["kernel"])) for i in (1, 2, 3)) <= most
        assert row["values"] <= most
        assert len(np.unique(params["fc1"]["bias"])) > 16


def test_integers_predict_what_the_fake_quantized_network_does(finished):
    _, report = finished
    row = report["rows"][2]
    assert row["largest_sum"] < 2**24
    # Biases are rounded and steps are no powers of two, so that a tie may fall the other way.
    assert row["integer_differs"] <= 2
    assert abs(row["integer_accuracy"] - row["validation_accuracy"]) < 0.01


def test_a_finished_run_is_read_and_not_repeated(finished):
    workdir, report = finished
    again = low_precision.run(lenet300_low_precision.get_config("tiny"), workdir, progress=False)
    assert again == report == read_report(workdir)
    assert "dorefa2-pact3" in (workdir / "report.html").read_text()
    assert "lsq4-lsq4" in low_precision.headline(report)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schemes": ()}, "config.schemes is empty"),
        ({"schemes": (Scheme(weights="magic"),)}, "weights is 'magic'; choose one of lsq"),
        ({"schemes": (Scheme(weight_bits=17),)}, r"schemes\[0\]: bits=17 must be"),
        ({"schemes": (Scheme(), Scheme())}, "the same as an earlier scheme"),
        ({"schemes": (Scheme(),), "model": "resnet20"}, "wants a chain of layers"),
        ({"schemes": (Scheme(),), "train": Fit(epochs=-1)}, "config.train.epochs"),
    ],
)
def test_bad_configurations_are_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        low_precision.run(LowPrecisionConfig(**{"model": "lenet300", **changes}), tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


class Stopped(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.slow
def test_a_run_stopped_within_a_scheme_resumes_exactly(tmp_path, monkeypatch):
    config = lenet300_low_precision.get_config("tiny")
    config.train, config.checkpoint_every, config.log_every = Fit(epochs=2), 1, 1
    low_precision.run(config, tmp_path / "whole", progress=False)
    original = Workdir.save

    def save_and_stop(self, number, arrays, progress):
        original(self, number, arrays, progress)
        if progress["phase"] == 3 and progress["step"]:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Workdir, "save", save_and_stop)
        with pytest.raises(Stopped):
            low_precision.run(config, tmp_path / "parts", progress=False)
    low_precision.run(config, tmp_path / "parts", progress=False)
    for name in ("metrics.jsonl", "lsq4-lsq4.cjx", "dorefa2-pact3.cjx"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
