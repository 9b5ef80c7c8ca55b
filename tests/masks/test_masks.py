"""Masks, allocations and ramps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressjax import masks, scores

SHAPES = {"conv1": (5, 5, 1, 20), "conv2": (5, 5, 20, 50), "fc1": (800, 500), "fc2": (500, 10)}


def test_magnitude_scores_every_leaf() -> None:
    found = scores.magnitude({"a": {"kernel": jnp.array([-2.0, 0.0])}, "b": jnp.array([1.0], jnp.bfloat16)})
    np.testing.assert_array_equal(found["a/kernel"], [2.0, 0.0])
    assert found["b"].dtype == jnp.bfloat16


def test_top_k_mask_takes_a_traced_count_and_clips_it() -> None:
    score = jnp.array([[0.5, 2.0], [2.0, -1.0]])
    function = jax.jit(masks.top_k_mask)
    np.testing.assert_array_equal(function(score, jnp.int32(1)), [[False, True], [False, False]])
    np.testing.assert_array_equal(function(score, jnp.int32(3)), [[True, True], [True, False]])
    assert int(function(score, jnp.int32(9)).sum()) == 4
    assert int(function(score, jnp.int32(-9)).sum()) == 0


@pytest.mark.parametrize("count", [-1, 5])
def test_top_k_mask_refuses_a_count_out_of_range(count: int) -> None:
    with pytest.raises(ValueError, match="must lie between 0 and the 4 entries"):
        masks.top_k_mask(jnp.ones(4), count)


def test_from_scores_keeps_the_counts() -> None:
    found = masks.from_scores({"b": jnp.array([1.0, 2.0]), "a": jnp.array([3.0, 3.0, 3.0])}, {"a": 2, "b": 1})
    assert list(found) == ["b", "a"]
    np.testing.assert_array_equal(found["b"], [False, True])
    np.testing.assert_array_equal(found["a"], [True, True, False])


@pytest.mark.parametrize(
    ("counts", "message"),
    [({}, "'a' is only in scores"), ({"a": 1, "b": 1}, "'b' is only in counts"), ({"a": 4}, "a: count=4 must lie")],
)
def test_from_scores_refuses_what_does_not_match(counts: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        masks.from_scores({"a": jnp.ones(3)}, counts)


def test_apply_gives_exact_zeros() -> None:
    tree = {"kernel": jnp.array([-1.0, jnp.nan, 2.0]), "bias": jnp.array([-3.0])}
    masked = masks.apply(tree, {"kernel": jnp.array([False, False, True])})
    np.testing.assert_array_equal(masked["kernel"], [0, 0, 2])
    assert not np.signbit(np.asarray(masked["kernel"])).any()
    np.testing.assert_array_equal(masked["bias"], [-3])


def test_apply_refuses_masks_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"shape \(2,\) does not fit its leaf of shape \(3,\)"):
        masks.apply({"kernel": jnp.ones(3)}, {"kernel": jnp.ones(2, bool)})
    with pytest.raises(ValueError, match="No leaf has the path 'other'"):
        masks.apply({"kernel": jnp.ones(3)}, {"other": jnp.ones(3, bool)})


def test_uniform_by_hand() -> None:
    assert masks.uniform({"a": (10, 10), "b": (3,)}, 0.29) == {"a": 29, "b": 1}


def test_erk_by_hand() -> None:
    # Shares in proportion to 15 and 110 of 214 in total: 25.68 and 188.32.
    assert masks.erk({"conv": (3, 3, 1, 8), "fc": (100, 10)}, 0.2) == {"conv": 26, "fc": 188}
    # The first leaf's share of 55, 2 * 55 / (2 + 101), rounds to 1 of 1: it stays dense.
    assert masks.erk({"tiny": (1, 1), "fc": (1, 100)}, 0.55) == {"tiny": 1, "fc": 54}


@given(st.floats(0.001, 1.0))
def test_erk_meets_the_total_and_no_leaf_overflows(density: float) -> None:
    counts = masks.erk(SHAPES, density)
    total = sum(int(np.prod(shape)) for shape in SHAPES.values())
    assert abs(sum(counts.values()) - density * total) <= len(SHAPES)
    for path, shape in SHAPES.items():
        assert 1 <= counts[path] <= np.prod(shape)


def test_density_one_keeps_everything() -> None:
    full = {path: int(np.prod(shape)) for path, shape in SHAPES.items()}
    assert masks.erk(SHAPES, 1.0) == masks.uniform(SHAPES, 1.0) == full


def test_allocate_names_the_methods() -> None:
    assert masks.allocate(SHAPES, 0.1) == masks.uniform(SHAPES, 0.1)
    assert masks.allocate(SHAPES, 0.1, method="erk") == masks.erk(SHAPES, 0.1)


@pytest.mark.parametrize("density", [0.0, -0.5, 1.01, float("nan")])
def test_bad_density(density: float) -> None:
    for function in (masks.uniform, masks.erk):
        with pytest.raises(ValueError, match="must lie in"):
            function(SHAPES, density)


def test_bad_shapes() -> None:
    with pytest.raises(ValueError, match="fc: shape"):
        masks.uniform({"fc": (0, 3)}, 0.5)
    with pytest.raises(ValueError, match="No leaves"):
        masks.erk({}, 0.5)


def test_global_counts_give_the_global_mask() -> None:
    found = {"a": jnp.array([2.0, 1.0, 2.0]), "b": jnp.array([[2.0], [5.0]])}
    counts = jax.jit(lambda s: masks.global_(s, 3))(found)
    assert {path: int(count) for path, count in counts.items()} == {"a": 2, "b": 1}
    kept = masks.from_scores(found, counts)
    np.testing.assert_array_equal(kept["a"], [True, False, True])
    np.testing.assert_array_equal(kept["b"], [[False], [True]])


def test_global_refuses_too_many() -> None:
    with pytest.raises(ValueError, match="count=4"):
        masks.global_({"a": jnp.ones(3)}, 4)
    with pytest.raises(ValueError, match="at least one leaf"):
        masks.global_({}, 0)


@pytest.mark.parametrize(("ramp", "middle"), [(masks.cubic, 0.1 + 0.9 / 8), (masks.linear, 0.55)])
def test_ramps(ramp, middle: float) -> None:
    at = jax.jit(lambda step: ramp(step, 10, 30, initial=1.0, final=0.1))
    assert float(at(0)) == float(at(10)) == 1.0
    np.testing.assert_allclose(float(at(20)), middle, rtol=1e-6)
    assert float(at(30)) == float(at(99)) == np.float32(0.1)
    values = [float(at(step)) for step in range(10, 31)]
    assert values == sorted(values, reverse=True)


def test_a_ramp_needs_a_length() -> None:
    for ramp in (masks.cubic, masks.linear):
        with pytest.raises(ValueError, match="has no length"):
            ramp(0, 5, 5, 1.0, 0.0)
