"""Members of coupled groups as a constraint over several leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compressjax import channels, training
from compressjax.projections import Filters, Members, coupled, project

X = jnp.asarray(np.random.default_rng(0).standard_normal((6, 3)), jnp.float32)


def residual(p, x):
    """Two kernels make the same channels: a and b."""
    h = x @ p["a"]
    return jax.nn.relu(h + jax.nn.relu(h @ p["in"]) @ p["b"]) @ p["c"]


def parameters() -> dict[str, jax.Array]:
    rng = np.random.default_rng(1)
    shapes = {"a": (3, 4), "in": (4, 5), "b": (5, 4), "c": (4, 2)}
    return {name: jnp.asarray(rng.standard_normal(shape), jnp.float32) for name, shape in shapes.items()}


def alive(kernel: jax.Array) -> list[bool]:
    return np.asarray(kernel != 0).any(0).tolist()


def test_kernels_of_a_group_keep_the_same_members_where_filters_would_not() -> None:
    params = parameters()
    params["a"] = params["a"].at[:, 0].multiply(9.0)
    params["b"] = params["b"].at[:, 3].multiply(5.0)
    net = channels.trace(residual, params, X)
    (name,) = net.at("a", 1)
    together = project(coupled(net.groups, {name: 1}, params), params)
    assert alive(together["a"]) == alive(together["b"]) == [True, False, False, False]
    apart = project({"a": Filters(1), "b": Filters(1)}, params)
    assert alive(apart["a"]) != alive(apart["b"])
    # What is zero on both sides can be removed without a change.
    keep = {name: np.array(alive(together["a"]))}
    small = net.shrink(together, keep).params
    np.testing.assert_allclose(residual(small, X), residual(together, X), rtol=1e-5)


def test_the_kept_members_are_those_with_most_energy_in_all_kernels() -> None:
    params = parameters()
    net = channels.trace(residual, params, X)
    (name,) = net.at("a", 1)
    energy = sum(np.square(np.asarray(params[path])).sum(0) for path in ("a", "b"))
    kept = np.array(alive(project(coupled(net.groups, {name: 2}, params), params)["a"]))
    assert set(np.flatnonzero(kept)) == set(np.argsort(energy)[2:])
    rules = coupled(net.groups, {name: 0.5}, params)
    assert rules["a"] is rules["b"]
    assert alive(project(rules, params)["b"]) == kept.tolist()


def test_kernels_with_outputs_first() -> None:
    params = {"a": jnp.array([[3.0, 1.0], [0.5, 0.0]]), "b": jnp.array([[1.0, 9.0]])}
    net = channels.trace(lambda p, x: p["b"] @ jax.nn.relu(p["a"] @ x), params, jnp.ones(2))
    rules = coupled(net.groups, {net.groups[0].name: 1}, params, outputs={"*": -1})
    assert {path: leaf.tolist() for path, leaf in project(rules, params).items()} == {
        "a": [[3.0, 1.0], [0.0, 0.0]],
        "b": [[1.0, 9.0]],
    }


def test_admm_brings_all_kernels_of_a_group_to_the_set() -> None:
    params = parameters()
    net = channels.trace(residual, params, X)
    (name,) = net.at("a", 1)
    rules = coupled(net.groups, {name: 2}, params)
    target = residual(parameters(), X)
    optimizer = training.admm(optax.adam(1e-2), rules, rho=0.3, every=10)

    @jax.jit
    def step(params, state):
        gradient = jax.grad(lambda p: jnp.mean((residual(p, X) - target) ** 2))(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    before = {path: float(value) for path, value in state.primal.items()}
    for _ in range(300):
        params, state = step(params, state)
    assert all(float(state.primal[path]) < 0.2 * before[path] for path in rules)
    near = project(rules, params)
    assert alive(near["a"]) == alive(near["b"])
    # Approaching the set costs less than jumping there.
    jump = project(rules, parameters())
    loss = lambda p: float(jnp.mean((residual(p, X) - target) ** 2))  # noqa: E731
    assert loss(near) < loss(jump)


def test_bad_input() -> None:
    params = parameters()
    net = channels.trace(residual, params, X)
    with pytest.raises(ValueError, match="none of the groups"):
        coupled(net.groups, {"g9": 1}, params)
    with pytest.raises(ValueError, match="exceeds the 4"):
        coupled(net.groups, {net.at("a", 1)[0]: 5}, params)
    with pytest.raises(ValueError, match="does not fit an index of 3"):
        Members(np.arange(3), 3, 1).project(jnp.ones(4))
    with pytest.raises(ValueError, match=r"member numbers 0\.\.1"):
        Members(np.arange(3), 2, 1)

    shapes = {"u": (3, 2), "v": (3, 2), "w": (4, 2), "both": (3, 4)}
    params = {name: jnp.ones(shape) for name, shape in shapes.items()}

    def two(p, x):  # `both` makes members of two groups
        h = jax.nn.relu(x @ p["both"]) + jnp.concatenate([x @ p["u"], x @ p["v"]], 1)
        return h @ p["w"]

    net = channels.trace(two, params, X)
    names = net.at("both", 1)
    assert len(names) == 2
    with pytest.raises(ValueError, match="both makes members of two groups"):
        coupled(net.groups, dict.fromkeys(names, 1), params)
