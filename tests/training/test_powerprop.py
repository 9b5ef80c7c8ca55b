"""Powerpropagation: one step by hand, the reparametrised loss trained directly, sparsity, and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compressjax.projections import Cardinality
from compressjax.training import power, powerprop, root


def make_params(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return {"w": jnp.asarray(rng.normal(size=(4, 3)), dtype), "b": jnp.asarray(rng.normal(size=3), dtype)}


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0, 4.0])
def test_root_undoes_power(alpha) -> None:
    x = jnp.array([-3.0, -0.01, 0.0, 0.2, 5.0])
    np.testing.assert_allclose(root(power(x, alpha), alpha), x, rtol=1e-5)
    np.testing.assert_allclose(power(x, alpha), np.sign(x) * np.abs(np.asarray(x, np.float64)) ** alpha, rtol=1e-5)


@pytest.mark.parametrize(
    "inner",
    [
        lambda: optax.sgd(0.05, momentum=0.9, nesterov=True),
        lambda: optax.adam(0.02),
        lambda: optax.adamw(0.02, weight_decay=0.1),
    ],
    ids=["nesterov", "adam", "adamw"],
)
def test_it_trains_as_the_reparametrised_loss_does(inner) -> None:
    target = jax.tree.map(lambda x: x[::-1], make_params())
    loss = lambda p: sum(jnp.sum(jnp.square(p[k] - target[k])) for k in p)  # noqa: E731
    weights = lambda phi: {**phi, "w": power(phi["w"], 3.0)}  # noqa: E731
    theta = make_params()
    phi = {**theta, "w": root(theta["w"], 3.0)}
    ours, theirs = powerprop(inner(), {"w": 3.0}), inner()
    state, direct = ours.init(theta), theirs.init(phi)

    @jax.jit
    def step(theta, state, phi, direct):
        updates, state = ours.update(jax.grad(loss)(theta), state, theta)
        theta = optax.apply_updates(theta, updates)
        updates, direct = theirs.update(jax.grad(lambda q: loss(weights(q)))(phi), direct, phi)
        return theta, state, optax.apply_updates(phi, updates), direct

    for _ in range(8):
        theta, state, phi, direct = step(theta, state, phi, direct)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), theta, weights(phi))
    assert np.any(np.abs(np.asarray(theta["w"] - make_params()["w"])) > 0.05)


def test_an_exponent_of_one_is_the_inner_optimizer() -> None:
    params = make_params()
    inner = optax.adam(0.1)
    transform = powerprop(inner, {"w": 1.0})
    updates, _ = transform.update(params, transform.init(params), params)
    expected, _ = inner.update(params, inner.init(params), params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), updates, expected)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_zeros_stay_and_a_step_of_zero_moves_nothing(dtype) -> None:
    params = {**make_params(dtype), "w": make_params(dtype)["w"].at[1, 1].set(0.0)}
    transform = powerprop(optax.sgd(0.1), {"w": 3.0})
    still, _ = transform.update(jax.tree.map(jnp.zeros_like, params), transform.init(params), params)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), optax.apply_updates(params, still), params)
    updates, _ = transform.update(jax.tree.map(jnp.ones_like, params), transform.init(params), params)
    moved = optax.apply_updates(params, updates)["w"] != params["w"]
    assert not moved[1, 1]
    assert np.sum(moved) == 11


def test_it_finds_a_sparse_solution_where_sgd_finds_a_dense_one() -> None:
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(24, 60)), jnp.float32)
    y = x @ jnp.asarray(np.r_[1.0, 1.5, 2.0, 1.0, np.zeros(56)], jnp.float32)
    start = {"w": jnp.asarray(0.1 * np.abs(rng.normal(size=60)), jnp.float32)}
    loss = lambda p: jnp.mean(jnp.square(x @ p["w"] - y))  # noqa: E731

    def pruned(transform):
        def step(carry, _):
            params, state = carry
            updates, state = transform.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        params = jax.jit(lambda p: jax.lax.scan(step, (p, transform.init(p)), None, length=1000)[0][0])(start)
        assert loss(params) < 0.05
        return loss({"w": Cardinality(4).project(params["w"])})

    assert pruned(powerprop(optax.sgd(0.02), {"w": 2.0})) < 0.2 * pruned(optax.sgd(0.02))


def test_bad_input() -> None:
    params = make_params()
    transform = powerprop(optax.sgd(0.1), {"w": 2.0})
    with pytest.raises(ValueError, match="reads the parameters"):
        transform.update(params, transform.init(params))
    for rules, bad, message in [
        ({"v": 2.0}, params, "Rule 'v' has no effect"),
        ({"w": 0.5}, params, r"the exponent of 'w' is 0\.5; it must be at least 1"),
        ({"w": 2.0}, {"w": jnp.ones(2, jnp.int32)}, "w holds int32"),
    ]:
        with pytest.raises(ValueError, match=message):
            powerprop(optax.sgd(0.1), rules).init(bad)
