"""Mobile or FPGA on LeNet-5: relations between schemes, totals by hand, what is blank, and refusals."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from compressjax import cost, zoo
from experiments import mobile_or_fpga as program
from experiments import mobile_or_fpga_plots, platforms, style
from experiments.mobile_or_fpga_report import to_text

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def record():
    return program.run("lenet5", batch=2, break_even=True)


def cells(record, key):
    return {(row["device"], row["pattern"], row["precision"]): row[key] for row in record["rows"]}


def test_every_variant_is_on_every_model_and_nothing_is_measured(record):
    assert len(record["rows"]) == len(platforms.DEVICES) * 3 * len(program.PRECISIONS)
    assert all(row["modelled"] for row in record["rows"])
    assert all(device["source"] for device in record["devices"].values())
    assert record["macs"] == 2_293_000
    assert record["pruned_layers"] == 2
    assert record["kept"] == pytest.approx((500 + 5_000 + 0.25 * 425_000) / 430_500)


@pytest.mark.parametrize("device", platforms.DEVICES)
@pytest.mark.parametrize("key", ["milliseconds", "millijoules"])
def test_each_step_of_compression_costs_less(record, device, key):
    found = cells(record, key)
    assert found[device, "dense", "int8"] < found[device, "dense", "float32"]
    assert found[device, "fitted blocks", "int8"] < found[device, "dense", "int8"]
    for pattern in ("dense", "blocks", "fitted blocks"):
        column = [found[device, pattern, precision] for precision in program.PRECISIONS]
        assert (np.diff(column) <= 0).all()
    for precision in program.PRECISIONS:  # a block that fills the device is never worse than one that does not
        assert found[device, "fitted blocks", precision] <= found[device, "blocks", precision]


def test_int8_blocks_are_faster_and_more_efficient_than_dense_on_the_fpga(record):
    time, efficiency = cells(record, "milliseconds"), cells(record, "frames_per_second_per_watt")
    assert time["FPGA", "blocks", "int8"] < time["FPGA", "dense", "int8"] < time["FPGA", "dense", "float32"]
    assert efficiency["FPGA", "blocks", "int8"] > efficiency["FPGA", "dense", "int8"]


def test_small_blocks_leave_the_tile_idle():
    found = cells(program.run("lenet5", block=(1, 1)), "milliseconds")
    assert found["FPGA", "blocks", "int8"] > found["FPGA", "dense", "int8"] > found["FPGA", "fitted blocks", "int8"]


def test_totals_by_hand(record):
    model = zoo.build("lenet5")
    params = jax.eval_shape(model.init, jax.random.key(0))
    layers = cost.layers(model.apply, params, jax.ShapeDtypeStruct((2, 28, 28, 1), "float32"))
    bits = np.array([8.0, 4.0, 4.0, 8.0])
    layers = layers.replace(weight_bits=bits, activation_bits=bits, density=np.array([1.0, 0.25, 0.25, 1.0]))
    layers = layers.replace(block_outputs=32, block_inputs=4)
    platform = platforms.DEVICES["FPGA"].platform
    key = ("FPGA", "fitted blocks", "4-bit")
    assert cells(record, "block")[key] == [32, 4]
    assert cells(record, "milliseconds")[key] == pytest.approx(1e3 * platform.latency(layers).sum())
    assert cells(record, "millijoules")[key] == pytest.approx(1e3 * platform.energy(layers).sum())
    for row in record["rows"]:  # two images per call; frames per second per watt are frames per joule
        assert row["frames_per_second_per_watt"] * row["millijoules"] == pytest.approx(2_000)


def test_the_ends_are_pruned_and_narrow_if_asked_for(record):
    free = program.run("lenet5", batch=2, keep_ends=False)
    assert free["pruned_layers"] == 4
    assert free["kept"] == pytest.approx(0.25)
    key = ("FPGA", "dense", "4-bit")
    assert cells(free, "millijoules")[key] < cells(record, "millijoules")[key]
    assert cells(free, "millijoules")["FPGA", "dense", "int8"] == cells(record, "millijoules")["FPGA", "dense", "int8"]


def test_the_host_shows_what_it_measured_and_nothing_else(monkeypatch):
    monkeypatch.setattr(cost.Host, "latency", lambda self, layers: np.full(len(layers), 0.25))
    monkeypatch.setattr(cost, "measure", lambda *args, repeats: cost.Timing(7.0, 6.0, repeats, 0.5))
    found = program.run("lenet5", measure=True, repeats=3)
    rows = [row for row in found["rows"] if row["device"] == "host"]
    assert {row["precision"] for row in rows} == {"float32", "int8"}
    assert all(row["milliseconds"] == 1_000 and not row["modelled"] for row in rows)
    assert all(row["millijoules"] is None and row["frames_per_second_per_watt"] is None for row in rows)
    text = to_text(found)
    assert "host, measured" in text
    four_bits = next(line for line in text.splitlines() if line.startswith("dense") and "4-bit" in line)
    assert not four_bits.endswith("1,000")
    assert "takes 7,000 ms; 3 rounds" in text
    assert style.render(mobile_or_fpga_plots.bars(found)).startswith(b"<?xml")


def test_break_even_by_device_and_pattern(record):
    conv2, fc1 = record["break_even"]
    assert [conv2["layer"], fc1["layer"]] == ["conv2/kernel", "fc1/kernel"]
    ratios = {(entry["device"], entry["pattern"]): entry["ratio"] for entry in conv2["ratios"]}
    assert ratios["mobile CPU", "single weights"] == pytest.approx(4 * 1.1 * 50 / 52)  # 13 vectors of 4 lanes for 50
    assert ratios["mobile CPU", "single weights"] > ratios["mobile CPU", "blocks"]
    assert ratios["FPGA", "single weights"] > ratios["FPGA", "blocks"]
    assert not any(device == "mobile GPU" for device, _ in ratios)


def test_the_record_is_json_and_the_text_follows_from_it(record):
    again = json.loads(json.dumps(record, allow_nan=False))
    assert to_text(again) == to_text(record)
    rows = [line.split() for line in to_text(record).splitlines() if line.startswith("fitted blocks ")]
    assert len({len(row) for row in rows}) == 1
    assert all(name in to_text(record) for name in platforms.DEVICES)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"model": "lenet6"}, "no network 'lenet6'"),
        ({"batch": 0}, "batch is 0"),
        ({"repeats": 0}, "repeats is 0"),
        ({"density": 1.0}, r"density is 1\.0"),
        ({"density": float("nan")}, "density is nan"),
        ({"block": (8, 0)}, r"block is \(8, 0\)"),
    ],
)
def test_bad_arguments_are_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        program.run(**{"model": "lenet5", **changes})


@pytest.mark.parametrize("text", ["8", "8x", "8x4x2", "-8x4", "axb"])
def test_bad_blocks_are_refused(text):
    with pytest.raises(ValueError, match="must be filters x channels"):
        program.block_of(text)


def test_the_program_ends_in_one_sentence():
    command = [sys.executable, "-m", "experiments.mobile_or_fpga", "--model=lenet5", "--block=8"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 1
    assert found.stderr.startswith("error: --block is '8'")
    assert "Traceback" not in found.stderr
