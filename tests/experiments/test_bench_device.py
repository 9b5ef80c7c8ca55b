"""The benchmark's code path, without a device: nothing is said about speed."""

import dataclasses
import json

import pytest

from experiments import bench_device, device_sizes
from pallas_kernels import _compat


def check(record):
    assert record["all_correct"], record["correct"]
    assert not record["left_out"]
    (size,) = record["timings"]
    assert not size["problems"]
    names = [row["name"] for row in size["rows_of_table"]]
    assert names[0] == "dense"
    assert names[-1] == "dense again"
    assert {"blocks 64, 50%", "int8", "int8 in groups of 128"} < set(names)
    assert all(row["rounds"] == 2 and row["ms"] >= row["least_ms"] > 0 for row in size["rows_of_table"])
    assert json.loads(json.dumps(record))["break_even"][0]["block"] == 64
    text = bench_device.to_text(record)
    assert "0 failed" in text
    assert "8 rows, 128 x 128" in text


def test_every_step_runs():
    check(bench_device.run(dataclasses.replace(device_sizes.TINY, implementation="xla", interpret=False)))


@pytest.mark.slow
@pytest.mark.skipif(not _compat.interprets_mosaic_gpu(), reason="the interpreter is public from JAX 0.11 on")
def test_every_kernel_runs():
    check(bench_device.run(device_sizes.TINY))


@pytest.mark.slow
def test_every_tpu_kernel_runs():
    size = device_sizes.Size(8, 256, (0.5,), (128,), (8,), gradients=False)
    config = dataclasses.replace(device_sizes.TINY, implementation="mosaic_tpu", sizes=(size,), check_width=256)
    record = bench_device.run(config)
    assert record["all_correct"], record["correct"]
    assert not record["timings"][0]["problems"]


@pytest.mark.parametrize("platform, program", [("gpu", "aot_cuda"), ("tpu", "aot_tpu")])
def test_without_a_device_it_says_what_can_be_done(platform, program):
    with pytest.raises(ValueError, match=f"no {platform.upper()} here; experiments.{program} compiles"):
        bench_device.measure(platform)


def test_stops_in_time():
    record = bench_device.run(
        dataclasses.replace(device_sizes.TINY, implementation="xla", interpret=False, seconds=-1.0)
    )
    assert record["left_out"] == ["some comparisons", "8 rows, width 128"]
    assert len(record["correct"]) == 1


def test_a_failing_kernel_is_reported():
    config = dataclasses.replace(device_sizes.TINY, implementation="native", interpret=False)
    record = bench_device.run(config)
    assert not record["all_correct"]
    assert "computes in float32" in record["correct"][0]["problem"]
    assert record["timings"][0]["problems"][0]["name"] == "blocks 64, 50%"
    assert "FAILED" in bench_device.to_text(record)


def test_break_even_outside_of_what_was_measured():
    def even(*gains):
        densities = zip((0.1, 0.5), gains, strict=True)
        rows = [{"kind": "blocks", "block": 64, "density": d, "speedup": s} for d, s in densities]
        return bench_device.break_even({"rows": 1, "width": 2, "rows_of_table": rows})[0]["density"]

    assert even(0.9, 0.5) is None
    assert even(3.0, 2.0) == 0.5
