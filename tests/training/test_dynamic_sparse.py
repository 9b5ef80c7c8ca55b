"""Dynamic sparse training: masks by hand, the schedule, and which rule finds a planted support."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compressjax import masks, trees
from compressjax.training import dynamic_sparse, masked, rigl, set_
from compressjax.training._dynamic_sparse import rewired

MASK = jnp.array([[True, True, False], [False, True, True]])
WEIGHT = jnp.array([[3.0, -0.5, 9.0], [0.0, 1.0, -2.0]])


@pytest.mark.parametrize(
    ("score", "share", "expected"),
    [
        pytest.param([[0, 0, 1], [2, 0, 0]], 0.24, [[1, 1, 0], [0, 1, 1]], id="a share of less than one weight"),
        pytest.param([[0, 0, 1], [2, 0, 0]], 0.25, [[1, 0, 0], [1, 1, 1]], id="one moves"),
        pytest.param([[0, 0, 1], [2, 0, 0]], 0.5, [[1, 0, 1], [1, 0, 1]], id="two move"),
        pytest.param([[9, 3, 1], [2, 0, 9]], 0.5, [[1, 1, 0], [1, 0, 1]], id="what is dropped may grow again"),
        pytest.param([[1, 1, 1], [1, 1, 1]], 0.25, [[1, 1, 0], [0, 1, 1]], id="ties go to the lower index"),
        pytest.param([[6, 5, 4], [3, 2, 1]], 1.0, [[1, 1, 1], [1, 0, 0]], id="all move"),
    ],
)
def test_masks_by_hand(score, share, expected):
    found = rewired(MASK, WEIGHT, jnp.array(score, jnp.float32), jnp.float32(share))
    np.testing.assert_array_equal(found, np.array(expected, bool))


def test_the_share_that_moves_follows_the_cosine():
    alive, size, every, end, drop = 200, 1000, 3, 20, 0.4
    index = jnp.arange(size)
    params = {"w": jnp.where(index < alive, 1.0, 0.0)}

    def growth(gradients, count):
        # Each time a hundred weights that never lived, so that whatever moves is seen to move.
        return {"w": (index // 100 == count // every + 1).astype(jnp.float32)}

    transform = dynamic_sparse(optax.sgd(0.0), {"w": index < alive}, growth, every=every, end=end, drop=drop)
    state = transform.init(params)
    update = jax.jit(transform.update)
    moved = []
    for _ in range(25):
        before = np.asarray(state.masks["w"])
        _, state = update({"w": jnp.zeros(size)}, state, params)
        assert state.masks["w"].sum() == alive
        moved.append(int(np.sum(state.masks["w"] & ~before)))
    share = lambda t: drop * (1 + np.cos(np.pi * t / end)) / 2 if t % every == 0 and t < end else 0.0  # noqa: E731
    assert moved == [int(share(t) * alive) for t in range(1, 26)]


def planted(key, rows=120, size=40, support=6):
    """Noise-free regression of which `support` inputs matter."""
    kx, kw, ks = jax.random.split(key, 3)
    x = jax.random.normal(kx, (rows, size)) / rows**0.5
    truth = jnp.where(jnp.arange(size) < support, 1.0 + jax.random.uniform(kw, (size,)), 0.0)
    return x, jax.random.permutation(ks, truth)


MAKERS = {
    "static": lambda inner, alive, key: masked(inner, alive),
    "set": lambda inner, alive, key: set_(inner, alive, key, every=10, end=200),
    "rigl": lambda inner, alive, key: rigl(inner, alive, every=10, end=200),
}


@cache
def trained(name):
    """Weights, masks and truth of 32 planted problems for one rule; the random masks are the same for all rules."""

    def run(key):
        kp, km, kt = jax.random.split(key, 3)
        x, truth = planted(kp)
        alive = masks.random(km, {"w": truth.shape}, {"w": 12})
        transform = MAKERS[name](optax.sgd(0.3, momentum=0.5), alive, kt)

        def step(carry, _):
            params, state = carry
            updates, state = transform.update({"w": x.T @ (x @ (params["w"] - truth))}, state, params)
            return (optax.apply_updates(params, updates), state), None

        params = {"w": 0.1 * jax.random.normal(km, truth.shape)}
        (params, state), _ = jax.lax.scan(step, (params, transform.init(params)), length=250)
        return params["w"], state.masks["w"], truth

    return jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 32))


@pytest.mark.slow
def test_rigl_finds_the_support_more_often_than_set_and_set_than_a_static_mask():
    ends = {name: trained(name) for name in MAKERS}
    share = {name: float(jnp.mean(alive[truth != 0])) for name, (_, alive, truth) in ends.items()}
    assert share["rigl"] > share["set"] + 0.1 > share["static"] + 0.2
    whole = {name: int(jnp.sum(jnp.all(alive | (truth == 0), axis=1))) for name, (_, alive, truth) in ends.items()}
    assert whole["rigl"] > whole["set"] > whole["static"]


def test_rigl_converges_to_the_planted_optimum():
    weights, alive, truth = (np.asarray(x) for x in trained("rigl"))
    assert np.all(np.any(weights != 0, axis=1))
    np.testing.assert_allclose(weights, truth, atol=1e-4)
    assert np.all(weights[~alive] == 0.0)
    assert np.all(np.sum(alive, axis=1) == 12)


def test_random_growth_depends_on_leaf_step_and_key():
    params = {"a": jnp.ones(100), "b": jnp.ones(100)}
    alive = masks.random(jax.random.key(0), trees.shapes(params), {"a": 50, "b": 50})
    alive["b"] = alive["a"]

    def grown(key):
        transform = set_(optax.sgd(0.0), alive, jax.random.key(key), every=1, end=100)
        state = transform.init(params)
        update = jax.jit(transform.update)
        out = []
        for _ in range(2):
            before = state.masks
            _, state = update(jax.tree.map(jnp.zeros_like, params), state, params)
            out += [np.asarray(state.masks[path] & ~before[path]) for path in "ab"]
        return out

    one, again, other = grown(1), grown(1), grown(2)
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    distinct = {tuple(np.flatnonzero(mask)) for mask in [*one, *other]}
    assert len(distinct) == 8


def test_masks_from_scores_will_do_and_zeros_among_them_live():
    params = {"w": jnp.array([0.0, 2.0, 5.0, 1.0])}
    transform = rigl(optax.sgd(0.5), {"w": jnp.array([True, True, False, False])}, every=10, end=20)
    updates, state = transform.update({"w": jnp.ones(4)}, transform.init(params), params)
    np.testing.assert_array_equal(optax.apply_updates(params, updates)["w"], [-0.5, 1.5, 0.0, 0.0])
    np.testing.assert_array_equal(state.masks["w"], [True, True, False, False])


@pytest.mark.parametrize("place", [0, 2])
def test_a_broken_gradient_is_not_hidden(place):
    params = {"w": jnp.array([3.0, 2.0, 0.0, 0.0])}
    transform = rigl(optax.sgd(0.5), {"w": params["w"] != 0}, every=1, end=20)
    gradients = {"w": jnp.ones(4).at[place].set(jnp.nan)}
    updates, _ = transform.update(gradients, transform.init(params), params)
    assert np.isnan(updates["w"][place])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"every": 0}, "every=0 must be a whole number"),
        ({"end": 0}, "end=0 must be a whole number"),
        ({"drop": 0.0}, r"drop=0.0 must lie in \(0, 1\]"),
        ({"drop": 1.5}, r"drop=1.5 must lie in \(0, 1\]"),
    ],
)
def test_bad_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        rigl(optax.sgd(0.1), {"w": jnp.ones(2, bool)}, **{"every": 1, "end": 10, **kwargs})


def test_bad_masks():
    params = {"w": jnp.ones(3)}
    make = lambda alive: rigl(optax.sgd(0.1), alive, every=1, end=10)  # noqa: E731
    with pytest.raises(ValueError, match=r"the mask of 'w' has shape \(2,\), the leaf has \(3,\)"):
        make({"w": jnp.ones(2, bool)}).init(params)
    with pytest.raises(ValueError, match="No leaf has the path 'v'"):
        make({"v": jnp.ones(3, bool)}).init(params)
    transform = make({"w": jnp.ones(3, bool)})
    with pytest.raises(ValueError, match="dynamic_sparse reads the parameters"):
        transform.update(params, transform.init(params))
