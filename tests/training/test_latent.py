"""Latent training: always in the set, finds a feasible optimum, lets pruned weights come back."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compressjax.projections import Cardinality
from compressjax.quantizers import Coded, Levels
from compressjax.training import latent, straight_through

TARGET = jnp.array([1.0, 0.0, -2.0, 0.0, 1.0, 0.0])


def run(optimizer, params, loss, steps):
    state = jax.jit(optimizer.init)(params)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
        yield params, state


def quadratic(params):
    return 0.5 * jnp.sum(jnp.square(params["w"] - TARGET))


@pytest.mark.parametrize(
    "rule", [Levels(2, scale=1.0), Cardinality(3), Coded(24.0)], ids=["levels", "cardinality", "coded"]
)
def test_finds_a_feasible_optimum_and_never_leaves_the_set(rule):
    start = {"w": jnp.array([0.3, 0.9, -0.2, 0.8, 0.1, -0.7])}
    if isinstance(rule, Levels):  # zeros stay zeros under a quantizer
        start = {"w": jnp.where(TARGET == 0, 0.0, start["w"])}
    project = jax.jit(rule.project)
    for params, _ in run(latent(optax.sgd(0.2), {"w": rule}), start, quadratic, 40):
        np.testing.assert_allclose(project(params["w"]), params["w"], atol=1e-5)
    np.testing.assert_allclose(params["w"], TARGET, atol=2e-2)


def test_is_straight_through_training():
    rules = {"w": Levels(2, scale=0.5)}
    start = {"w": jnp.array([0.3, 0.9, -0.2, 0.8, 0.1, -0.7])}
    ((params, state),) = run(latent(optax.adam(0.05), rules), start, quadratic, 1)
    assert np.array_equal(params["w"], rules["w"].project(state.latents["w"]))
    first = {"w": rules["w"].project(start["w"])}
    wrapped = straight_through(quadratic, rules)
    np.testing.assert_array_equal(jax.grad(wrapped)(start)["w"], jax.grad(quadratic)(first)["w"])


def test_pruned_weights_may_come_back():
    def loss(params):
        return 0.5 * jnp.sum(jnp.square(params["w"] - jnp.array([0.0, 1.0])))

    seen = [
        np.asarray(p["w"])
        for p, _ in run(latent(optax.sgd(0.1), {"w": Cardinality(1)}), {"w": jnp.array([1.0, 0.5])}, loss, 30)
    ]
    assert seen[0][1] == 0.0
    np.testing.assert_allclose(seen[-1], [0.0, 1.0], atol=0.05)


def test_bad_calls():
    params = {"w": jnp.ones(3)}
    with pytest.raises(ValueError, match="keep"):
        latent(optax.sgd(0.1), {"w": Cardinality(5)}).init(params)
    transform = latent(optax.sgd(0.1), {"w": Cardinality(1)})
    with pytest.raises(ValueError, match="latent reads the parameters"):
        transform.update(params, transform.init(params))
