"""The compression program end to end, on a tiny budget, and its refusals."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compressjax import data, storage, trees, zoo
from experiments import (
    compress,
    cuts,
    cutting,
    fault_configs,
    phases,
    schema,
)
from experiments.fitting import accuracy
from experiments.schema import Admm, Distill, Fit, Quantize
from experiments.workdir import Workdir, read_metrics
from tests.experiments import tiny

ROOT = Path(__file__).parents[2]
CHECKS = fault_configs.checks()


def test_leaves_every_promised_file(tiny_run):
    workdir, _ = tiny_run
    for name in ("config.json", "metrics.jsonl", "report.json", "report.html", "model.cjx", "dense.cjx", "stage-1.cjx"):
        assert (workdir / name).stat().st_size > 0, name


def test_counts_are_exact_and_accuracy_is_kept(tiny_run):
    _, report = tiny_run
    stage = report["stages"][0]
    assert stage["keep"] == {"fc1/kernel": 4000, "fc2/kernel": 800, "fc3/kernel": 200}
    assert stage["weights"] <= 5000  # removing dead units may take more
    assert stage["ratio"] >= 266_200 / 5000
    assert stage["test_accuracy"] > report["dense"]["test_accuracy"] - 0.1


def test_report_describes_the_reloaded_file(tiny_run):
    workdir, report = tiny_run
    item = report["quantized"][0]
    content = (workdir / "model.cjx").read_bytes()
    assert item["bytes"] == len(content)
    artifact = storage.decode(content)
    model = zoo.build(artifact.meta["model"], widths=artifact.meta["widths"])
    assert item["test_accuracy"] == accuracy(model, artifact.params, data.load("digits").test())
    for path, kernel in trees.leaves(artifact.params).items():
        if path.endswith("kernel"):
            assert len(np.unique(kernel[kernel != 0])) <= 8


def test_ratios_are_ordered_and_add_up(tiny_run):
    _, report = tiny_run
    item = report["quantized"][0]
    assert item["ratio_data"] > item["ratio_file_without_biases"] > 1
    assert item["ratio_data"] > item["ratio_data_with_biases"] > item["ratio_file"] > 1
    streams = sum(bits for leaf in item["streams"].values() for bits in leaf.values())
    assert streams + item["header_bits"] == 8 * item["bytes"]


def test_metrics_tell_the_residuals(tiny_run):
    workdir, _ = tiny_run
    last = [record for record in read_metrics(workdir) if record["phase"] == "stage-1/admm"][-1]
    assert set(last["primal"]) == set(tiny.LAYERS)
    assert all(value >= 0 for value in last["primal"].values())
    assert last["rho"] == pytest.approx(0.05, rel=0.05)


def test_a_finished_run_is_not_repeated(tiny_run):
    workdir, report = tiny_run
    before = (workdir / "metrics.jsonl").read_bytes()
    assert compress.run(tiny.config(), workdir, progress=False) == report
    assert (workdir / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_control_and_load_share_the_dense_network(tiny_run, tmp_path):
    workdir, report = tiny_run
    config = tiny.config(control=True, load=str(workdir / "dense.cjx"), quantize=())
    both = compress.run(config, tmp_path / "both", progress=False)
    assert both["dense"]["test_accuracy"] == report["dense"]["test_accuracy"]
    assert [stage["solver"] for stage in both["stages"] + both["control"]] == ["admm", "gradual_magnitude"]
    assert both["control"][0]["nonzeros"]["fc1/kernel"] <= 4000
    assert "gradual magnitude (control)" in (tmp_path / "both" / "report.html").read_text()


@pytest.mark.slow
def test_distillation_scan_and_coarse_schedule_run(tmp_path):
    stage = tiny.config().stages[0]
    stage.prune = Admm(epochs=2, every=0, iterations=3, rho=1e-2)
    config = tiny.config(stages=(stage,), quantize=(), distill=Distill(weight=0.5), loop="scan")
    report = compress.run(config, tmp_path / "run", progress=False)
    assert report["stages"][0]["test_accuracy"] > 0.3  # chance is 0.1


def test_refuses_another_configuration(tiny_run):
    workdir, _ = tiny_run
    with pytest.raises(ValueError, match=r"another configuration \(seed differ"):
        compress.run(tiny.config(seed=1), workdir, progress=False)


def test_refuses_a_second_writer(tmp_path):
    config = schema.to_dict(tiny.config())
    with (
        Workdir(tmp_path, config),
        pytest.raises(ValueError, match="Another run is writing"),
        Workdir(tmp_path, config),
    ):
        pass


def test_refuses_an_unwritable_workdir(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        compress.run(tiny.config(), tmp_path / "file" / "run", progress=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"solver": "magic"}, "choose one of admm"),
        ({"seed": "one"}, "must be of type int"),
        ({"pretrain": Fit(epochs="two")}, "must be a number"),  # type: ignore[arg-type]
        ({"pretrain": Fit(learning_rate=0.0)}, "must be positive"),
        ({"dataset": "imagenet"}, "imagenet"),
        ({"model": "lenet6"}, "lenet6"),
        ({"batch_size": 0}, "at least 1"),
        ({"pretrain": Fit(epochs=float("inf"))}, "finite"),
        ({"widths": (300, 101)}, "hidden layers of"),
        ({"load": "no/such/dense.cjx"}, "no/such"),
        ({"solver": "gradual_magnitude", "control": True}, "config.control adds"),
    ],
)
def test_bad_configuration_is_one_sentence(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        compress.run(tiny.config(**changes), tmp_path / "run", progress=False)


@pytest.mark.parametrize(
    ("keep", "message"),
    [({"conv9/kernel": 10}, "matches no leaf"), ({"fc3/kernel": 10**6}, "1000000")],
)
def test_rules_that_do_not_fit(keep, message, tmp_path):
    config = tiny.config()
    config.stages[0].keep = keep
    with pytest.raises(ValueError, match=message):
        compress.run(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()  # refused before anything is trained
    with pytest.raises(ValueError, match="matches no leaf"):  # and the directory may be used again
        compress.run(tiny.config(quantize=(Quantize(stage=0, bits={"conv*": 2}),)), tmp_path / "run", progress=False)


def test_divergence_names_step_and_leaf_and_keeps_the_checkpoint(tmp_path):
    config = tiny.config()
    config.stages[0].prune.learning_rate = 1e30
    with pytest.raises(ValueError, match=r"fc\d/(bias|kernel) is not finite at step \d"):
        compress.run(config, tmp_path, progress=False)
    with Workdir(tmp_path, schema.to_dict(config)) as directory:
        _, arrays, progress = directory.restore()
    assert progress["phase"] == 1
    assert all(np.isfinite(leaf).all() for leaf in trees.leaves(arrays["params"]).values())


def test_a_dense_network_of_another_seed_is_refused(tiny_run, tmp_path):
    workdir, _ = tiny_run
    with pytest.raises(ValueError, match="seed 0, this run has 1"):
        compress.run(tiny.config(load=str(workdir / "dense.cjx"), seed=1), tmp_path, progress=False)


def test_lost_records_are_noticed(tiny_run, tmp_path):
    workdir, _ = tiny_run
    config = json.loads((workdir / "config.json").read_text())
    with Workdir(tmp_path, config) as directory:
        directory.record({"step": 0})
        directory.save(1, {"x": np.zeros(2)}, {"phase": 0})
        (tmp_path / "metrics.jsonl").write_text("")
        with pytest.raises(ValueError, match="lost records"):
            directory.restore()


CONFIGS = fault_configs.files()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_valid_in_every_profile(path):
    module = importlib.import_module(f"configs.{path.stem}")
    for profile in ("full", "tiny"):
        config = module.get_config(profile)
        CHECKS[type(config)](config)
        if isinstance(config, cuts.ShrinkConfig):
            cutting.Knife(config, zoo.build(config.model), None).check()
        elif isinstance(config, schema.Config):
            phases.preflight(config, zoo.build(config.model))
    with pytest.raises(ValueError, match="profile"):
        module.get_config("huge")


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    program = [sys.executable, "-m", "experiments.compress", *arguments]
    return subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/digits_admm.py:tiny", "--config.sead=1"], "sead"),
        (["--config=configs/digits_admm.py:tiny", "--config.seed=one"], "one"),
        (["--config=configs/digits_admm.py:tiny", "--config.solver=magic"], "choose one of"),
        (["--config=configs/nope.py"], "nope.py"),
    ],
)
def test_command_line_errors_are_one_sentence(arguments, message, tmp_path):
    done = command(*arguments, f"--workdir={tmp_path / 'run'}")
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_help_explains_and_lists_the_flags():
    done = command("--help")
    assert "--config" in done.stdout
    assert "Running the same command again resumes" in done.stdout
