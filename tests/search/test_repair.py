"""Repairs: the budget is met, as tightly as the rules allow, and what fits is left alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax.search import Category, Float, Int, Space, to_budget

WIDTHS = jnp.array([5.0, 20.0, 10.0])
RATIOS = Space({"ratio": Float(0.1, 1.0, size=3)})
BITS = Space({"bits": Int(2, 8, size=3)})


def macs(design):
    return jnp.sum(WIDTHS * design["ratio"] ** 2)


def test_one_factor_scales_all_ratios_to_the_budget():
    repair = to_budget(RATIOS, macs, 10.0)
    ratio = jnp.array([1.0, 0.8, 0.9])
    found = repair({"ratio": ratio})["ratio"]
    np.testing.assert_allclose(macs({"ratio": found}), 10.0, rtol=1e-5)
    np.testing.assert_allclose(found / ratio, float(found[0]), rtol=1e-6)


def test_what_fits_is_unchanged_and_low_ends_hold():
    repair = to_budget(RATIOS, macs, 1.0)
    cheap = jnp.array([0.2, 0.1, 0.15])
    assert np.array_equal(repair({"ratio": cheap})["ratio"], cheap)
    found = repair({"ratio": jnp.array([1.0, 0.1, 0.1])})["ratio"]
    assert found[1:].tolist() == [np.float32(0.1)] * 2
    assert macs({"ratio": found}) <= 1.0


def test_integers_are_lowered_backward_round_and_round():
    repair = to_budget(BITS, lambda d: jnp.sum(d["bits"]), 19)
    assert repair({"bits": jnp.array([8, 8, 8])})["bits"].tolist() == [7, 6, 6]
    # A layer at its least is passed over.
    assert repair({"bits": jnp.array([8, 8, 2])})["bits"].tolist() == [8, 8, 2]
    repair = to_budget(BITS, lambda d: jnp.sum(d["bits"]), 15)
    assert repair({"bits": jnp.array([8, 8, 2])})["bits"].tolist() == [7, 6, 2]


def test_a_population_under_vmap_and_jit_always_fits():
    space = Space({"ratio": Float(0.1, 1.0, size=3), "bits": Int(2, 8, size=3), "op": Category((1, 2))})

    def cost(design):
        return jnp.sum(WIDTHS * design["ratio"] * design["bits"]) * (1 + design["op"])

    designs = space.decode(space.sample(jax.random.key(0), 500))
    repair = to_budget(space, cost, 16.0)  # less than all ratios at 0.1 with 8 bits twice: integers must give way
    found = jax.jit(jax.vmap(repair))(designs)
    costs = jax.vmap(cost)(found)
    assert np.all(costs <= 16.0 * (1 + 1e-6))
    before = jax.vmap(cost)(designs)
    fits = np.asarray(before <= 16.0)
    lowered = np.asarray(jnp.any(found["bits"] < designs["bits"], axis=1))
    assert lowered.any()
    assert not lowered.all()
    assert np.all(np.asarray(found["ratio"])[lowered] <= 0.1001)
    assert np.array_equal(found["op"], designs["op"])
    for name in designs:
        assert np.array_equal(np.asarray(found[name])[fits], np.asarray(designs[name])[fits])


def test_only_named_variables_are_touched():
    space = Space({"ratio": Float(0.1, 1.0), "other": Float(0.1, 1.0)})
    repair = to_budget(space, lambda d: d["ratio"] + d["other"], 0.8, names=["ratio"])
    found = repair({"ratio": jnp.float32(0.9), "other": jnp.float32(0.6)})
    np.testing.assert_allclose([found["ratio"], found["other"]], [0.2, 0.6], rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: to_budget(RATIOS, macs, 0.1), "cheapest design costs 0.35"),
        (lambda: to_budget(RATIOS, macs, np.nan), "budget=nan"),
        (lambda: to_budget(RATIOS, macs, 1.0, names=["width"]), "'width', which is no Float or Int"),
        (lambda: to_budget(Space({"op": Category((1, 2))}), macs, 1.0), "no Float or Int that could be lowered"),
        (lambda: to_budget(Space({"x": Float(-1.0, 1.0)}), lambda d: d["x"], 1.0), "negative values"),
    ],
)
def test_what_is_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()
