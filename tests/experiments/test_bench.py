"""The benchmark's own arithmetic; its figures are nobody's test."""

import importlib.util
import inspect
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compressjax import training, trees
from experiments import bench, bench_storage, bench_transforms, timing

# Of `training`: schedules, functions of weights, gradients or features, and parts of what is measured.
HELPERS = {
    "coarse",
    "discriminant_loss",
    "discriminants",
    "dynamic_sparse",
    "geometric",
    "half_cosine",
    "hint_loss",
    "output_loss",
    "power",
    "quantized",
    "reset_slots",
    "rewind",
    "root",
    "scatter_add",
    "scatter_discriminants",
    "scatter_start",
    "staged",
    "ternarize",
    "ternary_mean",
    "thresholded",
    "traffic",
    "with_levels",
}


def test_variants_take_turns_in_alternating_order() -> None:
    calls: list[str] = []
    found = timing.interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert calls == ["a", "b", *"ab", *"ba", *"ab"]  # the first call of each compiles
    assert list(found) == ["a", "b"]
    assert len(found["a"].wall) == len(found["b"].cpu) == 3


def test_a_ratio_is_judged_by_its_goal() -> None:
    fast, slow = timing.Timing((1.0, 1.0), (1.0, 1.0)), timing.Timing((1.2, 1.2), (1.1, 1.1))
    assert timing.compare("train", "", slow, fast, 1.1).met is False
    assert timing.compare("train", "", fast, slow, 1.1).met is True
    assert timing.compare("train", "", slow, fast, None).met is None


def test_the_table_says_what_was_missed() -> None:
    rows = [timing.Row("train", "step", 1.234, "x", 1.1, "why"), timing.Row("storage", "speed", 123.4, "MB/s")]
    lines = timing.to_text(rows).splitlines()
    assert lines[1].split() == ["step", "1.23x", "<=", "1.10", "MISSED", "why"]
    assert lines[2].split() == ["speed", "123", "MB/s"]


def test_the_projection_agrees_with_numpy_and_is_timed() -> None:
    (row,) = bench.projection(1, small=True)
    assert row.value > 0


def test_alexnet_has_its_published_size_and_the_small_one_is_small() -> None:
    assert sum(int(np.prod(shape)) for shape in bench_storage.ALEXNET.values()) == 60_954_656
    leaves = trees.leaves(bench_storage.alexnet(small=True))
    assert list(leaves) == list(bench_storage.ALEXNET)
    for leaf, bits in zip(leaves.values(), bench_storage.BITS, strict=True):
        assert leaf.dtype == np.float32
        assert len(np.unique(leaf[leaf != 0])) <= 2**bits


@pytest.mark.parametrize(("suite", "repeats", "match"), [("fast", 1, "no suite 'fast'"), ("all", 0, "at least 1")])
def test_bad_requests_are_refused(suite: str, repeats: int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        bench.run(suite, repeats)


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(ValueError, match="no network 'vgg'"):
        bench.run("transforms", 1, network="vgg")


def test_a_failing_measurement_is_reported_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"The decode measurement failed \(status 1\): FileNotFoundError"):
        bench_storage._child("decode", "pruned", str(tmp_path / "nowhere"), small=True)


@pytest.fixture(scope="module")
def variants() -> list[bench_transforms.Variant]:
    params = {"a": {"kernel": jnp.ones((4, 8)), "bias": jnp.zeros(8)}, "b": {"kernel": jnp.ones((8, 4))}}

    def loss(params: Any, x: Any, y: Any) -> Any:
        return jnp.mean(((x @ params["a"]["kernel"] + params["a"]["bias"][None]) @ params["b"]["kernel"] - y) ** 2)

    return list(bench_transforms.variants(loss, params, optax.with_extra_args_support(optax.adam(0.1)), 4))


def test_every_transform_of_the_room_is_measured(variants: list[bench_transforms.Variant]) -> None:
    measured = {variant.name.split(",")[0].split(" ")[0] for variant in variants}
    makers = {name for name in training.__all__ if inspect.isfunction(getattr(training, name)) and name not in HELPERS}
    assert measured == makers
    assert [variant.name for variant in variants if variant.goal is None] == ["sharpness_aware (two gradients)"]


def test_a_step_of_every_variant_is_one_of_its_parameters(variants: list[bench_transforms.Variant]) -> None:
    for variant in variants:
        state = jax.eval_shape(variant.optimizer.init, variant.params)
        _, gradient = jax.eval_shape(variant.gradient, variant.params, jnp.ones((2, 4)), jnp.ones((2, 4)))
        updates, after = jax.eval_shape(variant.optimizer.update, gradient, state, variant.params)
        assert jax.tree.structure(updates) == jax.tree.structure(variant.params)
        assert after == state


@pytest.mark.slow
def test_all_suites_run_on_small_sizes() -> None:
    with jax.numpy_rank_promotion("allow"):  # evosax adds vectors to matrices
        rows = bench.run("all", 1, small=True)["rows"]
    counts = {
        "train": 3,
        "transforms": 22,
        "projection": 1,
        "storage": 10,
        "population": 5,
        "expressions": 10 if importlib.util.find_spec("deap") else 5,
        "search": 10,
        "candidates": 10,
    }
    assert [row["suite"] for row in rows] == [name for name, count in counts.items() for _ in range(count)]
    assert all(row["value"] > 0 for row in rows)
