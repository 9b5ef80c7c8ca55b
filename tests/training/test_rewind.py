"""Rewinding: survivors at their earlier values, and a ticket that beats a random one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compressjax import masks, scores
from compressjax.training import masked, rewind

NOW = {"fc": {"kernel": jnp.array([[1.0, 2.0]], jnp.bfloat16), "bias": jnp.ones(2)}, "scale": jnp.array([5.0])}
EARLIER = {"fc": {"kernel": jnp.array([[3.0, 4.0]]), "bias": jnp.zeros(2)}, "scale": jnp.array([6.0])}


def test_survivors_go_back_and_the_rest_is_zero():
    back = rewind(NOW, EARLIER, {"fc/kernel": jnp.array([[False, True]])})
    assert jax.tree.map(lambda w: w.dtype, back) == jax.tree.map(lambda w: w.dtype, NOW)
    np.testing.assert_array_equal(np.asarray(back["fc"]["kernel"], np.float32), [[0.0, 4.0]])
    np.testing.assert_array_equal(back["fc"]["bias"], [0.0, 0.0])
    np.testing.assert_array_equal(back["scale"], [6.0])


def test_trees_of_two_networks_are_refused():
    with pytest.raises(ValueError, match="'scale' is not in the earlier parameters"):
        rewind(NOW, {"fc": EARLIER["fc"]}, {})
    with pytest.raises(ValueError, match="'scale' is not in the trained parameters"):
        rewind({"fc": NOW["fc"]}, EARLIER, {})
    with pytest.raises(ValueError, match=r"'scale' has shape \(1,\) now and \(2,\) earlier"):
        rewind(NOW, EARLIER | {"scale": jnp.ones(2)}, {})
    with pytest.raises(ValueError, match="No leaf has the path 'fc'"):
        rewind(NOW, EARLIER, {"fc": jnp.ones(2, bool)})


@pytest.mark.slow
def test_a_ticket_trains_better_than_a_random_one():
    # One hidden layer that learns a product of two of eight inputs; the loop is the one of the documentation.
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(128, 8)), jnp.float32)
    y = x[:, 0] * x[:, 1]
    start = {
        "in": jnp.asarray(rng.normal(size=(8, 32)) / 8**0.5, jnp.float32),
        "out": jnp.asarray(rng.normal(size=32) / 32**0.5, jnp.float32),
    }

    def loss(params):
        return jnp.mean((jax.nn.relu(x @ params["in"]) @ params["out"] - y) ** 2)

    @jax.jit
    def train(params, alive):
        optimizer = masked(optax.adam(0.02), alive)

        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), length=300)[0][0]

    alive = {"in": jnp.ones((8, 32), bool)}
    params = train(start, alive)
    for keep in (128, 64, 32):
        found = scores.magnitude({"in": masks.apply(params, alive)["in"]})
        alive = masks.from_scores(found, {"in": keep})
        params = train(rewind(params, start, alive), alive)
    chance = []
    for seed in range(3):
        random = masks.random(jax.random.key(seed), {"in": (8, 32)}, {"in": 32})
        chance.append(float(loss(train(rewind(params, start, random), random))))
    assert float(loss(params)) < min(min(chance), 0.5 * sum(chance) / len(chance))
