"""Gradual magnitude pruning: counts along the ramp, the final count, no revival, global budgets."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compressjax.masks import cubic
from compressjax.projections import Cardinality, Joint
from compressjax.quantizers import Levels
from compressjax.training import gradual_magnitude


def run(transform, params, steps, gradient=jnp.zeros_like):
    state = jax.jit(transform.init)(params)
    update = jax.jit(transform.update)
    for _ in range(steps):
        updates, state = update(jax.tree.map(gradient, params), state, params)
        params = optax.apply_updates(params, updates)
        yield params, state


def test_counts_follow_the_cubic_ramp_and_end_exactly():
    size, final, begin, end = 1000, 37, 2, 10
    params = {"w": jnp.asarray(np.random.default_rng(0).normal(size=size), jnp.float32)}
    transform = gradual_magnitude(optax.sgd(0.1), {"w": Cardinality(final)}, begin=begin, end=end, every=2)
    counts = [int(jnp.sum(params["w"] != 0)) for params, _ in run(transform, params, 12)]
    expected = []
    for step in range(1, 13):
        last = max(begin, min(end, step - (step - begin) % 2))
        expected.append(round(size * float(cubic(last, begin, end, 1.0, final / size))))
    assert counts == expected
    assert counts[-1] == counts[end - 1] == final
    assert counts[0] == size


def test_the_end_counts_even_when_it_is_no_multiple_of_every():
    params = {"w": jnp.arange(1.0, 21.0)}
    transform = gradual_magnitude(optax.sgd(0.1), {"w": Cardinality(4)}, begin=0, end=5, every=3)
    counts = [int(jnp.sum(params["w"] != 0)) for params, _ in run(transform, params, 7)]
    assert counts[4:] == [4, 4, 4]
    np.testing.assert_array_equal(np.flatnonzero(list(run(transform, params, 5))[-1][0]["w"]), [16, 17, 18, 19])


def test_an_initial_density_is_cut_at_begin():
    params = {"w": jnp.arange(1.0, 21.0)}
    transform = gradual_magnitude(optax.sgd(0.1), {"w": Cardinality(2)}, begin=2, end=4, every=1, initial_density=0.5)
    counts = [int(jnp.sum(params["w"] != 0)) for params, _ in run(transform, params, 4)]
    assert counts == [20, 10, 3, 2]


def test_a_ramp_from_step_0_is_cut_with_the_first_step():
    params = {"w": jnp.arange(1.0, 21.0)}
    transform = gradual_magnitude(optax.sgd(0.1), {"w": Cardinality(2)}, begin=0, end=4, every=2, initial_density=0.5)
    counts = [int(jnp.sum(params["w"] != 0)) for params, _ in run(transform, params, 4)]
    assert counts == [10, 3, 3, 2]


def test_the_ramp_may_start_from_the_fraction_that_stays():
    params = {"w": jnp.arange(1.0, 101.0)}
    rules = {"w": Cardinality(0.29)}
    transform = gradual_magnitude(optax.sgd(0.0), rules, begin=0, end=4, every=2, initial_density=0.29)
    assert [int(jnp.sum(params["w"] != 0)) for params, _ in run(transform, params, 4)] == [29] * 4


def test_no_mask_cuts_below_the_count_that_stays():
    params = {"w": jnp.where(jnp.arange(100) < 20, jnp.arange(100) + 1.0, 0.0)}
    rules = {"w": Cardinality(10)}
    transform = gradual_magnitude(optax.sgd(0.0), rules, begin=1, end=3, every=1, initial_density=0.2)
    assert [int(jnp.sum(params["w"] != 0)) for params, _ in run(transform, params, 4)] == [10] * 4


def test_magnitude_after_the_step_decides():
    params = {"w": jnp.array([1.0, 1.1])}
    transform = gradual_magnitude(optax.sgd(1.0), {"w": Cardinality(1)}, begin=0, end=1, every=1)
    gradient = {"w": jnp.array([-0.5, 0.0])}
    updates, state = transform.update(gradient, transform.init(params), params)
    assert state.masks["w"].tolist() == [True, False]
    np.testing.assert_array_equal(optax.apply_updates(params, updates)["w"], [1.5, 0.0])


def test_a_living_weight_that_reaches_zero_outranks_a_dead_one():
    # Plain descent with rate 1 puts every weight on zero at once, so that all living weights tie.
    params = {"w": jnp.arange(1.0, 7.0)}
    transform = gradual_magnitude(optax.sgd(1.0), {"w": Cardinality(2)}, begin=0, end=3, every=1)
    masks = [np.asarray(state.masks["w"]) for _, state in run(transform, params, 3, lambda w: w)]
    assert [int(mask.sum()) for mask in masks] == [3, 2, 2]
    assert np.all(masks[0] >= masks[1])


def test_a_second_stage_ramps_on_from_the_zeros_of_the_first():
    params = {"w": jnp.where(jnp.arange(100) < 40, jnp.arange(1.0, 101.0), 0.0)}
    transform = gradual_magnitude(optax.sgd(0.1), {"w": Cardinality(8)}, begin=0, end=4, every=1)
    counts = [int(jnp.sum(params["w"] != 0)) for params, _ in run(transform, params, 4, jnp.ones_like)]
    assert counts == [round(8 + 32 * (1 - t / 4) ** 3) for t in (1, 2, 3, 4)]


def test_a_joint_budget_is_shared():
    params = {"a": jnp.array([[5.0, 0.1], [4.0, 0.2]]), "b": jnp.array([3.0, 0.3, 0.4]), "c": jnp.ones(2)}
    rules = {"[ab]": Joint(Cardinality(3))}
    *_, (params, state) = run(gradual_magnitude(optax.sgd(0.1), rules, begin=0, end=2, every=1), params, 2)
    np.testing.assert_array_equal(params["a"], np.array([[5.0, 0.0], [4.0, 0.0]], np.float32))
    np.testing.assert_array_equal(params["b"], [3.0, 0.0, 0.0])
    assert set(state.masks) == {"a", "b"}


def test_a_fraction_means_what_it_means_for_the_projection():
    rule = Cardinality(0.29)
    params = {"w": jnp.arange(1.0, 101.0)}
    *_, (params, _) = run(gradual_magnitude(optax.sgd(0.1), {"w": rule}, begin=0, end=1, every=1), params, 1)
    assert int(jnp.sum(params["w"] != 0)) == rule.count((100,)) == 29


def test_a_broken_gradient_is_not_hidden():
    params = {"w": jnp.array([1.0, 2.0, 3.0])}
    transform = gradual_magnitude(optax.sgd(1.0), {"w": Cardinality(1)}, begin=0, end=1, every=1)
    (params, state), *_ = run(transform, params, 1)
    updates, _ = transform.update({"w": jnp.array([jnp.nan, 0.0, 0.0])}, state, params)
    assert np.isnan(updates["w"][0])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"begin": 3, "end": 3}, "needs 0 <= begin < end"),
        ({"begin": -1}, "needs 0 <= begin < end"),
        ({"every": 0}, "every=0 must be a whole number"),
        ({"initial_density": 1.5}, "must lie in"),
    ],
)
def test_bad_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        gradual_magnitude(optax.sgd(0.1), {"w": Cardinality(1)}, **{"begin": 0, "end": 5, "every": 1, **kwargs})


def test_bad_rules():
    params = {"w": jnp.ones((2, 3))}
    make = lambda rule, **kwargs: gradual_magnitude(  # noqa: E731
        optax.sgd(0.1), {"w": rule}, begin=0, end=5, every=1, **kwargs
    )
    with pytest.raises(ValueError, match="w: keep=7"):
        make(Cardinality(7)).init(params)
    with pytest.raises(ValueError, match="'w' must be a Cardinality"):
        make(Joint(Levels(1))).init(params)
    with pytest.raises(ValueError, match="to keep 4 weights but the ramp starts from 3"):
        make(Cardinality(4), initial_density=0.5).init(params)
    with pytest.raises(ValueError, match="gradual_magnitude reads the parameters"):
        make(Cardinality(1)).update(params, make(Cardinality(1)).init(params))
