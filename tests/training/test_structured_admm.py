"""ADMM on structured sets: whole filters, inputs, shapes and blocks leave, and what stays makes up for them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compressjax import projections as p
from compressjax.training import admm, masked

CONV, DENSE = (2, 2, 6, 8), (12, 8)
SETS = {
    "filters": (p.Filters(4), CONV),
    "channels": (p.Channels(3), CONV),
    "columns": (p.Columns(12), CONV),
    "block-punched": (p.BlockPunched((2, 2), 16), CONV),
    "block rows": (p.BlockRows(4, 12), DENSE),
    "block columns": (p.BlockColumns(4, 12), DENSE),
}


def train(transform, params, gradient, steps):
    def step(carry, _):
        params, state = carry
        updates, state = transform.update(gradient(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    run = jax.jit(lambda params: jax.lax.scan(step, (params, transform.init(params)), None, length=steps)[0][0])
    return run(params)


@pytest.mark.parametrize("name", SETS)
def test_admm_beats_one_shot_and_masked_retraining_stays_in_the_set(name) -> None:
    """A quadratic in which all weights are correlated, so that those that stay can stand in for those that go."""
    constraint, shape = SETS[name]
    rng = np.random.default_rng(0)
    size = int(np.prod(shape))
    factor = rng.normal(size=(size, size // 3)) @ rng.normal(size=(size // 3, size)) / size + 0.5 * np.eye(size)
    hessian = factor @ factor.T
    hessian = jnp.asarray(hessian / np.linalg.eigvalsh(hessian)[-1], jnp.float32)
    best = jnp.asarray(rng.normal(size=shape), jnp.float32)

    def gradient(params):
        return {"w": (hessian @ (params["w"] - best).ravel()).reshape(shape)}

    def loss(w):
        off = (w - best).ravel()
        return float(0.5 * off @ hessian @ off)

    rules = {"w": constraint}
    start = {"w": best}
    near = train(admm(optax.sgd(0.5), rules, rho=lambda t: 0.02 + t / 1000, every=5), start, gradient, 300)
    found = p.project(rules, near)["w"]
    assert loss(found) < 0.9 * loss(constraint.project(best))

    support = constraint.support(near["w"])
    tuned = train(masked(optax.sgd(0.5), {"w": support}), {"w": found}, gradient, 100)
    assert bool(constraint.contains(tuned["w"]))
    assert not np.any(np.asarray(tuned["w"])[~np.asarray(support)])
    assert loss(tuned["w"]) <= loss(found)
