"""Rates, rate-distortion levels and the budget in bits: hand cases, a search over everything, and what they beat."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax.projections import Both, Cardinality
from compressjax.quantizers import (
    Coded,
    Levels,
    Rates,
    code_length,
    fit_scale,
    rate_distortion,
    rates,
    soft_code_length,
)
from compressjax.storage._context import cost
from compressjax.storage._memory import Memory


def structured(seed=0, shape=(24, 30)):
    """Levels of a matrix whose rows and columns differ in density."""
    rng = np.random.default_rng(seed)
    odds = rng.exponential(size=(shape[0], 1)) * rng.exponential(size=(1, shape[1]))
    mask = rng.random(shape) < np.minimum(1, 0.15 * odds)
    return np.where(mask, rng.choice([-1, 1], shape) * rng.choice([1, 1, 1, 2], shape), 0).astype(np.int32)


def test_rates_by_hand():
    # One axis: no slices, so the odds are those of the whole, (3 + 1/2) / (4 + 1/2) for 3 of 8 non-zeros.
    found = rates(jnp.array([1, 0, 0, -2, 0, 0, 0, 1]), 2)
    odds = 3.5 / 5.5
    np.testing.assert_allclose(found.zero, np.full(8, np.log2(1 + odds)), rtol=1e-5)
    np.testing.assert_allclose(found.nonzero, np.full(8, 1 - np.log2(odds)), rtol=1e-5)
    np.testing.assert_allclose(found.magnitudes, -np.log2(np.array([2.5, 1.5]) / 4), rtol=1e-5)
    codes = jnp.array([1, 0, 0, -2, 0, 0, 0, 1])
    expected = 8 * np.log2(1 + odds) + 3 * (1 - np.log2(odds)) + 2 * np.log2(4 / 2.5) + np.log2(4 / 1.5)
    np.testing.assert_allclose(code_length(codes, found), expected, rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_code_length_is_near_what_the_file_takes(seed):
    codes = structured(seed)
    estimate = float(code_length(jnp.asarray(codes), rates(jnp.asarray(codes), 2)))
    assert 0.8 < estimate / cost(codes.reshape(-1), codes.shape, Memory()) < 1.0  # the coder must learn the densities


@pytest.mark.slow
def test_channels_are_slices_of_their_own():
    mask = np.zeros((8, 5, 6), np.int32)  # positions, channels, outputs
    mask[:, 2] = np.random.default_rng(0).random((8, 6)) < 0.3
    flat = jnp.asarray(mask.reshape(40, 6))
    assert code_length(flat, rates(flat, 1, channels=5)) < 0.9 * code_length(flat, rates(flat, 1))
    with pytest.raises(ValueError, match="channels=3 does not divide"):
        rates(flat, 1, channels=3)
    with pytest.raises(ValueError, match="at least 1"):
        rates(flat, 0)


@pytest.mark.parametrize("strength", [0.0, 0.02, 0.3])
def test_rate_distortion_is_the_best_of_all_levels(strength):
    rng = np.random.default_rng(1)
    x, importance = rng.normal(size=5).astype(np.float32), rng.uniform(0.5, 2, 5).astype(np.float32)
    prices = Rates(jnp.asarray(rng.uniform(1, 9, 5), jnp.float32), jnp.ones(5), jnp.array([0.4, 2.0]))
    found = np.asarray(rate_distortion(jnp.asarray(x), 0.6, prices, strength, jnp.asarray(importance)))

    def lagrangian(codes):
        bits = np.where(codes == 0, 0, np.asarray(prices.nonzero) + np.asarray(prices.magnitudes)[np.abs(codes) - 1])
        return float(np.sum(importance * (x - 0.6 * codes) ** 2) + strength * np.sum(bits))

    every = [np.array(codes) for codes in product(range(-2, 3), repeat=5)]
    assert lagrangian(found) == pytest.approx(min(map(lagrangian, every)), rel=1e-6)


def test_scale_of_nothing_is_zero():
    assert float(fit_scale(jnp.ones(3), jnp.zeros(3, jnp.int32))) == 0.0


def test_coded_keeps_its_budget_and_members_stay():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(12, 10)) ** 3, jnp.float32)
    project = jax.jit(Coded(200.0).project)
    z = project(x)
    codes = jnp.rint(z / jnp.min(jnp.abs(z[z != 0]))).astype(jnp.int32)
    assert 120 < float(Coded(200.0).length(codes)) <= 200  # entries below half a step are zeros at any budget
    np.testing.assert_array_equal(project(z), z)
    assert bool(Coded(200.0).contains(z))
    assert not bool(Coded(100.0).contains(z))
    assert np.array_equal(np.asarray(Coded(200.0).support(x)), np.asarray(z) != 0)
    assert set(np.unique(np.abs(np.asarray(codes)))) == {0, 1, 2}
    assert not np.any(project(jnp.zeros((12, 10))))


@pytest.mark.slow
def test_coded_is_nearer_than_the_largest_entries_at_equal_bits():
    """Where rows and columns differ, it keeps the entries that are cheap."""
    codes = structured(2)
    rng = np.random.default_rng(3)
    x = jnp.asarray(0.3 * codes + 0.12 * rng.normal(size=codes.shape), jnp.float32)
    budget = Coded(1.0)

    def plain(count):
        z = Both(Cardinality(count), Levels(2)).project(x)
        unit = np.abs(np.asarray(z)[np.asarray(z) != 0]).min()
        return z, float(budget.length(jnp.rint(z / unit).astype(jnp.int32)))

    z, bits = plain(60)
    ours = Coded(bits).project(x)
    assert jnp.sum(jnp.square(x - ours)) < jnp.sum(jnp.square(x - z))


@pytest.mark.slow
def test_soft_code_length_follows_the_count():
    codes = structured(0)
    dense = 0.3 * np.where(codes, np.sign(codes), 0)
    hard = float(code_length(jnp.sign(codes), rates(jnp.sign(codes), 1)))
    assert float(soft_code_length(jnp.asarray(dense, jnp.float32), width=1e-3)) == pytest.approx(hard, rel=0.02)
    gradient = jax.grad(soft_code_length)(jnp.array([[1.0, 1.0, 0.1], [0.0, 0.0, 0.1]]))
    assert float(gradient[1, 2]) > float(gradient[0, 2]) > 5 * float(gradient[0, 0]) > 0.0  # alone, in line, large
    assert float(gradient[1, 0]) == 0.0
    assert not np.any(jax.grad(soft_code_length)(jnp.zeros((3, 3))))


@pytest.mark.parametrize(
    ("options", "message"), [({"bits": 0.0}, "bits=0.0"), ({"bits": 9.0, "magnitudes": 0}, "at least 1")]
)
def test_bad_budgets(options, message):
    with pytest.raises(ValueError, match=message):
        Coded(**options)


def test_dense_tensors_have_a_finite_length_and_stay_members():
    codes = jnp.asarray(np.random.default_rng(0).choice([-1, 1], (300, 300)), jnp.int32)
    bits = float(code_length(codes, rates(codes, 1)))
    assert codes.size <= bits < 1.01 * codes.size  # a sign each, and next to nothing for positions
    dense = 0.5 * codes.astype(jnp.float32)
    assert Coded(2.0 * codes.size).contains(dense)
    assert Coded(2.0 * codes.size).contains(Coded(2.0 * codes.size).project(dense))
