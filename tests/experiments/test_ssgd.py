"""One-shot pruning curves end to end on the embedded digits: counts, choices, files, resumption and refusals."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import data, storage, trees, zoo
from configs.lenet300_ssgd import get_config
from experiments import contest_report, curve_records, curves, report, results, schema, ssgd, style
from experiments.contest import Candidate
from experiments.curves import CurvesConfig
from experiments.fitting import accuracy
from experiments.records import Record, load
from experiments.schema import Distill, Fit
from experiments.workdir import Workdir, read_metrics


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "ssgd"
    return workdir, ssgd.run(get_config("tiny"), workdir, progress=False)


def test_every_method_is_reported_at_every_ratio(finished):
    _, found = finished
    assert [curve["method"] for curve in found["curves"]] == ["sgd", "l1", "ssgd_p"]
    for curve in found["curves"]:
        assert [point["ratio"] for point in curve["points"]] == [1.0, 2.0, 10.0]
        for point in curve["points"][1:]:
            assert point["weights"] == int(found["dense"]["weights"] / point["ratio"])
        assert curve["points"][0]["test_accuracy"]["mean"] > 0.5  # chance is 0.1
        assert all(point["test_accuracy"]["n"] == 2 for point in curve["points"])


def test_the_validation_split_chooses(finished):
    _, found = finished
    for curve in found["curves"]:
        rivals = [c for c in found["candidates"] if c["method"] == curve["method"]]
        best = max(rivals, key=lambda c: c["score"])
        assert best["name"] == curve["name"]
        assert [c["chosen"] for c in rivals] == [c is best for c in rivals]
        assert best["score"] == pytest.approx(np.mean(best["validation_accuracy"][1:]))


def test_accuracies_are_those_of_the_files(finished):
    workdir, found = finished
    digits = data.load("digits", seed=1)
    model = zoo.build("lenet300", input_shape=digits.train.images.shape[1:])
    seed = json.loads((workdir / "seed1" / "report.json").read_text())
    for curve in seed["curves"][::2]:
        params = storage.load(workdir / "seed1" / f"{curve['name']}.cjx").params
        for point in curve["points"][2:]:
            pruned = ssgd.prune(params, point["ratio"])
            assert accuracy(model, pruned, digits.validation) == point["validation_accuracy"]
            assert accuracy(model, pruned, digits.test()) == point["test_accuracy"]
            # One threshold for all kernels.
            kept = [leaf[leaf != 0] for path, leaf in trees.leaves(pruned).items() if path.endswith("kernel")]
            gone = np.concatenate(
                [np.abs(np.asarray(params[n]["kernel"])[k["kernel"] == 0]) for n, k in pruned.items()]
            )
            assert min(np.abs(leaf).min() for leaf in kept) >= gone.max()
    zero = json.loads((workdir / "seed0" / "report.json").read_text())
    means = np.mean([[p["test_accuracy"] for p in r["curves"][0]["points"]] for r in (zero, seed)], axis=0)
    np.testing.assert_allclose([p["test_accuracy"]["mean"] for p in found["curves"][0]["points"]], means)


def test_methods_change_training_and_l1_makes_zeros(finished):
    workdir, _ = finished
    kernels = {
        file.stem: np.asarray(storage.load(file).params["fc1"]["kernel"]) for file in (workdir / "seed0").glob("*.cjx")
    }
    assert len(kernels) == len(get_config("tiny").candidates)
    for name, kernel in kernels.items():
        assert name == "sgd" or np.any(kernel != kernels["sgd"])
    assert np.mean(kernels["l1-0.01"] == 0) > 0.05 > np.mean(kernels["sgd"] == 0)


def test_the_page_and_the_printed_table(finished):
    workdir, found = finished
    page = (workdir / "report.html").read_text()
    assert all(curve_records.label(curve) in page for curve in found["curves"])
    assert page.count("<figure>") == 1
    assert report.CSS in page
    lines = contest_report.headline(found).splitlines()
    assert lines[0].split() == ["dense", "2.0×", "10.0×"]
    assert len(lines) == 1 + len(found["curves"])
    assert style.render(contest_report.accuracy_against_ratio(found, "test accuracy")).startswith(b"<?xml")


def test_reports_of_seeds_are_records(finished, tmp_path):
    workdir, found = finished
    for seed in (0, 1):
        shutil.copy(workdir / f"seed{seed}" / "report.json", tmp_path / f"digits_ssgd-seed{seed}.json")
    records = load(tmp_path)
    table = curve_records.to_markdown(records).splitlines()
    assert table[0] == "`digits_ssgd`: 2 seeds"
    assert table[2] == "| method | dense | 2.0× | 10.0× |"
    assert len(table) == 4 + len(found["curves"])
    assert re.search(r"^\| SGD \(SGD, learning rate 0\.05\) \|.* ± ", table[4])
    assert "Pruned without retraining" in results.section(records)


def test_a_finished_run_is_not_repeated_and_another_configuration_is_refused(finished):
    workdir, found = finished
    config = get_config("tiny")
    assert ssgd.run(config, workdir, progress=False) == found
    config.ratios = (2.0,)
    with pytest.raises(ValueError, match="another configuration"):
        ssgd.run(config, workdir, progress=False)


class Stopped(Exception):
    """The run was killed."""


@pytest.mark.slow
def test_a_stopped_run_ends_as_one_that_was_not(tmp_path, monkeypatch):
    config = CurvesConfig(
        model="lenet300",
        pretrain=Fit(epochs=1, optimizer="sgd", learning_rate=0.05),
        seeds=2,
        candidates=(Candidate("sgd"),),
        ratios=(5.0,),
    )
    expected = ssgd.run(config, tmp_path / "whole", progress=False)
    write, calls = Workdir.write, iter(range(1))

    def failing(self, name, contents):
        if next(calls, None) is None:
            raise Stopped
        return write(self, name, contents)

    monkeypatch.setattr(Workdir, "write", failing)
    with pytest.raises(Stopped):
        ssgd.run(config, tmp_path / "stopped", progress=False)
    monkeypatch.undo()
    found = ssgd.run(config, tmp_path / "stopped", progress=False)
    assert found["curves"] == expected["curves"]
    assert [r["seed"] for r in read_metrics(tmp_path / "stopped")] == [0, 1]


def test_every_profile_is_a_valid_configuration():
    for profile in ("full", "lenet5", "tiny"):
        curves.check(get_config(profile))
    with pytest.raises(ValueError, match="Unknown profile 'other'"):
        get_config("other")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"candidates": ()}, "holds no 'sgd'"),
        ({"candidates": (Candidate("sgd"), Candidate("magic"))}, r"candidates\[1\]\.method is 'magic'"),
        ({"candidates": (Candidate("sgd"), Candidate("sgd"))}, "same as an earlier candidate"),
        ({"candidates": (Candidate("sgd", 1.0),)}, "sgd has none"),
        ({"candidates": (Candidate("sgd"), Candidate("powerprop", 0.5))}, "at least 1"),
        ({"candidates": (Candidate("sgd"), Candidate("ssgd_p", 2.5))}, "at most 2"),
        ({"candidates": (Candidate("sgd"), Candidate("ssgd_log_l2"))}, "must be positive"),
        ({"ratios": ()}, "config.ratios is"),
        ({"ratios": (1.0, 2.0)}, "all above 1"),
        ({"seeds": 0}, "config.seeds is 0"),
        ({"distill": Distill(weight=0.5)}, "from scratch"),
    ],
)
def test_bad_input_is_refused_before_training(changes, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        ssgd.run(CurvesConfig(**{"candidates": (Candidate("sgd"),), **changes}), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_configuration_of_another_program_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"experiments\.ssgd takes a CurvesConfig"):
        ssgd.run(schema.Config(), tmp_path / "run")


def test_the_best_of_a_column_is_bold():
    point = lambda accuracy: [{"ratio": 5.0, "test_accuracy": accuracy}]  # noqa: E731
    names = {"method": "l1", "value": 1e-3, "learning_rate": 0.1}, {"method": "sgd", "value": 0.0, "learning_rate": 0.1}
    report_ = {"curves": [{**names[0], "points": point(0.9)}, {**names[1], "points": point(0.8)}]}
    table = curve_records.to_markdown([Record("net", 0, report_)]).splitlines()
    assert table[4] == "| l1 (strength 0.001, learning rate 0.1) | **90.00 %** |"
    assert table[5] == "| SGD (learning rate 0.1) | 80.00 % |"


@pytest.mark.parametrize(
    ("method", "value", "scales"),
    [
        ("sgd", 0.0, lambda w: np.ones_like(w)),
        ("powerprop", 2.0, lambda w: 4 * w),  # to first order alpha^2 w^(2 - 2 / alpha)
        ("ssgd_log_l2", 1e-2, lambda w: (w**2 + 1e-2) / np.mean(w**2 + 1e-2)),
        ("ssgd_log_l1", 1e-1, lambda w: (w + 1e-1) ** 2 / np.mean((w + 1e-1) ** 2)),
        ("ssgd_p", 0.5, lambda w: (w + 1e-3) ** 1.5 / np.mean((w + 1e-3) ** 1.5)),
    ],
)
def test_every_method_is_what_it_is_called(method, value, scales):
    w = np.array([[0.1, 0.3, 1.0]], np.float32)
    params = {"fc": {"kernel": jnp.asarray(w), "bias": jnp.ones(3)}}
    transform = ssgd.optimizer(Candidate(method, value), Fit(optimizer="sgd", learning_rate=1e-3), 10)
    updates, _ = transform.update(jax.tree.map(jnp.ones_like, params), transform.init(params), params)
    # The first step of Nesterov momentum 0.9 is 1.9 gradients.
    np.testing.assert_allclose(updates["fc"]["kernel"], -1.9e-3 * scales(w), rtol=0.02)
    np.testing.assert_allclose(updates["fc"]["bias"], -1.9e-3 * np.ones(3), rtol=1e-5)


def test_adam_gets_its_scales_after_it():
    params = {"fc": {"kernel": jnp.array([[0.1, 1.0]])}}
    transform = ssgd.optimizer(Candidate("ssgd_p", 1.0), Fit(optimizer="adam", learning_rate=0.1), 10)
    updates, _ = transform.update(jax.tree.map(jnp.ones_like, params), transform.init(params), params)
    step = updates["fc"]["kernel"][0]
    assert step[1] / step[0] > 5
