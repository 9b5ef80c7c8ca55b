"""The kernel benchmark runs, and its tables say what the record says."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

import pallas_kernels as pk
from compressjax import runtime
from experiments import bench_kernels, kernel_tables
from experiments.kernel_networks import NETWORKS, SMALL, prune
from tests.pallas_kernels.cases import error


@pytest.mark.slow
def test_small_profile(tmp_path):
    record = json.loads(json.dumps(bench_kernels.run(small=True, rounds=1, progress=False)))
    assert {m["form"] for m in record["measurements"]} >= {"sliced", "segments", "dense", "dense, outputs first"}
    assert max(m["speedup"] for m in record["measurements"] if m["form"].startswith("dense")) <= 1
    assert len(record["auto"]) in (8, 16)
    assert {row["name"] for row in record["auto"]} >= {"auto"}
    text = kernel_tables.to_markdown(record)
    assert "| 64x32 | 8 | 8x8 | sliced |" in text
    assert "| tiny | 16 | 64x64 |" in text
    kernel_tables.plot(record, tmp_path / "plot.svg")
    assert "</svg>" in (tmp_path / "plot.svg").read_text()


def test_break_even_takes_the_last_crossing():
    assert kernel_tables.break_even([(0.5, 1.2), (0.25, 0.5), (0.05, 2.0)]) == pytest.approx(0.85)
    assert kernel_tables.break_even([(0.5, 1.2), (0.25, 1.5)]) == 0.5


@pytest.mark.parametrize("name", NETWORKS)
def test_rows_are_those_of_the_layers(name):
    rows = NETWORKS[name].rows(2)
    expected = {"VGG-16, 32x32": (2048, 2, 15), "AlexNet, 224x224": (2 * 56 * 56, 2, 8)}[name]
    assert (rows["layer0/kernel"], list(rows.values())[-1], len(rows)) == expected


def test_packed_network_equals_the_pruned_one():
    network = SMALL["tiny"]
    pruned, rules = prune(network.init(), (8, 8), 0.3)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *network.image)), jnp.float32)
    packed = runtime.pack(pruned, rules)
    assert isinstance(packed["layer2"]["kernel"].matrix, pk.BlockSparse)
    assert packed["layer2"]["kernel"].matrix.density < 0.5
    assert error(network.apply(packed, x), network.apply(pruned, x)) < 1e-5
    assert error(network.apply(pruned, x, unfold=True), network.apply(pruned, x)) < 1e-5
