"""AC/DC: the phases by hand, their masks for several sets, and a support that one cut misses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compressjax.projections import NM, Cardinality, Joint, supports
from compressjax.training import acdc, masked


def run(transform, params, gradient, steps):
    state = jax.jit(transform.init)(params)

    @jax.jit
    def step(params, state):
        updates, state = transform.update(gradient(params), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
        yield params, state


def test_phases_and_slots_by_hand():
    # Constant gradient -1, momentum 1/2: the trace of a living weight goes to -2, that of a revived one begins anew.
    params = {"w": jnp.array([8.0, 1.0])}
    transform = acdc(optax.sgd(1.0, momentum=0.5), {"w": Cardinality(1)}, boundaries=(2, 4, 6))
    seen = list(run(transform, params, lambda p: {"w": -jnp.ones(2)}, 7))
    weights = [params["w"].tolist() for params, _ in seen]
    alive = [state.masks["w"].tolist() for _, state in seen]
    trace = [state.inner[0].trace["w"].tolist() for _, state in seen]
    assert weights[0] == [9.0, 2.0]
    assert [w[1] for w in weights[1:]] == [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    assert alive == [
        [True, True],
        [True, False],
        [True, False],
        [True, True],
        [True, True],
        [True, False],
        [True, False],
    ]
    assert [t[1] for t in trace] == [-1.0, -1.5, -0.75, 0.0, -1.0, -1.5, -0.75]


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(Cardinality(3), id="single", marks=pytest.mark.slow),
        pytest.param(NM(1, 4, axis=0), id="nm"),
        pytest.param(Joint(Cardinality(4)), id="joint"),
    ],
)
def test_compressed_phases_lie_in_the_set(rule):
    rng = np.random.default_rng(0)
    params = {"a": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32), "b": jnp.asarray(rng.normal(size=8), jnp.float32)}
    target = jax.tree.map(lambda w: w[::-1], params)
    transform = acdc(optax.adam(0.1), {"*": rule}, boundaries=range(2, 7, 2))
    states = list(run(transform, params, lambda p: jax.tree.map(jnp.subtract, p, target), 7))
    for number, (params, state) in enumerate(states, 1):
        dense = number in (1, 4, 5)
        for path in "ab":
            assert bool(jnp.all(state.masks[path])) == dense
            np.testing.assert_array_equal(np.asarray(params[path])[~np.asarray(state.masks[path])], 0.0)
    expected = supports({"*": rule}, params)
    for path in "ab":
        np.testing.assert_array_equal(params[path] != 0, expected[path])


@pytest.mark.slow
def test_alternating_finds_the_support_that_one_cut_misses():
    size, support, first, every = 40, 5, 4, 10

    def problem(key):
        kx, kw, ks = jax.random.split(key, 3)
        x = jax.random.normal(kx, (60, size)) @ (jnp.eye(size) + 0.25 * jax.random.normal(ks, (size, size)))
        truth = jnp.zeros(size).at[:support].set(1.0 + jax.random.uniform(kw, (support,)))
        gram = x.T @ x
        return gram / jnp.linalg.norm(gram, 2), truth

    def train(make, key):
        gram, truth = problem(key)
        gradient = lambda p: {"w": gram @ (p["w"] - truth)}  # noqa: E731
        inner, params = optax.sgd(1.0, momentum=0.8), {"w": jnp.zeros(size)}
        state = inner.init(params)
        for _ in range(first):
            updates, state = inner.update(gradient(params), state, params)
            params = optax.apply_updates(params, updates)
        transform = make(params)

        def step(carry, _):
            params, state = carry
            updates, state = transform.update(gradient(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, transform.init(params)), length=600)
        return params["w"], truth

    keys = jax.random.split(jax.random.key(0), 16)
    rules = {"w": Cardinality(support)}
    makers = {
        "cut": lambda params: masked(optax.sgd(1.0, momentum=0.8), supports(rules, params)),
        "acdc": lambda params: acdc(optax.sgd(1.0, momentum=0.8), rules, boundaries=range(1, 402, every)),
    }
    found = {}
    for name, make in makers.items():
        weights, truth = jax.jit(jax.vmap(lambda key, make=make: train(make, key)))(keys)
        found[name] = np.all((weights != 0) == (truth != 0), axis=1)
    assert found["acdc"].sum() > found["cut"].sum() + 4
    # Where the support is right, what follows is least squares on it: the planted weights are its solution.
    np.testing.assert_allclose(weights[found["acdc"]], truth[found["acdc"]], atol=1e-3)


@pytest.mark.parametrize("boundaries", [(), (1, 2), (0,), (3, 2, 5), (2, 2, 3), range(2, 8, 3)])
def test_bad_boundaries(boundaries):
    with pytest.raises(ValueError, match="must be positive, grow, and be odd in number"):
        acdc(optax.sgd(0.1), {"w": Cardinality(1)}, boundaries=boundaries)


def test_bad_input():
    transform = acdc(optax.sgd(0.1), {"w": Cardinality(4)}, boundaries=(1,))
    with pytest.raises(ValueError, match="w: keep=4"):
        transform.init({"w": jnp.ones(3)})
    with pytest.raises(ValueError, match="'w' has no effect"):
        transform.init({"v": jnp.ones(5)})
    params = {"w": jnp.ones(5)}
    with pytest.raises(ValueError, match="acdc reads the parameters"):
        transform.update(params, transform.init(params))
    (_, state), *_ = run(acdc(optax.sgd(0.1), {"w": Cardinality(1)}, boundaries=(1,)), params, lambda p: p, 1)
    broken = {"w": jnp.full(5, jnp.nan)}
    updates, _ = acdc(optax.sgd(0.1), {"w": Cardinality(1)}, boundaries=(1,)).update(broken, state, params)
    assert np.all(np.isnan(updates["w"]))
