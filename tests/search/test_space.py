"""Spaces: decode by hand, encode as its right inverse, reflection, sampling, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressjax.search import Category, Float, Int, Mask, Space

SPACE = Space(
    {
        "ratio": Float(0.1, 1.0, size=3),
        "rate": Float(1e-4, 1e-1, log=True),
        "bits": Int(2, 8, size=2),
        "depth": Int(1, 2),
        "op": Category(("conv", "pool", "skip")),
        "ops": Category(("a", "b"), size=2),
        "keep": Mask(4),
    }
)


def test_a_genome_by_hand():
    genome = jnp.array([-1.0, 0.0, 1.0, 0.0, -1.0, 0.999, 0.01, 0.1, 0.3, 0.2, 0, 1, 1, 0, 1.0, -1.0, 0.0, 0.1])
    assert SPACE.size == len(genome) == 18
    found = SPACE.decode(genome)
    np.testing.assert_allclose(found["ratio"], [0.1, 0.55, 1.0], rtol=1e-6)
    np.testing.assert_allclose(found["rate"], np.sqrt(1e-5), rtol=1e-5)
    assert found["bits"].tolist() == [2, 8]
    assert int(found["depth"]) == 2
    assert int(found["op"]) == 1
    assert found["ops"].tolist() == [1, 0]
    assert found["keep"].tolist() == [True, False, False, True]
    assert SPACE.label(found)["op"] == "pool"
    assert SPACE.label(found)["ops"] == ["b", "a"]
    assert {name: (value.dtype.name, value.shape) for name, value in found.items()} == {
        "ratio": ("float32", (3,)),
        "rate": ("float32", ()),
        "bits": ("int32", (2,)),
        "depth": ("int32", ()),
        "op": ("int32", ()),
        "ops": ("int32", (2,)),
        "keep": ("bool", (4,)),
    }


def test_encode_is_a_right_inverse_of_decode():
    genomes = 3 * jax.random.normal(jax.random.key(0), (200, SPACE.size))
    designs = jax.jit(SPACE.decode)(genomes)
    again = SPACE.decode(SPACE.encode(designs))
    for name, value in designs.items():
        if value.dtype == jnp.float32:
            np.testing.assert_allclose(again[name], value, rtol=2e-6)
        else:
            assert np.array_equal(again[name], value), name


@given(st.floats(-50, 50), st.integers(-5, 5))
def test_every_genome_is_a_design_and_the_outside_reflects(number, turns):
    variable = Float(-2.0, 3.0)
    value = float(variable.decode(jnp.array([number])))
    assert -2.0 <= value <= 3.0
    np.testing.assert_allclose(variable.decode(jnp.array([number + 4.0 * turns])), value, atol=1e-4)
    np.testing.assert_allclose(variable.decode(jnp.array([2.0 - number])), value, atol=1e-4)
    assert 2 <= int(Int(2, 8).decode(jnp.array([number]))) <= 8


def test_the_bins_of_integers_are_equal_and_all_are_met():
    values = np.asarray(Int(2, 8).decode(jnp.linspace(-1, 1, 7001)[:, None]))
    assert np.abs(np.bincount(values)[2:] - 1000).max() <= 2


def test_batches_and_members_agree():
    genomes = SPACE.sample(jax.random.key(1), 12).reshape(3, 4, -1)
    batch = SPACE.decode(genomes)
    one = jax.vmap(jax.vmap(SPACE.decode))(genomes)
    for name, value in batch.items():
        assert value.shape[:2] == (3, 4)
        assert np.array_equal(value, one[name])


def test_samples_are_fair():
    designs = SPACE.decode(SPACE.sample(jax.random.key(2), 6000))
    assert abs(float(designs["ratio"].mean()) - 0.55) < 0.01
    for counts in (
        np.bincount(designs["op"]),
        np.bincount(designs["bits"][:, 0])[2:],
        np.bincount(designs["ops"][:, 1]),
    ):
        np.testing.assert_allclose(counts / counts.mean(), 1.0, atol=0.1)
    np.testing.assert_allclose(designs["keep"].mean(axis=0), 0.5, atol=0.03)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Space({}), "at least one variable"),
        (lambda: Space({"x": (0.0, 1.0)}), "must be a Float, Int, Category or Mask"),
        (lambda: Float(1.0, 1.0), "low must lie below high"),
        (lambda: Float(0.0, np.inf), "both be finite"),
        (lambda: Float(0.0, 1.0, log=True), "low must be above 0"),
        (lambda: Float(0.0, 1.0, size=0), "size=0"),
        (lambda: Int(3, 3), "the first one smaller"),
        (lambda: Int(0, 2**23), "a range 8,388,608 values"),
        (lambda: Int(2**31 - 2, 2**31), "bounds have 32 bits"),
        (lambda: Category(("a",)), "at least two different"),
        (lambda: Category(("a", "a")), "at least two different"),
        (lambda: Mask(0), "size=0"),
        (lambda: SPACE.decode(jnp.zeros(5)), "must have 18 numbers"),
        (lambda: SPACE.encode({"ratio": jnp.zeros(3)}), "it must have ratio, rate"),
    ],
)
def test_what_is_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize("low", [0, -(2**22), 2**31 - 2**23])
def test_whole_numbers_of_the_widest_range_come_back(low):
    values = Int(low, low + 2**23 - 1)
    ends = np.r_[np.arange(1000), np.arange(2**22 - 500, 2**22 + 500), np.arange(2**23 - 1000, 2**23)]
    np.testing.assert_array_equal(values.decode(values.encode(low + ends)), low + ends)
