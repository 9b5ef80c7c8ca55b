"""Hand cases, optimality against exhaustive search, and bad input of the level sets."""

from functools import cache
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressjax.quantizers import Binary, Codebook, Levels, PowerOfTwo, Quantizer, Ternary, fake_quantize
from compressjax.quantizers._base import distinct, nearest
from compressjax.quantizers._binary import _best_level
from compressjax.quantizers._levels import _best_scale, _search, _sweep

EVERY = [Levels(1), Levels(2), Levels(4), Levels(2, scale=0.5), Binary(), Ternary(), PowerOfTwo(1), PowerOfTwo(3)]
EVERY += [Codebook(1), Codebook(3), Codebook(5)]
SIZE = 12


@pytest.mark.parametrize("quantizer", EVERY, ids=str)
def test_a_tensor_without_entries_is_its_own_projection(quantizer):
    empty = jnp.zeros((0, 3))
    assert quantizer.project(empty).shape == quantizer.support(empty).shape == (0, 3)
    assert quantizer.contains(empty)
    assert jnp.all(jnp.isfinite(quantizer.fit(empty)))


def error(x: np.ndarray, quantizer: Quantizer) -> float:
    z = np.asarray(quantizer.project(jnp.asarray(x, jnp.float32)), np.float64)
    return float(np.sum((x - z) ** 2))


def sample(seed: int, size: int = SIZE) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    return np.where(np.arange(size) % 4 == 0, 0, x).astype(np.float32)


@pytest.mark.parametrize("quantizer", EVERY, ids=str)
def test_is_a_quantizer_with_sorted_nonzero_levels(quantizer: Quantizer) -> None:
    assert isinstance(quantizer, Quantizer)
    for x in (jnp.asarray(sample(0)), jnp.zeros(SIZE), jnp.full(SIZE, -2.0)):
        levels = np.asarray(quantizer.fit(x))
        assert (np.diff(levels) >= 0).all()
        assert (levels != 0).all()
        assert np.isfinite(levels).all()
        np.testing.assert_array_equal(quantizer.snap(x, jnp.asarray(levels)), quantizer.project(x))


@pytest.mark.parametrize("quantizer", EVERY, ids=str)
def test_zeros_stay_and_nonzeros_do_not_become_zero(quantizer: Quantizer) -> None:
    x = sample(1)
    z = np.asarray(quantizer.project(jnp.asarray(x)))
    assert (z[x == 0] == 0).all()
    if not isinstance(quantizer, Ternary):
        assert (z[x != 0] != 0).all()


@pytest.mark.parametrize("quantizer", EVERY, ids=str)
def test_zeros_play_no_part_in_the_fit(quantizer: Quantizer) -> None:
    x = jnp.asarray(sample(2))
    padded = jnp.concatenate([jnp.zeros(7), x, jnp.zeros(40)])
    np.testing.assert_allclose(quantizer.fit(padded), quantizer.fit(x), rtol=1e-6)


magnitude = st.floats(2.0**-100, 2.0**100, width=32)
value = st.sampled_from([0.0, 1.0, -1.0, 2.0, 0.5]) | magnitude | magnitude.map(lambda v: -v)


@cache
def compiled(quantizer: Quantizer):
    return jax.jit(lambda x: (quantizer.project(x), quantizer.contains(x)))


@pytest.mark.parametrize("quantizer", [q for q in EVERY if q != Levels(2, scale=0.5)], ids=str)
@given(st.lists(value, min_size=SIZE, max_size=SIZE))
def test_projection_of_anything_is_a_fixed_point(quantizer: Quantizer, values: list[float]) -> None:
    z, _ = compiled(quantizer)(jnp.asarray(values, jnp.float32))
    again, member = compiled(quantizer)(z)
    assert bool(member)
    np.testing.assert_array_equal(again, z)


def test_levels_by_hand() -> None:
    # Codes 1, 2, 1: q = (1.0 + 2 * 2.1 + 0.9) / (1 + 4 + 1).
    np.testing.assert_allclose(Levels(2).fit(jnp.array([1.0, -2.1, 0.0, 0.9])), np.array([-2, -1, 1, 2]) * 6.1 / 6)
    np.testing.assert_array_equal(Levels(2, scale=0.5).project(jnp.array([9.0, -0.1, 0.0])), [1.0, -0.5, 0.0])


@pytest.mark.parametrize("bits", [2, 3, 5])
def test_levels_reach_the_best_scale_of_a_fine_grid(bits: int) -> None:
    codes = 2 ** (bits - 1)
    for seed in range(4):
        x = sample(seed)
        size = np.abs(x[x != 0]).astype(np.float64)
        grid = np.linspace(1e-3, size.max() * 1.2, 20001)[:, None]
        best = np.sum((size - grid * np.clip(np.round(size / grid), 1, codes)) ** 2, axis=1).min()
        assert error(x, Levels(bits)) <= best * (1 + 1e-4) + 1e-9


def test_levels_with_one_bit_are_binary() -> None:
    x = jnp.asarray(sample(3))
    np.testing.assert_allclose(Levels(1).project(x), Binary().project(x), rtol=1e-6)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("draw", ["standard_normal", "laplace", "heavy", "half_empty"])
def test_levels_of_large_tensors_lose_next_to_nothing(bits: int, draw: str) -> None:
    random = np.random.default_rng(bits)
    drawn = {
        "standard_normal": lambda: random.standard_normal(4000),
        "laplace": lambda: random.laplace(size=4000),
        "heavy": lambda: random.standard_t(2, size=4000),
        "half_empty": lambda: random.standard_normal(4000) * (random.random(4000) < 0.5),
    }[draw]()
    size, codes = jnp.abs(jnp.asarray(drawn, jnp.float32)), 2 ** (bits - 1)

    def loss(scale: float) -> float:
        q = np.clip(np.round(size / scale), 1, codes) * scale
        return float(np.sum(np.where(size > 0, size - q, 0) ** 2))

    exact, searched = loss(float(_sweep(size, codes))), loss(float(_search(size, codes)))
    assert loss(float(_best_scale(size, codes))) <= exact * 1.001
    assert searched <= exact * 1.005


def test_members_keep_a_scale_that_only_some_codes_reveal() -> None:
    # 0.3 times 2 and 3: the smallest value is not the scale.
    x = jnp.float32(0.3) * jnp.array([2.0, 3.0, 0.0, -3.0])
    assert bool(Levels(3).contains(x))
    assert not bool(Levels(2).contains(x))
    np.testing.assert_array_equal(Levels(3).project(x), x)


def test_binary_by_hand() -> None:
    np.testing.assert_array_equal(Binary().project(jnp.array([1.0, -3.0, 0.0, 2.0])), [2, -2, 0, 2])


@pytest.mark.parametrize("seed", range(5))
def test_ternary_is_the_best_of_all_supports(seed: int) -> None:
    size = np.sort(np.abs(sample(seed)).astype(np.float64))[::-1]
    best = min(np.sum(size**2) - size[:k].sum() ** 2 / k for k in range(1, SIZE + 1))
    np.testing.assert_allclose(error(sample(seed), Ternary()), best, rtol=1e-5)


def test_ternary_of_large_tensors_agrees_with_the_sort() -> None:
    size = jnp.abs(jnp.asarray(np.random.default_rng(0).standard_normal(70_000), jnp.float32))
    np.testing.assert_allclose(_best_level(size), _best_level(size[:60_000]), rtol=0.02)
    # For a normal distribution the best level solves a = E[|x| given |x| > a / 2], which is 1.2240.
    np.testing.assert_allclose(_best_level(size), 1.2240, rtol=0.01)


def test_power_of_two_by_hand() -> None:
    x = jnp.array([1.4, -1.6, 0.3, 0.0])
    np.testing.assert_array_equal(PowerOfTwo(3).project(x), [1, -2, 0.25, 0])
    np.testing.assert_array_equal(PowerOfTwo(3).fit(x), [-2, -1, -0.5, -0.25, 0.25, 0.5, 1, 2])


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_power_of_two_is_the_best_of_all_windows(bits: int) -> None:
    window = 2 ** (bits - 1)
    for seed in range(4):
        x = sample(seed) * 7.0
        size = np.abs(x[x != 0]).astype(np.float64)[:, None, None]
        levels = 2.0 ** (np.arange(-30, 30)[None, :, None] + np.arange(window)[None, None, :])
        best = np.sum(np.min((size - levels) ** 2, axis=2), axis=0).min()
        np.testing.assert_allclose(error(x, PowerOfTwo(bits)), best, rtol=1e-5)


def test_power_of_two_needs_exponents() -> None:
    assert PowerOfTwo(5).project(jnp.ones(3, jnp.float16)).dtype == jnp.float16
    with pytest.raises(ValueError, match="needs 32 exponents, float16"):
        PowerOfTwo(6).project(jnp.ones(3, jnp.float16))


def test_codebook_keeps_few_values_bit_for_bit() -> None:
    x = jnp.array([0.1, 0.3, 0.0, -0.7, 0.1, 0.30000004])
    np.testing.assert_array_equal(Codebook(2).project(x), x)
    np.testing.assert_array_equal(Codebook(3).fit(x)[-4:], jnp.full(4, x[5]))


@pytest.mark.parametrize("seed", range(4))
def test_codebook_is_the_best_of_all_partitions(seed: int) -> None:
    x = sample(seed)
    values = np.sort(x[x != 0]).astype(np.float64)
    best = min(
        sum(float(np.sum((part - part.mean()) ** 2)) for part in np.split(values, cuts))
        for cuts in combinations(range(1, values.size), 3)
    )
    np.testing.assert_allclose(error(x, Codebook(2)), best, rtol=1e-4)


@pytest.mark.parametrize(("bits", "optimum"), [(1, 0.3634), (2, 0.1175), (4, 0.009497)])
def test_codebook_of_a_normal_sample_meets_the_known_optimum(bits: int, optimum: float) -> None:
    # Lloyd-Max distortions of the normal distribution (Max, IRE Trans. IT 6(1), 1960, table I).
    x = np.random.default_rng(0).standard_normal(30_000).astype(np.float32)
    assert error(x, Codebook(bits)) / x.size < optimum * 1.03


def test_codebook_moves_a_centroid_off_zero() -> None:
    z = np.asarray(Codebook(1).project(jnp.array([-1.0, 1.0, -0.5, 0.5, 900.0])))
    assert (z != 0).all()


@pytest.mark.parametrize("quantizer", EVERY, ids=str)
def test_fake_quantize_is_the_projection_with_the_gradient_of_the_identity(quantizer: Quantizer) -> None:
    x = jnp.asarray(sample(5))
    y, pull = jax.vjp(lambda x: fake_quantize(x, quantizer), x)
    np.testing.assert_array_equal(y, quantizer.project(x))
    cotangent = jnp.arange(float(SIZE))
    np.testing.assert_array_equal(pull(cotangent)[0], cotangent)


@given(st.lists(st.floats(-8, 8, width=32), min_size=SIZE, max_size=SIZE), st.sampled_from([3, 20]))
def test_nearest_is_nearest(values: list[float], count: int) -> None:
    levels = np.sort(np.random.default_rng(count).standard_normal(count)).astype(np.float32)
    x = np.array(values, np.float32)
    z = np.asarray(nearest(jnp.asarray(x), jnp.asarray(levels)), np.float64)
    gaps = np.abs(x[:, None].astype(np.float64) - levels[None, :])
    assert (np.abs(x - z) <= gaps.min(axis=1) * (1 + 1e-6) + 1e-30).all()


def test_nan_stays_nan() -> None:
    x = jnp.array([1.0, jnp.nan, 2.0])
    for levels in (jnp.array([1.0, 2.0]), jnp.arange(1.0, 30.0)):
        assert np.isnan(np.asarray(nearest(x, levels))).tolist() == [False, True, False]
    assert not bool(Codebook(2).contains(x))


def test_distinct_by_hand() -> None:
    values, few = distinct(jnp.array([3.0, 1.0, 0.0, 3.0, -2.0]), 2)
    assert not bool(few)
    np.testing.assert_array_equal(values, [-2, 1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Levels(0), "bits=0 must be"),
        (lambda: Levels(9), "bits=9 must be"),
        (lambda: Codebook(True), "bits=True must be"),
        (lambda: Levels(2, scale=0.0), "must be positive"),
        (lambda: Levels(2, scale=float("inf")), "must be positive"),
    ],
)
def test_bad_settings(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_neighbour_of_a_power_of_two_is_none_in_float64():
    with jax.enable_x64(True):
        x = jnp.array([1.0 + 2.0**-50, 2.0, 0.0])
        assert not PowerOfTwo(2).contains(x)
        assert PowerOfTwo(2).contains(PowerOfTwo(2).project(x))
        np.testing.assert_array_equal(PowerOfTwo(2).project(x), [1.0, 2.0, 0.0])


@pytest.mark.parametrize("scale", [1e-10, 4e4])
def test_levels_of_a_fixed_scale_must_fit_the_dtype(scale):
    assert Levels(2, scale=scale).contains(jnp.array([scale, -2 * scale], jnp.float32))
    with pytest.raises(ValueError, match=r"scale=.* leaves the range of float16"):
        Levels(2, scale=scale).project(jnp.ones(3, jnp.float16))
