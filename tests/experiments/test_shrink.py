"""The shrink program end to end on the embedded digits: files, numbers that fit together, and refusals."""

import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from compressjax import cost, data, storage, trees, zoo
from experiments import cuts, report, schema, shrink
from experiments.cuts import Cut, ShrinkConfig, Sparsify
from experiments.cutting import Knife, sparsifier
from experiments.fitting import accuracy
from experiments.runner import describe, rebuild
from experiments.schema import Distill, Fit
from experiments.workdir import Workdir, read_metrics


def config(**changes) -> ShrinkConfig:
    values = {
        "model": "lenet300",
        "pretrain": Fit(epochs=4, learning_rate=2e-3),
        "cuts": (
            Cut(removed=0.5),
            Cut(score="taylor", allocation="per_cost", removed=0.7),
            Cut(score="importance", allocation="trim", cost="simd", removed=0.4),
            Cut(widths={"fc1/kernel": 40}),
        ),
        "retrain": Fit(epochs=2, learning_rate=2e-3),
        "score_images": 512,
        "trim_rounds": 2,
        "trim_images": 200,
        "latency_batch": 8,
    }
    return ShrinkConfig(**{**values, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "shrink"
    return workdir, shrink.run(config(), workdir, progress=False)


def test_every_cut_leaves_a_file_that_rebuilds_its_network(finished):
    workdir, found = finished
    digits = data.load("digits")
    for cut in found["cuts"]:
        artifact = storage.load(workdir / cut["file"])
        model = rebuild(artifact.meta, classes=10, input_shape=digits.train.images.shape[1:])
        assert accuracy(model, artifact.params, digits.test()) == cut["test_accuracy"]
        assert cut["test_accuracy"] > 0.5  # chance is 0.1
        assert sum(np.size(leaf) for leaf in jax.tree.leaves(artifact.params)) == cut["parameters"]


def test_what_was_asked_to_go_is_gone(finished):
    _, found = finished
    half, taylor, trimmed, named = found["cuts"]
    assert half["macs"] <= 0.5 * found["dense"]["macs"] < 1.2 * half["macs"]
    assert taylor["macs"] <= 0.3 * found["dense"]["macs"]
    assert trimmed["platform_speedup"]["simd"] >= 1 / 0.6
    assert trimmed["rounds"][-1]["cost"] == pytest.approx(trimmed["platform_seconds"]["simd"], rel=1e-5)
    assert named["widths"][next(iter(named["widths"]))] in (40, 300)
    assert sorted(named["widths"].values()) == [40, 100]


def test_macs_are_those_of_the_rebuilt_network(finished):
    workdir, found = finished
    artifact = storage.load(workdir / found["cuts"][0]["file"])
    model = zoo.build("lenet300", widths=artifact.meta["widths"], input_shape=(28, 28, 1))
    layers = cost.layers(model.apply, artifact.params, jax.ShapeDtypeStruct((1, *model.input_shape), "float32"))
    assert found["cuts"][0]["macs"] == cost.macs(layers).sum()


def test_metrics_and_page(finished):
    workdir, found = finished
    first = [r for r in read_metrics(workdir) if r["phase"].endswith("/retrain") and r["step"] == 0]
    assert [r["validation_accuracy"] for r in first] == [cut["before_accuracy"] for cut in found["cuts"]]
    page = (workdir / "report.html").read_text()
    assert all(cut["name"] in page for cut in found["cuts"])
    assert page.count("<figure>") == 2
    assert report.CSS in page


def test_a_finished_run_is_not_repeated(finished):
    workdir, found = finished
    assert shrink.run(config(), workdir, progress=False) == found


@pytest.mark.slow
def test_lasso_zeros_what_is_then_cut(tmp_path):
    sparse = Sparsify(epochs=4, learning_rate=2e-3, strength=1.5, groups={"fc1/kernel": 2.0})
    found = shrink.run(config(sparsify=sparse, cuts=(Cut(allocation="zeros"),)), tmp_path / "lasso", progress=False)
    (cut,) = found["cuts"]
    assert cut["parameters"] < found["dense"]["parameters"]
    assert (tmp_path / "lasso" / "sparse.cjx").exists()


@pytest.mark.slow
def test_admm_reaches_its_widths_and_the_cut_takes_them(tmp_path):
    widths = {"fc1/kernel": 60, "fc2/kernel": 30}
    sparse = Sparsify(method="admm", epochs=2, learning_rate=2e-3, rho=0.3, every=5, widths=widths)
    cuts = (Cut(allocation="zeros"), Cut(score="importance", widths=widths))
    found = shrink.run(config(sparsify=sparse, cuts=cuts), tmp_path / "admm", progress=False)
    assert [sorted(cut["widths"].values()) for cut in found["cuts"]] == [[30, 60], [30, 60]]
    sparse = storage.load(tmp_path / "admm" / "sparse.cjx").params
    assert int((np.asarray(sparse["fc1"]["kernel"]) != 0).any(0).sum()) == 60


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"cuts": ()}, "cuts is empty"),
        ({"cuts": (Cut(multiple=-1),)}, "multiple is -1"),
        ({"sparsify": Sparsify(epochs=1.0, method="admm")}, "widths is empty"),
        ({"sparsify": Sparsify(epochs=1.0, widths={"fc1/kernel": 5})}, "belongs to admm"),
        ({"sparsify": Sparsify(epochs=1.0, method="admm", widths={"fc1/kernel": 301})}, "has 300"),
        ({"sparsify": Sparsify(epochs=1.0, method="admm", widths={"fc1/kernel": 5}, rho=0.0)}, "sparsify.rho"),
        ({"cuts": (Cut(score="luck"),)}, "score is 'luck'"),
        ({"cuts": (Cut(removed=1.0),)}, "removed is 1.0"),
        ({"cuts": (Cut(cost="moon"),)}, "cost is 'moon'"),
        ({"cuts": (Cut(), Cut())}, "same as an earlier cut"),
        ({"cuts": (Cut(allocation="trim", removed=0.0),)}, "nothing to trim"),
        ({"cuts": (Cut(removed=0.99),)}, "goes, not 99.0%"),
        ({"cuts": (Cut(allocation="trim", cost="simd", removed=0.95),)}, "goes, not 95.0%"),
        ({"cuts": (Cut(allocation="trim", removed=0.1, multiple=512),)}, "0.0% of the cost goes, not 10.0%"),
        ({"cuts": (Cut(score="norm_scale"),)}, "no normalization"),
        ({"sparsify": Sparsify(epochs=1.0, method="slimming")}, "matches no leaf"),
        ({"sparsify": Sparsify(epochs=1.0, method="slimming", reweight=5)}, "slimming has neither"),
        (
            {"sparsify": Sparsify(epochs=1.0, method="slimming"), "cuts": (Cut(allocation="zeros"),)},
            "slimming zeros scales",
        ),
        ({"sparsify": Sparsify(epochs=1.0, groups={"fc1/kernel": -2.0})}, "must be positive"),
        ({"cuts": (Cut(widths={"fc1/kernel": 301}),)}, "has 300"),
        ({"cuts": (Cut(widths={"fc3/kernel": 5}),)}, "axis of the result"),
        ({"cuts": (Cut(widths={"fc9/kernel": 5}),)}, "fc9/kernel"),
        ({"fixed": ("conv*",)}, "matches no leaf"),
        ({"fixed": ("*",)}, "no group"),
        ({"floor": 1.5}, "config.floor"),
        ({"distill": Distill(weight=0.5), "retrain": Fit(flip=True)}, "not mirrored"),
        ({"sparsify": Sparsify(groups={"fc3/kernel": 2.0})}, "fc3/kernel"),
    ],
)
def test_bad_input_is_refused_before_training(tmp_path: Path, changes, match):
    with pytest.raises(ValueError, match=match):
        shrink.run(config(**changes), tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_configuration_of_the_other_program_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"experiments\.shrink takes a ShrinkConfig"):
        shrink.run(schema.Config(), tmp_path / "run")
    with pytest.raises(ValueError, match=r"experiments\.compress takes a Config"):
        schema.check(config())


def test_weights_of_another_shape_are_refused(tmp_path):
    narrow = zoo.build("lenet300", widths=(30, 100), input_shape=(8, 8, 1))
    (tmp_path / "narrow.cjx").write_bytes(storage.encode(narrow.init(jax.random.key(0)), describe(narrow)))
    with pytest.raises(ValueError, match=r"at fc1/bias it has shape \(30,\), the network shape \(300,\)"):
        shrink.run(config(load=str(tmp_path / "narrow.cjx")), tmp_path / "run")


def test_groups_without_a_producing_kernel_are_refused_before_training():
    model = zoo.build("vit", layers=1, widths=(8, 2, 4, 4, 6), input_shape=(8, 8, 1))  # heads are an inner axis
    with pytest.raises(ValueError, match="No kernel produces"):
        Knife(config(model="vit", cuts=(Cut(),)), model, data.load("digits")).check()


def test_given_widths_stand_instead_of_any_allocation():
    digits = data.load("digits")
    model = zoo.build("lenet300", input_shape=digits.train.images.shape[1:])
    knife = Knife(config(), model, digits)
    cut = Cut(allocation="zeros", widths={"fc1/kernel": 40})
    keep, _ = knife.choose(model.init(jax.random.key(0)), cut)
    assert [int(vector.sum()) for vector in keep.values()] == [40]


def test_the_lasso_leaves_running_statistics_alone():
    digits = data.load("digits")
    model = zoo.build("resnet20", widths=(4, 3), blocks=(1,), input_shape=digits.train.images.shape[1:])
    params = model.init(jax.random.key(0))
    optimizer = sparsifier(Knife(config(sparsify=Sparsify(epochs=1.0, strength=1.0)), model, digits), params, 10)
    still = jax.tree.map(np.zeros_like, params)
    updates, _ = jax.jit(optimizer.update)(still, optimizer.init(params), params)
    moved = {path.rsplit("/", 1)[1] for path, leaf in trees.leaves(updates).items() if np.any(leaf)}
    assert moved == {"kernel", "scale"}


class Stopped(Exception):
    """The run was killed."""


@pytest.mark.slow
def test_a_stopped_run_ends_as_one_that_was_not(finished, tmp_path, monkeypatch):
    """Before a cut has its first checkpoint, and after: its record with the notes is there once either way."""
    complete, report_ = finished
    writes = {"record": Workdir.record, "save": Workdir.save}
    for stop in (5, 8):
        calls = iter(range(stop))

        def counted(self, *args, calls=calls, name="record"):
            if next(calls, None) is None:
                raise Stopped
            return writes[name](self, *args)

        monkeypatch.setattr(Workdir, "record", counted)
        monkeypatch.setattr(Workdir, "save", functools.partialmethod(counted, name="save"))
        with pytest.raises(Stopped):
            shrink.run(config(), tmp_path, progress=False)
    monkeypatch.undo()
    again = shrink.run(config(), tmp_path, progress=False)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (complete / "metrics.jsonl").read_bytes()
    for cut in report_["cuts"]:
        assert (tmp_path / cut["file"]).read_bytes() == (complete / cut["file"]).read_bytes()
    assert [cut["rounds"] for cut in again["cuts"]] == [cut["rounds"] for cut in report_["cuts"]]


def test_files_rebuild_networks_whose_options_do_not_follow_their_widths():
    vit = zoo.build("vit", layers=1, widths=(8, 2, 4, 4, 6), divisor=16)  # cut from 16 channels
    for model in (vit, zoo.build("resnet20", widths=(4, 3, 6, 5), blocks=(1, 1), pads=(2, 0), input_shape=(8, 8, 1))):
        meta = storage.decode(storage.encode({"w": np.ones(1, np.float32)}, describe(model))).meta
        assert rebuild(meta, classes=model.classes, input_shape=model.input_shape) == model


def test_fixed_leaves_keep_their_channels():
    digits = data.load("digits")
    model = zoo.build("lenet300", input_shape=digits.train.images.shape[1:])
    knife = Knife(config(fixed=("fc2/bias",)), model, digits)
    assert {member.path for group in knife.groups for member in group.members} == {
        "fc1/bias",
        "fc1/kernel",
        "fc2/kernel",
    }


def test_names_of_cuts_are_file_names():
    assert cuts.cut_name(Cut(score="l1", removed=0.35)) == "l1-uniform-macs-35"
    assert json.dumps(cuts.cut_name(Cut(allocation="zeros"))) == '"zeros"'
