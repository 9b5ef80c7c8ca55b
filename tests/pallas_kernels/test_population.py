"""A population in one product equals its members one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pallas_kernels as pk
from tests.pallas_kernels.cases import blocks, error

MEMBERS = [blocks(density=density, seed=seed) for seed, density in enumerate((0.2, 0.5, 0.0))]


@pytest.mark.parametrize("shared", [True, False])
def test_members_one_by_one(shared):
    lead = (2, 3) if shared else (3, 2, 3)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(*lead, 24)), jnp.float32)
    together = pk.stack(MEMBERS, shared=shared)
    got = pk.population_matmul(x, together)
    want = jnp.stack([pk.matmul(x if shared else x[p], w) for p, w in enumerate(MEMBERS)])
    assert error(got, want) < 1e-6

    def loss(weights):
        return (pk.population_matmul(x, weights) ** 2).sum()

    gradient = jax.grad(loss, allow_int=True)(together).weights.values
    alone = [
        jax.grad(lambda w, p=p: (pk.matmul(x if shared else x[p], w) ** 2).sum(), allow_int=True)(w).values
        for p, w in enumerate(MEMBERS)
    ]
    assert error(gradient, jnp.concatenate(alone)) < 1e-5


def test_bad_input():
    with pytest.raises(ValueError, match="no members"):
        pk.stack([])
    with pytest.raises(ValueError, match="member 1"):
        pk.stack([blocks(), blocks(block=(2, 2))])
    with pytest.raises(ValueError, match="do not divide"):
        pk.stack([blocks(23, 19, (5, 3))])
    with pytest.raises(ValueError, match="3 members need"):
        pk.population_matmul(jnp.ones((2, 5, 24)), pk.stack(MEMBERS, shared=False))
