"""Sharpness-aware gradients: by hand, towards flat minima, and around ADMM (SAFE)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compressjax.projections import Cardinality, project
from compressjax.training import admm, half_cosine, sharpness_aware


def test_by_hand_on_a_quadratic() -> None:
    h = jnp.array([1.0, 4.0])
    loss = lambda p, shift: 0.5 * jnp.sum(h * jnp.square(p["w"])) + jnp.sum(p["b"]) + shift  # noqa: E731
    params = {"w": jnp.array([2.0, 0.5]), "b": jnp.array([1.0])}
    value, gradient = jax.jit(sharpness_aware(loss, 0.6))(params, 10.0)
    # The gradient (2, 2; 1) has norm 3, so the step uphill is 0.2 of it.
    assert value == 0.5 * (4.0 + 1.0) + 1.0 + 10.0
    np.testing.assert_allclose(gradient["w"], [2.4, 3.6], rtol=1e-6)
    np.testing.assert_array_equal(gradient["b"], [1.0])


def test_a_radius_of_zero_is_the_plain_gradient_and_auxiliary_output_passes() -> None:
    loss = lambda p: (jnp.sum(jnp.sin(p)), p[0])  # noqa: E731
    params = jnp.array([0.3, 1.0])
    (value, aux), gradient = sharpness_aware(loss, 0.0, has_aux=True)(params)
    np.testing.assert_allclose(value, jnp.sum(jnp.sin(params)))
    assert aux == params[0]
    np.testing.assert_allclose(gradient, jnp.cos(params), rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dtypes_stay_and_a_gradient_of_zero_is_no_fault(dtype) -> None:
    params = {"w": jnp.zeros(3, dtype), "v": jnp.ones(2, jnp.float32)}
    _, gradient = sharpness_aware(lambda p: jnp.sum(jnp.square(p["w"])), 0.1)(params)
    assert gradient["w"].dtype == dtype
    np.testing.assert_array_equal(gradient["w"], np.zeros(3))
    _, gradient = sharpness_aware(lambda p: jnp.sum(jnp.square(p["w"])), 0.1)({**params, "w": params["w"] + jnp.nan})
    assert np.all(np.isnan(np.asarray(gradient["w"], np.float32)))


def descend(gradient, params, transform, steps):
    def step(carry, _):
        params, state = carry
        updates, state = transform.update(gradient(params)[1], state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda p: jax.lax.scan(step, (p, transform.init(p)), None, length=steps)[0][0])(params)


def test_of_many_minima_it_finds_a_flat_one() -> None:
    # (a b - 1)^2 is zero on a curve; its curvature there is a^2 + b^2 times two, least at a = b.
    loss = lambda p: jnp.square(p["a"] * p["b"] - 1.0)  # noqa: E731
    start = {"a": jnp.float32(3.0), "b": jnp.float32(0.5)}
    curvature = lambda p: float(p["a"] ** 2 + p["b"] ** 2)  # noqa: E731
    plain = descend(jax.value_and_grad(loss), start, optax.sgd(0.02), 1500)
    flat = descend(sharpness_aware(loss, 0.1), start, optax.sgd(0.02), 1500)
    assert loss(plain) < 1e-6
    assert loss(flat) < 0.05
    assert curvature(flat) < 0.5 * curvature(plain)


@pytest.mark.slow
def test_around_admm_the_projected_weights_lie_flatter() -> None:
    # Two layers without a bend: what they compute is a product, which has sharp and flat factorizations.
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(40, 8)), jnp.float32)
    y = x @ jnp.asarray(np.r_[2.0, -1.0, 1.0, np.zeros(5)], jnp.float32)
    loss = lambda p: jnp.mean(jnp.square(x @ p["w"] @ p["v"] - y))  # noqa: E731
    params = {
        "w": jnp.asarray(2.0 * rng.normal(size=(8, 3)), jnp.float32),
        "v": jnp.asarray(0.2 * rng.normal(size=3), jnp.float32),
    }
    rules = {"w": Cardinality(5)}
    transform = admm(optax.sgd(0.01), rules, rho=half_cosine(0.0, 1.0, 1500), every=16)
    found = {}
    for name, gradient in {"admm": jax.value_and_grad(loss), "safe": sharpness_aware(loss, 0.1)}.items():
        pruned = project(rules, descend(gradient, params, transform, 2500))
        flat, unravel = jax.flatten_util.ravel_pytree(pruned)
        hessian = jax.hessian(lambda f, unravel=unravel: loss(unravel(f)))(flat)
        found[name] = (float(loss(pruned)), float(jnp.linalg.eigvalsh(hessian)[-1]))
    assert found["safe"][0] < 0.1
    assert found["safe"][1] < 0.9 * found["admm"][1]


def test_a_negative_radius_is_refused() -> None:
    with pytest.raises(ValueError, match=r"radius=-0\.1 must not be negative"):
        sharpness_aware(jnp.sum, -0.1)
