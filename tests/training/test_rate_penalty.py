"""The penalty on bits: nothing at strength 0, small and lonely weights go first, fewer bits at equal error than l1."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compressjax.quantizers import Coded, soft_code_length
from compressjax.training import rate_penalty

RULES = {"w": Coded(100.0)}


def train(transform, target, steps=150):
    params = {"w": target}
    state = jax.jit(transform.init)(params)

    @jax.jit
    def step(params, state):
        updates, state = transform.update({"w": params["w"] - target}, state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
    return params["w"]


def test_no_strength_is_no_penalty():
    target = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5)), jnp.float32)
    np.testing.assert_array_equal(train(rate_penalty(optax.sgd(0.1), RULES, 0.0), target, 3), target)


def test_lonely_weights_go_first_and_large_ones_stay():
    target = jnp.zeros((6, 8)).at[0].set(0.5).at[4, 3].set(0.5).at[1, 1].set(3.0)
    after = train(rate_penalty(optax.sgd(0.1), RULES, 0.02), target)
    assert 0.5 - float(after[4, 3]) > 2 * (0.5 - float(after[0, 3])) > 0
    assert float(after[1, 1]) > 2.9
    assert np.all(after[np.asarray(target) == 0] == 0.0)


@pytest.mark.slow
def test_fewer_bits_than_l1_at_equal_error():
    rng = np.random.default_rng(1)
    rows = rng.exponential(size=(16, 1)) * rng.normal(size=(16, 20)) ** 3
    target = jnp.asarray(rows, jnp.float32)
    ours = train(rate_penalty(optax.sgd(0.1), RULES, 0.03), target)
    error = jnp.sum(jnp.square(ours - target))
    # Soft thresholding solves the l1 problem; its threshold is raised to our error.
    thresholds = np.linspace(0, 1, 400)
    soft = [jnp.sign(target) * jnp.maximum(jnp.abs(target) - t, 0) for t in thresholds]
    l1 = next(x for x in soft if jnp.sum(jnp.square(x - target)) >= error)
    assert soft_code_length(ours) < soft_code_length(l1)


def test_schedules_and_bad_input():
    target = jnp.ones((2, 2)).at[0, 0].set(0.1)
    later = rate_penalty(optax.sgd(1.0), RULES, lambda count: 0.1 * count)
    np.testing.assert_array_equal(train(later, target, 1), target)
    assert not np.array_equal(train(later, target, 2), target)
    with pytest.raises(ValueError, match="strength=-1"):
        rate_penalty(optax.sgd(1.0), RULES, -1.0)
    with pytest.raises(ValueError, match="channels=3"):
        rate_penalty(optax.sgd(1.0), {"w": Coded(9.0, channels=3)}, 1.0).init({"w": jnp.ones((4, 2))})
    with pytest.raises(ValueError, match="rate_penalty reads the parameters"):
        later.update({"w": target}, later.init({"w": target}))


def test_whole_numbers_are_refused():
    with pytest.raises(ValueError, match="rate_penalty: n holds int32, no floating-point numbers"):
        rate_penalty(optax.sgd(0.1), {"n": Coded(8.0)}, 0.1).init({"n": jnp.arange(3)})
