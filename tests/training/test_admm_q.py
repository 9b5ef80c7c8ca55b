"""ADMM-Q's variants: refreshes by hand, and better points of a discrete set than plain ADMM."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compressjax.projections import Cardinality
from compressjax.training import RandomProjection, SoftProjection, admm

STILL = {"w": jnp.zeros(2)}


class Signs:
    """The tensors of entries -1 and 1."""

    def project(self, x):
        return jnp.where(x < 0, -1.0, 1.0).astype(x.dtype)

    def contains(self, x):
        return jnp.all(jnp.abs(x) == 1)

    def support(self, x):
        return jnp.ones(x.shape, bool)


def refreshed(transform, params, number=1):
    state = jax.jit(transform.init)(params)
    for _ in range(number):
        _, state = jax.jit(transform.update)(jax.tree.map(jnp.zeros_like, params), state, params)
    return state


def test_soft_moves_by_strength_over_rho_and_then_arrives() -> None:
    params = {"w": jnp.array([3.0, 4.0])}
    make = lambda strength: admm(  # noqa: E731
        optax.sgd(0.0), {"w": Cardinality(1)}, rho=0.5, every=1, approach=SoftProjection(strength)
    )
    # P(V) = (0, 4) is 3 away; the strength over rho is 1.
    state = refreshed(make(0.5), params)
    np.testing.assert_allclose(state.z["w"], [2.0, 4.0], rtol=1e-6)
    np.testing.assert_allclose(state.u["w"], [1.0, 0.0], atol=1e-6)
    np.testing.assert_array_equal(refreshed(make(1.5), params).z["w"], [0.0, 4.0])
    np.testing.assert_array_equal(refreshed(make(9.0), params).z["w"], [0.0, 4.0])


def test_the_scale_of_a_leaf_counts_in_the_soft_step() -> None:
    params = {"w": jnp.array([3.0, 4.0]), "v": jnp.array([3.0, 4.0])}
    transform = admm(
        optax.sgd(0.0), {"*": Cardinality(1)}, rho=0.5, every=1, scale={"v": 2.0}, approach=SoftProjection(0.5)
    )
    state = refreshed(transform, params)
    np.testing.assert_allclose(state.z["w"], [2.0, 4.0], rtol=1e-6)
    np.testing.assert_allclose(state.z["v"], [2.5, 4.0], rtol=1e-6)


def test_random_refreshes_its_share_and_keeps_the_rest() -> None:
    params = {"w": jnp.full(4000, 0.25), "v": jnp.full(4000, 0.25)}
    transform = admm(optax.sgd(0.0), {"*": Signs()}, rho=1.0, every=1, approach=RandomProjection(0.3, seed=1))
    state = jax.jit(transform.init)(params)
    state = state._replace(z=jax.tree.map(lambda z: -z, state.z))
    _, one = jax.jit(transform.update)(jax.tree.map(jnp.zeros_like, params), state, params)
    changed = {path: np.asarray(one.z[path] == 1.0) for path in params}
    assert {path: pytest.approx(0.3, abs=0.04) for path in params} == {p: c.mean() for p, c in changed.items()}
    assert np.mean(changed["w"] & changed["v"]) == pytest.approx(0.09, abs=0.03)  # other coins for every leaf
    _, two = jax.jit(transform.update)(jax.tree.map(jnp.zeros_like, params), one, params)
    again = np.asarray(two.z["w"] != one.z["w"])
    assert np.mean(again & changed["w"]) == pytest.approx(0.09, abs=0.03)  # and at every refresh
    _, repeated = jax.jit(transform.update)(jax.tree.map(jnp.zeros_like, params), state, params)
    np.testing.assert_array_equal(one.z["w"], repeated.z["w"])


def test_a_share_of_one_is_plain_admm() -> None:
    params = {"w": jnp.array([3.0, 4.0])}
    plain = refreshed(admm(optax.sgd(0.1), {"w": Cardinality(1)}, rho=1.0, every=1), params, 3)
    always = admm(optax.sgd(0.1), {"w": Cardinality(1)}, rho=1.0, every=1, approach=RandomProjection(1.0))
    jax.tree.map(np.testing.assert_array_equal, refreshed(always, params, 3), plain)


@pytest.mark.slow
def test_the_variants_find_better_signs_than_plain_admm() -> None:
    # minimise x'Qx / 2 + b'x over x in {-1, 1}^8, whose optimum is known by trying all 256.
    rng = np.random.default_rng(0)
    root = rng.normal(size=(48, 8, 8))
    q = jnp.asarray(np.einsum("nij,nik->njk", root, root) / 8, jnp.float32)
    b = jnp.asarray(rng.normal(size=(48, 8)), jnp.float32)
    corners = jnp.asarray(list(itertools.product([-1.0, 1.0], repeat=8)), jnp.float32)
    optimum = jnp.min(0.5 * jnp.einsum("cj,njk,ck->nc", corners, q, corners) + b @ corners.T, axis=1)

    def gap(rho, approach):
        """How far the best Z on the way is from the optimum, on the mean."""

        def solve(q, b):
            transform = admm(optax.sgd(0.1), {"w": Signs()}, rho=rho, every=10, approach=approach)
            params = {"w": jnp.zeros(8)}

            def step(carry, _):
                params, state, best = carry
                updates, state = transform.update({"w": q @ params["w"] + b}, state, params)
                params = optax.apply_updates(params, updates)
                x = Signs().project(state.z["w"])
                return (params, state, jnp.minimum(best, 0.5 * x @ q @ x + b @ x)), None

            first = (params, transform.init(params), jnp.inf)
            return jax.lax.scan(step, first, None, length=600)[0][2]

        return float(jnp.mean(jax.jit(jax.vmap(solve))(q, b) - optimum))

    assert 0 <= gap(1.0, RandomProjection(0.5)) < 0.7 * gap(1.0, None)
    # So large a penalty holds plain ADMM at its first Z.
    assert 0 <= gap(3.0, SoftProjection(1.0)) < 0.2 * gap(3.0, None)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"strength=0\.0 must be positive"):
        SoftProjection(0.0)
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match=r"share=.* must lie in \(0, 1\]"):
            RandomProjection(share)
