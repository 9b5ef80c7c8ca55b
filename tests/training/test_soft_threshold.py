"""STR: weights and gradients by hand, sparsity from decay, thresholds that layers choose for themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compressjax.training import SoftThreshold, masked, soft_threshold, thresholded

FIRST = -5.0


def train(loss, params, decay, steps=300, rate=0.1):
    """Descent on the reparametrized loss, decay on weights and thresholds alike."""
    optimizer = optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate, momentum=0.9))

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(lambda p: loss(thresholded(p)))(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, length=steps))((params, optimizer.init(params)))
    return params


def test_gradients_by_hand():
    trained = SoftThreshold({"w": jnp.array([2.0, -0.25, -1.5, 0.5])}, {"w": jnp.array(0.0)})
    slopes = jax.grad(lambda p: jnp.dot(thresholded(p)["w"], jnp.array([1.0, 10.0, 100.0, 1000.0])))(trained)
    np.testing.assert_array_equal(slopes.weights["w"], [1.0, 0.0, 100.0, 0.0])
    # d/ds = -sign(w) sigmoid'(0) = -+ 1/4, over the two weights beyond the threshold.
    np.testing.assert_allclose(slopes.thresholds["w"], (-1.0 + 100.0) / 4)


def test_dtypes_stay_and_other_leaves_pass():
    params = {"half": jnp.ones(3, jnp.bfloat16), "bias": jnp.full(2, 0.001)}
    seen = thresholded(soft_threshold(params, {"half": 0.0}))
    assert seen["half"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(seen["half"], np.float32), 0.5)
    np.testing.assert_array_equal(seen["bias"], params["bias"])


def test_without_decay_the_effective_weights_reach_the_optimum():
    target = jnp.array([2.0, -1.0, 0.5])
    params = soft_threshold({"w": jnp.array([1.0, -1.5, 0.25])}, {"w": -2.0})
    after = thresholded(train(lambda p: jnp.sum((p["w"] - target) ** 2) / 2, params, 0.0))
    np.testing.assert_allclose(after["w"], target, atol=1e-5)


def test_decay_finds_a_planted_support_and_masked_training_its_optimum():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(80, 20)) / 80**0.5, jnp.float32)
    truth = jnp.zeros(20).at[jnp.array([1, 5, 11])].set(jnp.array([2.0, -1.5, 1.0]))
    loss = lambda p: jnp.sum((x @ (p["w"] - truth)) ** 2) / 2  # noqa: E731
    params = soft_threshold({"w": jnp.asarray(rng.normal(size=20), jnp.float32)}, {"w": FIRST})
    after = thresholded(train(loss, params, 0.02))
    np.testing.assert_array_equal(after["w"] != 0, truth != 0)
    optimizer = masked(optax.sgd(0.5), {"w": after["w"] != 0})
    state = optimizer.init(after)
    step = jax.jit(lambda p, s: optimizer.update(jax.grad(loss)(p), s, p))
    for _ in range(100):
        updates, state = step(after, state)
        after = optax.apply_updates(after, updates)
    np.testing.assert_allclose(after["w"], truth, atol=1e-4)


def test_layers_choose_their_own_sparsity_and_decay_the_overall_one():
    rng = np.random.default_rng(1)
    large, small = (jnp.asarray(scale * rng.normal(size=100), jnp.float32) for scale in (1.0, 0.1))
    loss = lambda p: (jnp.sum((p["large"] - large) ** 2) + jnp.sum((p["small"] - small) ** 2)) / 2  # noqa: E731

    def density(decay):
        params = soft_threshold({"large": large, "small": small}, {"*": FIRST})
        after = train(loss, params, decay)
        return {path: float(jnp.mean(leaf != 0)) for path, leaf in thresholded(after).items()}

    weak, strong = density(0.02), density(0.2)
    assert strong["small"] < 0.7 * strong["large"]
    assert sum(strong.values()) < sum(weak.values())


def test_bad_input():
    with pytest.raises(ValueError, match="'v' has no effect"):
        soft_threshold({"w": jnp.ones(2)}, {"v": FIRST})
    with pytest.raises(ValueError, match="'w' holds int32"):
        soft_threshold({"w": jnp.ones(2, jnp.int32)}, {"w": FIRST})
