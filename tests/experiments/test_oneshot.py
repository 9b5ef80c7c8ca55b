"""The one-shot comparison end to end on the embedded digits, and the benchmark's own arithmetic."""

import json

import numpy as np
import pytest

from compressjax import storage
from configs.resnet_oneshot import get_config
from experiments import bench_oneshot, oneshot, oneshot_plots
from experiments.oneshot_config import OneshotConfig, check


def test_a_run_fills_the_table_and_resumes(tmp_path):
    config = get_config("tiny")
    config.methods, config.removed, config.fixed = ("magnitude",), (0.5,), ("fc1/kernel", "fc3/kernel")
    report = oneshot.run(config, tmp_path)
    assert [(cell["pattern"], cell["method"]) for cell in report["cells"]] == [
        ("50 %", "magnitude"),
        ("2:4", "magnitude"),
    ]
    assert all(cell["kept"] == report["weights"] // 2 for cell in report["cells"])
    assert all("always zero" in cell["shortages"][0] for cell in report["cells"])
    lines = oneshot.to_markdown(report).splitlines()
    assert lines[0] == "| removed | magnitude |"
    assert lines[2].startswith("| 50 % | ")
    # Without its report the run takes its cells from the records, without computing anything.
    (tmp_path / "report.json").unlink()
    records = (tmp_path / "metrics.jsonl").read_text()
    again = oneshot.run(config, tmp_path)
    assert again["cells"] == report["cells"]
    assert (tmp_path / "metrics.jsonl").read_text() == records
    assert json.loads((tmp_path / "report.json").read_text())["config"]["model"] == "lenet300"


def test_quantized_networks_are_written_as_files(tmp_path):
    config = get_config("tiny")
    config.methods, config.removed, config.bits, config.fixed = ("magnitude",), (0.0, 0.5), (2,), ("fc1/kernel",)
    report = oneshot.run(config, tmp_path)
    assert [cell["pattern"] for cell in report["cells"]] == ["0 %, 2 bit", "50 %, 2 bit", "2:4, 2 bit"]
    for cell, name in zip(report["cells"], ("0-2bit", "50-2bit", "2of4-2bit"), strict=True):
        file = tmp_path / f"magnitude-{name}.cjx"
        assert file.stat().st_size == cell["bytes"]
        kernels = [storage.load(file).params[layer]["kernel"] for layer in ("fc2", "fc3")]
        assert all(len(np.unique(kernel[kernel != 0])) <= 4 for kernel in kernels)
        assert sum(map(np.count_nonzero, kernels)) == cell["kept"]
    assert " bytes |" in oneshot.to_markdown(report)
    assert b"</svg>" in (tmp_path / "curve.svg").read_bytes()
    lines = oneshot_plots.curve(report).axes[0].get_lines()
    assert [line.get_label() for line in lines[:3]] == [
        f"magnitude, {name}" for name in ("0 % removed", "50 % removed", "2:4")
    ]
    assert [line.get_xdata()[0] for line in lines[:3]] == [cell["bytes"] for cell in report["cells"]]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (OneshotConfig(methods=("luck",)), r"config.methods\[0\] is 'luck'"),
        (OneshotConfig(calibration=100, batch_size=64), "multiple of batch_size 64"),
        (OneshotConfig(removed=(1.0,)), "config.removed holds 1.0"),
        (OneshotConfig(removed=(0.0,)), "config.removed holds 0.0"),
        (OneshotConfig(methods=("alps",), bits=(9,)), "config.bits holds 9"),
        (OneshotConfig(bits=(4,)), "'wanda', which does not quantize"),
        (OneshotConfig(dataset=""), "no trained networks on random tokens"),
        (OneshotConfig(load="somewhere"), "config.load is 'somewhere'"),
    ],
)
def test_bad_configurations(config, words):
    with pytest.raises(ValueError, match=words):
        check(config)


def test_profiles():
    assert get_config("decoder").dataset == ""
    check(get_config("decoder"))
    check(get_config())
    check(get_config("files"))
    with pytest.raises(ValueError, match="Unknown profile"):
        get_config("huge")


@pytest.mark.slow
def test_alps_agrees_with_its_numpy_version():
    x, w = bench_oneshot.problem(24, 96)
    errors = []
    for method in ("magnitude", "alps", "alps_numpy"):
        found = bench_oneshot.solve(method, x, w, 0.3)
        assert np.count_nonzero(found) == int(0.3 * w.size)
        errors.append(np.sum((x @ (found - w)) ** 2) / np.sum((x @ w) ** 2))
    assert errors[1] == pytest.approx(errors[2], rel=0.05)
    assert errors[1] < 0.5 * errors[0]


def test_the_benchmark_says_whether_the_goal_is_met():
    methods = [
        {"method": name, "seconds": seconds, "peak_bytes": 1e6, "error": 0.1, "kept": 5}
        for name, seconds in (("alps", 3.0), ("alps_numpy", 4.0))
    ]
    *rows, last = bench_oneshot.table({"size": 8, "rows": 4, "methods": methods})
    assert (last.value, last.met) == (0.75, True)
    assert rows[0].detail == "peak 1 MB; output error 0.1; 5 weights"


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match=r"keep=1\.5 in"):
        bench_oneshot.run(8, 8, 1.5)


@pytest.mark.slow
def test_the_benchmark_runs_on_a_small_layer():
    record = bench_oneshot.run(32, 16, 0.3)
    assert [one["method"] for one in record["methods"]] == list(bench_oneshot.METHODS)
    assert all(one["seconds"] > 0 and one["kept"] == int(0.3 * 32 * 32) for one in record["methods"])
