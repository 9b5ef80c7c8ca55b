"""Ways to a sparse network end to end on the embedded digits: counts, starts, epochs, files and refusals."""

import functools
import json
import re
import shutil

import jax
import numpy as np
import pytest

from compressjax import data, storage, zoo
from configs.lenet300_sparse import get_config
from experiments import (
    contest_report,
    curve_records,
    results,
    runner,
    schema,
    sparse_config,
    sparse_methods,
    sparse_training,
)
from experiments.contest import Candidate
from experiments.fitting import accuracy
from experiments.records import load
from experiments.schema import Fit
from experiments.sparse_config import METHODS, SparseConfig
from experiments.workdir import Workdir, read_metrics

RATIO = 10.0
FEW = ("dense", "rigl", "soft_threshold")


def finish(folder, methods):
    """A finished tiny run of some methods."""
    config = get_config("tiny")
    config.candidates = tuple(candidate for candidate in config.candidates if candidate.method in methods)
    with pytest.MonkeyPatch.context() as patch:  # to find the smallest files takes longer than to train
        patch.setattr(storage, "encode", functools.partial(storage.encode, positions=storage.POSITION_CODECS[:1]))
        return folder / "sparse", config, sparse_training.run(config, folder / "sparse", progress=False)


def networks(workdir):
    """Kernels of every file of a run by name."""
    return {
        file.stem: {path: np.asarray(leaf) for path, leaf in sparse_methods.kernels(storage.load(file).params).items()}
        for file in (workdir / "seed0").glob("*.cjx")
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finish(tmp_path_factory.mktemp("few"), FEW)


def test_all_have_the_same_number_of_weights(finished):
    _, _, found = finished
    assert [curve["method"] for curve in found["curves"]] == list(FEW)
    dense, *others = found["curves"]
    total = found["dense"]["weights"]
    assert [(point["ratio"], point["weights"]) for point in dense["points"]] == [(1.0, total)]
    for curve in others:
        (point,) = curve["points"]
        assert (point["ratio"], point["weights"]) == (RATIO, int(total / RATIO))
        assert point["test_accuracy"]["mean"] > 0.5  # chance is 0.1


def test_accuracies_are_those_of_the_files(finished):
    workdir, _, found = finished
    digits = data.load("digits", seed=0)
    model = zoo.build("lenet300", input_shape=digits.train.images.shape[1:])
    seed = json.loads((workdir / "seed0" / "report.json").read_text())
    for curve, mean in zip(seed["curves"][1:], found["curves"][1:], strict=True):
        params = storage.load(workdir / "seed0" / f"{curve['name']}-10x.cjx").params
        (point,) = curve["points"]
        assert accuracy(model, params, digits.validation) == point["validation_accuracy"]
        assert accuracy(model, params, digits.test()) == point["test_accuracy"]
        assert mean["points"][0]["test_accuracy"]["mean"] == point["test_accuracy"]


def test_what_soft_thresholds_reached_is_told(finished):
    workdir, _, found = finished
    (curve,) = [curve for curve in found["curves"] if curve["method"] == "soft_threshold"]
    left = sum(np.count_nonzero(leaf) for leaf in networks(workdir)[curve["name"]].values())
    assert found["dense"]["weights"] / RATIO < left < found["dense"]["weights"]
    assert curve["reached"]["weights"] == left
    assert f"{left:,} weights" in (workdir / "report.html").read_text()


def test_the_reports_of_seeds_are_records(finished, tmp_path):
    workdir, _, found = finished
    shutil.copy(workdir / "seed0" / "report.json", tmp_path / "digits_sparse-seed0.json")
    records = load(tmp_path)
    table = curve_records.to_markdown(records).splitlines()
    assert table[2] == "| method | dense | 10.0× |"
    assert len(table) == 4 + len(FEW)
    assert re.search(r"^\| dense \(Adam, learning rate 0\.001\) \| \*\*\d.* \|  \|$", table[4])
    text = results.section(records)
    assert "**Ways to a sparse network**" in text
    assert "Pruned without retraining" not in text
    lines = contest_report.headline(found).splitlines()
    assert lines[0].split() == ["dense", "10.0×"]
    assert len(lines) == 1 + len(FEW)


def test_a_finished_run_is_not_repeated(finished):
    workdir, config, found = finished
    assert sparse_training.run(config, workdir, progress=False) == found


@pytest.mark.slow
def test_every_method_keeps_its_counts_and_its_epochs(tmp_path):
    workdir, _, found = finish(tmp_path, METHODS)
    assert [curve["method"] for curve in found["curves"]] == list(METHODS)
    count = int(found["dense"]["weights"] / RATIO)
    for curve in found["curves"][1:]:
        # A weight that SET has grown where the gradient is always zero lives, and is zero.
        kept = curve["points"][0]["weights"]
        assert kept == count or (curve["method"] == "set" and 0.99 * count < kept < count)

    known = networks(workdir)
    layers = {name: {path: np.count_nonzero(leaf) for path, leaf in kernels.items()} for name, kernels in known.items()}
    expected = sparse_methods.erk(known["dense"], RATIO)
    assert layers["static-10x"] == layers["rigl-0.3-10x"] == expected != layers["snip-10x"]
    alive = {
        name: np.concatenate([(leaf != 0).ravel() for leaf in kernels.values()]) for name, kernels in known.items()
    }
    assert np.any(alive["rigl-0.3-10x"] != alive["static-10x"])
    assert np.any(alive["set-0.3-10x"] & ~alive["static-10x"])
    assert alive["lottery_ticket-3.16228x"].sum() == int(found["dense"]["weights"] / 10**0.5)
    assert np.all(alive["lottery_ticket-3.16228x"] | ~alive["lottery_ticket-10x"])

    ends = {record["phase"]: record["epoch"] for record in read_metrics(workdir / "seed0")}
    behind = {  # the phases that lead to a network
        "dense": ["dense"],
        "soft_threshold-0.001": ["soft_threshold-0.001", "soft_threshold-0.001-10x"],
        "gradual_magnitude": ["pretrain", "gradual_magnitude-10x"],
        "admm-0.03": ["pretrain", "admm-0.03-10x/admm", "admm-0.03-10x/retrain"],
        "lottery_ticket": [f"lottery_ticket{end}" for end in ("-early", "", "-3.16228x", "-10x")],
    }
    trained = {curve["name"]: behind.get(curve["name"], [f"{curve['name']}-10x"]) for curve in found["curves"]}
    assert ends.keys() == {phase for phases in trained.values() for phase in phases}
    for curve in found["curves"]:
        spent = sum(ends[phase] for phase in trained[curve["name"]])
        assert spent == pytest.approx(curve["points"][0]["epochs"], abs=0.05)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A run that has a network and data, and trains nothing."""
    config = SparseConfig(model="lenet300", candidates=(Candidate("dense"),), score_rounds=3, score_images=50)
    with Workdir(tmp_path_factory.mktemp("runs") / "small", schema.to_dict(config)) as place:
        yield runner.Run(config, place, sparse_methods.plan, progress=False)


@pytest.mark.parametrize("ratio", [3.0, 7.0, 50.0])
def test_layers_add_up_to_the_same_count(small, ratio):
    params = sparse_methods.fresh(small)
    total = sum(leaf.size for leaf in sparse_methods.kernels(params).values())
    assert sparse_methods.count(params, ratio) == int(total / ratio)
    assert sum(sparse_methods.erk(params, ratio).values()) == int(total / ratio)


@pytest.mark.parametrize("method", ["snip", "grasp", "synflow"])
def test_scores_leave_initial_weights_at_their_values(small, method):
    params = sparse_methods.fresh(small)
    start = sparse_methods.scored_start(small, method, 20.0)
    kept = 0
    for path, leaf in sparse_methods.kernels(start).items():
        alive = np.asarray(leaf) != 0
        np.testing.assert_array_equal(np.asarray(leaf)[alive], np.asarray(sparse_methods.kernels(params)[path])[alive])
        kept += alive.sum()
    assert kept == sparse_methods.count(params, 20.0)


def test_thresholds_are_small_at_first_and_leave_the_function_nearly_as_it_is(small):
    params, images = sparse_methods.fresh(small), small.data.validation.images[:20] / 255.0
    model = sparse_methods.Thresholded(small.model)
    start = model.start(params)
    assert jax.tree.structure(model.finish(start)) == jax.tree.structure(params)
    np.testing.assert_allclose(model.apply(start, images), small.model.apply(params, images), atol=0.3)


def test_every_profile_is_a_valid_configuration():
    for profile in ("full", "tiny"):
        sparse_config.check(get_config(profile))
    with pytest.raises(ValueError, match="Unknown profile 'other'"):
        get_config("other")


DENSE = Candidate("dense")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"candidates": (Candidate("static"),)}, "holds no 'dense'"),
        ({"candidates": (DENSE, Candidate("magic"))}, r"candidates\[1\]\.method is 'magic'"),
        ({"candidates": (DENSE, Candidate("static", 0.1))}, "static has none"),
        ({"candidates": (DENSE, Candidate("rigl", 1.5))}, "a share above 0 and up to 1"),
        ({"candidates": (DENSE, Candidate("acdc", 1.5))}, "a whole number of at least 1"),
        ({"candidates": (DENSE, Candidate("admm"))}, "must be positive"),
        ({"ratios": (1.0,)}, "all above 1"),
        ({"train": Fit(epochs=2)}, "it must exceed"),
        ({"settle": 0.0}, r"config\.settle is 0\.0"),
        ({"every": 0}, r"config\.every is 0"),
        ({"round_ratio": 1.0}, "must be at least 1.01"),
    ],
)
def test_bad_input_is_refused_before_training(changes, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        sparse_training.run(SparseConfig(**{"candidates": (DENSE,), **changes}), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_configuration_of_another_program_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"experiments\.sparse_training takes a SparseConfig"):
        sparse_training.run(schema.Config(), tmp_path / "run")
