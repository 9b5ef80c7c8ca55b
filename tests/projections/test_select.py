"""The selection primitive against a stable NumPy sort, and the meaning of `keep`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressjax.projections._select import budget, scale_of, top_mask


def expected(score: np.ndarray, count: int) -> np.ndarray:
    """A stable descending sort keeps the lower index of equal scores first."""
    mask = np.zeros(score.size, bool)
    mask[np.argsort(-score, kind="stable")[:count]] = True
    return mask


ties = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 1.0, 2.0, float("inf"), float("-inf")])
numbers = st.floats(width=32, allow_nan=False, allow_subnormal=False)


@given(st.lists(ties | numbers, min_size=9, max_size=9), st.integers(0, 9))
def test_top_mask_is_a_stable_sort(values: list[float], count: int) -> None:
    score = np.array(values, np.float32)
    np.testing.assert_array_equal(top_mask(jnp.asarray(score), jnp.int32(count)), expected(score, count))


@pytest.mark.parametrize("kind", ["continuous", "tied", "sparse", "sorted", "skewed", "constant"])
def test_large_arrays_are_sampled_and_stay_exact(kind: str) -> None:
    size = 5001
    x = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    x = {
        "continuous": x,
        "tied": np.round(2 * x),
        "sparse": np.where(x > 1.5, x, 0),
        "sorted": np.sort(x),
        "skewed": np.where(np.arange(size) % (size // 256) == 0, 100 + x, x),  # the sample sees only the outliers
        "constant": np.full(size, -3.0),
    }[kind].astype(np.float32)
    for count in (0, 1, 17, 300, 2500, 3073, 4999, 5001):
        np.testing.assert_array_equal(top_mask(jnp.asarray(x), jnp.int32(count)), expected(x, count))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int8, jnp.int32, jnp.uint8, jnp.bool_])
def test_top_mask_takes_every_dtype(dtype) -> None:
    score = jnp.asarray([3, 0, 1, 3, 2, 0], jnp.int32).astype(dtype)
    for count in range(7):
        np.testing.assert_array_equal(top_mask(score, count), expected(np.asarray(score, np.float32), count))


def test_ties_count_along_the_flattened_index() -> None:
    np.testing.assert_array_equal(top_mask(jnp.ones((2, 3)), 4), [[1, 1, 1], [1, 0, 0]])


def test_nan_is_kept_so_that_it_stays_visible() -> None:
    np.testing.assert_array_equal(top_mask(jnp.array([5.0, jnp.nan, jnp.inf]), 1), [False, True, False])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("size", [3, 5000])
def test_nan_of_negative_sign_is_kept_too(dtype, size: int) -> None:
    score = jnp.arange(size, dtype=jnp.float32).astype(dtype).at[1].set(-jnp.nan)
    assert np.signbit(np.asarray(score, np.float32))[1]
    np.testing.assert_array_equal(np.flatnonzero(top_mask(score, 1)), [1])


def test_top_mask_of_nothing() -> None:
    assert top_mask(jnp.zeros((0, 3)), 0).shape == (0, 3)


@pytest.mark.parametrize(
    ("keep", "available", "count"), [(0, 5, 0), (5, 5, 5), (0.5, 5, 2), (1.0, 5, 5), (0.001, 5, 1), (0.29, 100, 29)]
)
def test_budget(keep: float, available: int, count: int) -> None:
    assert budget(keep, available, "entries") == count


def test_budget_larger_than_the_layer() -> None:
    with pytest.raises(ValueError, match=r"keep=6 entries exceeds the 5"):
        budget(6, 5, "entries")


@pytest.mark.parametrize("top", [0.0, 1e-37, 1.0, 3.0, 3e38])
def test_scale_brings_the_largest_near_one(top: float) -> None:
    x = jnp.array([top, -top / 2], jnp.float32)
    scale = scale_of(x)
    assert float(jnp.max(jnp.abs(x / scale))) <= 4.0
    assert np.log2(float(scale)) % 1 == 0


def test_count_may_be_mapped_over() -> None:
    masks = jax.vmap(lambda count: top_mask(jnp.array([1.0, 3.0, 2.0]), count))(jnp.arange(4))
    np.testing.assert_array_equal(masks.sum(axis=1), [0, 1, 2, 3])
