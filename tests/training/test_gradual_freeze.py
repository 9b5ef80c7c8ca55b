"""Gradual freezing: shares, exact levels, zeros, and that weights still free make up for frozen ones."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compressjax.projections import Cardinality
from compressjax.quantizers import Codebook, Levels
from compressjax.training import gradual_freeze, tied


def weights(size=200, zeros=40, dtype=jnp.float32):
    rng = np.random.default_rng(1)
    w = rng.normal(size=size)
    w[rng.permutation(size)[:zeros]] = 0.0
    return {"w": jnp.asarray(w, dtype), "b": jnp.ones(3, dtype)}


def run(transform, params, steps, gradient):
    state = jax.jit(transform.init)(params)
    yield params, state

    @jax.jit
    def step(params, state):
        updates, state = transform.update(jax.tree.map(gradient, params), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
        yield params, state


@pytest.mark.parametrize(("quantizer", "dtype"), [(Levels(2), jnp.float32), (Codebook(3), jnp.bfloat16)])
def test_shares_grow_zeros_stay_and_all_end_on_levels(quantizer, dtype):
    params = weights(dtype=dtype)
    zero = np.asarray(params["w"] == 0)
    fractions = (0.25, 0.5, 1.0)
    transform = gradual_freeze(optax.adam(0.02), {"w": quantizer}, fractions=fractions, every=3)
    history = list(run(transform, params, 7, lambda w: w - 1.0))
    counts = [int(jnp.sum(state.frozen["w"])) - zero.sum() for _, state in history]
    assert counts == [40, 40, 40, 80, 80, 80, 160, 160]
    for params, state in history:
        assert np.all(np.asarray(params["w"])[zero] == 0)
        assert params["w"].dtype == state.values["w"].dtype == state.levels["w"].dtype == dtype
        frozen = np.asarray(state.frozen["w"] & (state.values["w"] != 0))
        assert np.all(np.isin(np.asarray(state.values["w"])[frozen], np.asarray(state.levels["w"])))
    for (_, before), (_, state) in pairwise(history):
        assert np.all(state.frozen["w"] | ~before.frozen["w"])
    for (_, before), (params, state) in pairwise(history[1:]):
        # Exactly on the level from the step after the snap on.
        held = np.asarray(before.frozen["w"])
        np.testing.assert_array_equal(np.asarray(params["w"])[held], np.asarray(state.values["w"])[held])
    final = np.asarray(history[-1][0]["w"])
    assert np.all(np.isin(final[~zero], np.asarray(history[-1][1].levels["w"])))


def test_the_closest_are_frozen_first():
    params = {"w": jnp.array([0.0, 1.02, -0.9, 1.5, -1.3])}
    state = gradual_freeze(optax.sgd(0.1), {"w": Levels(1, scale=1.0)}, fractions=(0.5, 0.75, 1.0), every=1).init(
        params
    )
    assert state.frozen["w"].tolist() == [True, True, True, False, False]
    np.testing.assert_array_equal(state.values["w"], [0.0, 1.0, -1.0, 0.0, 0.0])


def test_free_weights_make_up_for_frozen_ones():
    # Loss (sum w - s)^2: freezing half shifts the sum, the other half must take up the difference.
    params = {"w": jnp.array([0.9, 1.1, 0.6, 1.7])}
    transform = gradual_freeze(optax.sgd(0.1), {"w": Levels(1, scale=1.0)}, fractions=(0.5, 1.0), every=1000)
    *_, (params, _) = run(transform, params, 50, lambda w: jnp.full_like(w, jnp.sum(w) - 5.0))
    np.testing.assert_array_equal(params["w"][:2], [1.0, 1.0])
    np.testing.assert_allclose(jnp.sum(params["w"]), 5.0, rtol=1e-5)


def test_a_far_weight_reaches_its_level_to_the_last_bit_one_step_later():
    params = {"w": jnp.array([1000.1, 0.1234567, -0.1234567])}
    level = float(np.float32(0.1234567))
    transform = gradual_freeze(optax.sgd(0.0), {"w": Levels(1, scale=level)}, fractions=(1.0,), every=1)
    *_, (params, _) = run(transform, params, 2, jnp.zeros_like)
    np.testing.assert_array_equal(params["w"], np.float32([level, level, -level]))


def test_levels_can_be_tuned_afterwards():
    params = weights()
    rules = {"w": Codebook(2)}
    transform = gradual_freeze(optax.sgd(0.01), rules, fractions=(0.5, 1.0), every=1)
    *_, (params, state) = run(transform, params, 2, lambda w: w - 1.0)
    transform = tied(optax.sgd(0.1), rules)
    *_, (moved, _) = run(transform, params, 1, lambda w: w - 1.0)
    moved = moved["w"]
    for level in np.unique(params["w"]):
        assert len(np.unique(moved[params["w"] == level])) == 1
    assert set(np.unique(params["w"])) - {0.0} <= set(np.asarray(state.levels["w"]).tolist())


def test_a_broken_gradient_is_not_hidden():
    params = {"w": jnp.array([0.0, 1.0, 2.0])}
    transform = gradual_freeze(optax.sgd(0.1), {"w": Levels(1)}, fractions=(1.0,), every=1)
    updates, _ = transform.update({"w": jnp.array([jnp.nan, 0.0, jnp.inf])}, transform.init(params), params)
    assert np.isnan(updates["w"]).tolist() == [True, False, True]


@pytest.mark.parametrize("fractions", [(), (0.5,), (0.6, 0.5, 1.0), (0.0, 1.0), (0.5, 0.5, 1.0)])
def test_fractions_must_grow_to_one(fractions):
    with pytest.raises(ValueError, match=r"must be positive, grow and end with 1\.0"):
        gradual_freeze(optax.sgd(0.1), {"w": Levels(1)}, fractions=fractions, every=1)


def test_bad_rules():
    params = {"w": jnp.ones(3)}
    transform = gradual_freeze(optax.sgd(0.1), {"w": Levels(1)}, every=1)
    with pytest.raises(ValueError, match="gradual_freeze reads the parameters"):
        transform.update(params, transform.init(params))
    with pytest.raises(Exception, match=r"[Qq]uantizer"):
        gradual_freeze(optax.sgd(0.1), {"w": Cardinality(1)}, every=1).init(params)


def test_whole_numbers_are_refused():
    with pytest.raises(ValueError, match="gradual_freeze: n holds int32, no floating-point numbers"):
        gradual_freeze(optax.sgd(0.1), {"n": Levels(2)}, every=1).init({"n": jnp.arange(3)})
