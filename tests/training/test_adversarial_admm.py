"""Adversarial training under ADMM: the loss is a function, so the worst inputs nearby are one more line in it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compressjax.projections import Cardinality, project
from compressjax.training import admm, half_cosine

RADIUS = 1.0
RULES = {"w": Cardinality(2)}


def data(seed):
    """Two noisy inputs that say much, twenty precise ones that an attack of `RADIUS` turns around."""
    rng = np.random.default_rng(seed)
    y = rng.choice([-1.0, 1.0], size=400)
    mean = np.r_[np.full(2, 1.5), np.full(20, 0.9)]
    noise = np.r_[np.full(2, 1.5), np.full(20, 0.1)]
    x = y[:, None] * mean + noise * rng.normal(size=(400, 22))
    return jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)


def loss(params, x, y):
    return jnp.mean(jax.nn.softplus(-y * (x @ params["w"] + params["b"])))


def pgd(params, x, y, steps=5):
    """Projected gradient ascent in the ball of `RADIUS` around x, in the largest entry."""

    def ascend(delta, _):
        uphill = jnp.sign(jax.grad(lambda d: loss(params, x + d, y))(delta))
        return jnp.clip(delta + RADIUS / 2 * uphill, -RADIUS, RADIUS), None

    return x + jax.lax.stop_gradient(jax.lax.scan(ascend, jnp.zeros_like(x), None, length=steps)[0])


def robust_loss(params, x, y):
    return loss(params, pgd(params, x, y), y)


def prune(objective):
    x, y = data(0)
    transform = admm(optax.sgd(0.2), RULES, rho=half_cosine(0.0, 1.0, 300), every=10)
    params = {"w": jnp.full(22, 0.1), "b": jnp.zeros(())}

    def step(carry, _):
        params, state = carry
        updates, state = transform.update(jax.grad(objective)(params, x, y), state, params)
        return (optax.apply_updates(params, updates), state), None

    run = jax.jit(lambda p: jax.lax.scan(step, (p, transform.init(p)), None, length=400)[0][0])
    return project(RULES, run(params))


def test_the_attack_reaches_the_worst_point_of_a_linear_model():
    x, y = data(1)
    params = {"w": jnp.asarray(np.random.default_rng(0).normal(size=22), jnp.float32), "b": jnp.ones(())}
    worst = x - RADIUS * y[:, None] * jnp.sign(params["w"])[None]
    np.testing.assert_allclose(pgd(params, x, y), worst, rtol=1e-6)


@pytest.mark.slow
def test_what_is_kept_is_what_an_attack_leaves_useful():
    x, y = data(1)
    attacked = {}
    for name, objective in {"plain": loss, "adversarial": robust_loss}.items():
        params = prune(objective)
        kept = np.flatnonzero(params["w"])
        assert len(kept) == 2
        worst = x - RADIUS * y[:, None] * jnp.sign(params["w"])[None]
        attacked[name] = float(jnp.mean(y * (worst @ params["w"] + params["b"]) > 0))
        if name == "adversarial":
            assert kept.tolist() == [0, 1]
    assert attacked["adversarial"] > 0.6
    assert attacked["plain"] < 0.3
