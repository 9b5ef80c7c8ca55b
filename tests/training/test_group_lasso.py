"""Group lasso and slimming: the proximal step by hand, what it is good for, and bad input."""

from types import SimpleNamespace as Plain

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compressjax import projections as p
from compressjax.training import GroupLassoState, Reweight, group_lasso, masked, slimming


def place(path, axis, index):
    return Plain(path=path, axis=axis, index=np.asarray(index, np.int32))


def still(params):
    return jax.tree.map(jnp.zeros_like, params)


def one_step(transform, params, state=None, gradients=None):
    state = transform.init(params) if state is None else state
    updates, state = transform.update(still(params) if gradients is None else gradients, state, params)
    return optax.apply_updates(params, updates), state


def prox(x, threshold):
    """The proximal operator of ``threshold * ||x||`` in float64."""
    norm = np.linalg.norm(x)
    return x * max(0.0, 1.0 - threshold / norm)


@pytest.mark.parametrize(
    ("kind", "shape", "split", "within"),
    [
        (p.Filters(), (3, 3, 2, 4), (3, 3, 2, 4), (0, 1, 2)),
        (p.Channels(), (3, 3, 2, 4), (3, 3, 2, 4), (0, 1, 3)),
        (p.Columns(), (3, 3, 2, 4), (3, 3, 2, 4), (3,)),
        (p.BlockPunched((2, 2)), (3, 3, 2, 4), (3, 3, 1, 2, 2, 2), (3, 5)),
        (p.BlockColumns(3), (6, 4), (2, 3, 4), (1,)),
        (p.BlockRows(2), (6, 4), (6, 2, 2), (2,)),
        (p.Block((3, 2)), (6, 4), (2, 3, 2, 2), (1, 3)),
    ],
    ids=lambda value: str(value) if isinstance(value, p.Groups) else "",
)
def test_the_step_is_the_proximal_operator_of_every_group(kind, shape, split, within) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape)
    out = [axis for axis in range(len(split)) if axis not in within]
    rows = np.transpose(x.reshape(split), (*out, *within)).reshape(int(np.prod([split[a] for a in out])), -1)
    norms = np.linalg.norm(rows, axis=1)
    # Between the norms, so that some groups vanish and others do not.
    threshold = float(np.median(norms)) + 1e-3
    expected = np.stack([prox(row, threshold) for row in rows])
    strength = threshold / (0.5 * np.sqrt(rows.shape[1]))
    after, _ = one_step(
        group_lasso(optax.sgd(1.0), {"w": kind}, strength, step_size=0.5), {"w": jnp.asarray(x, jnp.float32)}
    )
    found = np.transpose(np.asarray(after["w"]).reshape(split), (*out, *within)).reshape(rows.shape)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(np.all(found == 0.0, axis=1), norms <= threshold)


def coupled():
    rng = np.random.default_rng(0)
    make = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    params = {"a": {"kernel": make(3, 2), "bias": make(2)}, "b": {"kernel": make(5, 3)}}
    places = [place("a/kernel", 1, [0, 1]), place("a/bias", 0, [0, 1]), place("b/kernel", 0, [0, 1, 0, 1, -1])]
    return params, [Plain(name="a", size=2, members=places)]


def rows_of(params):
    a, bias, b = (
        np.asarray(x, np.float64) for x in (params["a"]["kernel"], params["a"]["bias"], params["b"]["kernel"])
    )
    return [np.concatenate([a[:, c], bias[c : c + 1], b[[c, c + 2]].ravel()]) for c in (0, 1)]


def test_a_coupled_group_shrinks_as_one() -> None:
    params, groups = coupled()
    before = rows_of(params)
    norms = [np.linalg.norm(row) for row in before]
    strength = (min(norms) + 0.01) / np.sqrt(10)
    after, _ = one_step(group_lasso(optax.sgd(1.0), groups, strength, step_size=1.0), params)
    for row, old in zip(rows_of(after), before, strict=True):
        np.testing.assert_allclose(row, prox(old, min(norms) + 0.01), rtol=1e-5)
    dead = int(np.argmin(norms))
    assert not np.any(rows_of(after)[dead])
    assert np.all(rows_of(after)[1 - dead] != 0)
    # The row of b that reads no member of the group stays.
    np.testing.assert_array_equal(after["b"]["kernel"][4], params["b"]["kernel"][4])


def test_overlapping_groups_multiply_their_shares() -> None:
    params = {"w": jnp.ones((2, 2))}
    rows = Plain(name="rows", size=2, members=[place("w", 0, [0, 1])])
    columns = Plain(name="columns", size=2, members=[place("w", 1, [0, 1])])
    after, _ = one_step(group_lasso(optax.sgd(1.0), [rows, columns], 0.25, step_size=1.0), params)
    np.testing.assert_allclose(after["w"], np.full((2, 2), 0.75**2), rtol=1e-6)
    both = Plain(name="both", size=2, members=[*rows.members, *columns.members])
    after, _ = one_step(group_lasso(optax.sgd(1.0), [both], 0.25, step_size=1.0), params)
    # Norm 2 over row and column together, 4 entries: one share of 1 - 0.5 / 2 for each of the two places.
    np.testing.assert_allclose(after["w"], np.full((2, 2), 0.75**2), rtol=1e-6)


def test_a_whole_layer_is_one_group() -> None:
    params = {"block1": {"kernel": jnp.full((2, 2), 0.1)}, "block2": {"kernel": jnp.ones((2, 2))}}
    groups = [p.whole(name, params, f"{name}/*") for name in params]
    after, _ = one_step(group_lasso(optax.sgd(1.0), groups, 0.5, step_size=1.0), params)
    np.testing.assert_array_equal(after["block1"]["kernel"], np.zeros((2, 2)))
    np.testing.assert_array_equal(after["block2"]["kernel"], np.full((2, 2), 0.5))


def test_strength_and_step_size_follow_schedules_and_scales() -> None:
    params = {"a": jnp.full((1, 1), 8.0), "b": jnp.full((1, 1), 8.0)}
    transform = group_lasso(
        optax.sgd(1.0), {"*": p.Filters()}, lambda t: 1.0 + t, step_size=lambda t: 2.0**t, scale={"b": 0.5}
    )
    state, found = transform.init(params), []
    for _ in range(3):
        params, state = one_step(transform, params, state)
        found.append((float(params["a"][0, 0]), float(params["b"][0, 0])))
    assert found == [(7.0, 7.5), (3.0, 5.5), (0.0, 0.0)]


def test_the_inner_step_comes_first() -> None:
    params = {"w": jnp.array([[4.0]])}
    after, _ = one_step(
        group_lasso(optax.sgd(1.0), {"w": p.Filters()}, 0.5, step_size=1.0), params, None, {"w": jnp.ones((1, 1))}
    )
    assert float(after["w"][0, 0]) == 2.5


def test_reweighting_spares_the_large_and_refreshes_on_time() -> None:
    params = {"w": jnp.array([[1.0, 3.0]])}
    transform = group_lasso(
        optax.sgd(1.0), {"w": p.Filters()}, 0.125, step_size=1.0, reweight=Reweight(every=2, delta=0.2)
    )
    state = transform.init(params)
    # Energies 1 and 9, mean 5, delta 0.2 of it.
    np.testing.assert_allclose(state.weights["w"], [[5 / 2, 5 / 10]], rtol=1e-6)
    after, second = one_step(transform, params, state)
    np.testing.assert_allclose(after["w"], [[1 - 0.125 * 2.5, 3 - 0.125 * 0.5]], rtol=1e-6)
    np.testing.assert_array_equal(second.weights["w"], state.weights["w"])
    after, third = one_step(transform, after, second)
    energies = np.square(np.asarray(after["w"], np.float64))
    np.testing.assert_allclose(third.weights["w"], energies.mean() / (energies + 0.2 * energies.mean()), rtol=1e-5)


def test_reweighting_survives_a_leaf_of_zeros() -> None:
    params = {"w": jnp.zeros((2, 2))}
    transform = group_lasso(optax.sgd(1.0), {"w": p.Filters()}, 1.0, step_size=0.1, reweight=Reweight(every=1))
    after, state = one_step(transform, params)
    np.testing.assert_array_equal(after["w"], np.zeros((2, 2)))
    np.testing.assert_allclose(state.weights["w"], [[10.0, 10.0]], rtol=1e-6)


def test_nan_stays_visible() -> None:
    params = {"w": jnp.ones((2, 2))}
    gradients = {"w": jnp.array([[jnp.nan, 0.0], [0.0, 0.0]])}
    after, _ = one_step(group_lasso(optax.sgd(1.0), {"w": p.Filters()}, 0.1, step_size=1.0), params, None, gradients)
    assert np.isnan(np.asarray(after["w"])).tolist() == [[True, False], [True, False]]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_zeros_are_exact_whatever_the_optimizer_wanted(dtype) -> None:
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(7, 5)), dtype)}
    transform = group_lasso(optax.adamw(0.1, weight_decay=0.1), {"w": p.Filters()}, 100.0, step_size=0.1)
    state = transform.init(params)
    for seed in range(3):
        gradients = {"w": jnp.asarray(np.random.default_rng(seed).normal(size=(7, 5)), dtype)}
        params, state = one_step(transform, params, state, gradients)
        assert not np.any(np.asarray(params["w"], np.float32))


def test_slimming_is_a_soft_threshold_on_scales_alone() -> None:
    params = {"n1": {"scale": jnp.array([1.0, -0.3, 0.1])}, "fc": {"kernel": jnp.ones((2, 2))}}
    after, state = one_step(slimming(optax.sgd(1.0), 0.4, step_size=0.5), params)
    assert isinstance(state, GroupLassoState)
    np.testing.assert_allclose(after["n1"]["scale"], [0.8, -0.1, 0.0], atol=1e-7)
    assert float(after["n1"]["scale"][2]) == 0.0
    np.testing.assert_array_equal(after["fc"]["kernel"], np.ones((2, 2)))


# What it is for: a linear model in which half of the inputs' blocks matter, the others hold small noise.
TRUE = 4


def regression(seed=0, noise=0.5):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(128, 16))
    weights = rng.normal(size=(16, 6))
    weights[TRUE:] = 0.0
    y = x @ weights + noise * rng.normal(size=(128, 6))
    return jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), weights


def fit(make, steps=300):
    x, y, weights = regression()
    params = {"w": jnp.asarray(np.random.default_rng(1).normal(size=(16, 6)), jnp.float32)}
    transform = make(optax.sgd(0.1))

    @jax.jit
    def run(params):
        def step(carry, _):
            params, state = carry
            gradients = jax.grad(lambda q: 0.5 * jnp.mean(jnp.sum(jnp.square(x @ q["w"] - y), axis=1)))(params)
            updates, state = transform.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, transform.init(params)), None, length=steps)[0][0]

    found = np.asarray(run(params)["w"])
    return found, int(np.sum(np.any(found != 0, axis=1))), float(np.linalg.norm(found - weights))


def test_group_lasso_finds_the_inputs_that_matter_where_l2_finds_none() -> None:
    _, kept_l2, error_l2 = fit(lambda inner: optax.chain(optax.add_decayed_weights(0.05), inner))
    found, kept, error = fit(lambda inner: group_lasso(inner, {"w": p.Channels()}, 0.1, step_size=0.1))
    assert kept_l2 == 16
    assert kept == TRUE
    assert np.all(found[:TRUE] != 0)
    assert error < error_l2 * 1.5


def test_reweighted_beats_plain_at_equal_sparsity() -> None:
    _, plain_kept, plain = fit(lambda inner: group_lasso(inner, {"w": p.Channels()}, 0.1, step_size=0.1))
    make = lambda inner: group_lasso(  # noqa: E731
        inner, {"w": p.Channels()}, 0.05, step_size=0.1, reweight=Reweight(every=20, delta=0.1)
    )
    _, kept, error = fit(make)
    assert kept == plain_kept == TRUE
    assert error < 0.7 * plain


def test_masked_group_lasso_keeps_both_kinds_of_zeros() -> None:
    params = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)), jnp.float32)}
    mask = jnp.arange(16).reshape(4, 4) % 4 != 1
    transform = masked(group_lasso(optax.adam(0.01), {"w": p.Filters()}, 5.0, step_size=0.1), {"w": mask})
    state = transform.init(params)
    for _ in range(3):
        params, state = one_step(transform, params, state)
    assert not np.any(np.asarray(params["w"])[~np.asarray(mask)])
    assert np.any(np.asarray(params["w"]) == 0)


def test_bad_input() -> None:
    params, groups = coupled()
    inner = optax.sgd(0.1)
    with pytest.raises(ValueError, match="strength=-1"):
        group_lasso(inner, groups, -1.0, step_size=0.1)
    with pytest.raises(ValueError, match="step_size=nan"):
        group_lasso(inner, groups, 1.0, step_size=float("nan"))
    with pytest.raises(ValueError, match="every=0"):
        Reweight(every=0)
    with pytest.raises(ValueError, match="delta=0"):
        Reweight(every=1, delta=0.0)
    transform = group_lasso(inner, groups, 1.0, step_size=0.1)
    with pytest.raises(ValueError, match="reads the parameters"):
        transform.update(params, transform.init(params))
    for bad, message in [
        ({"c/kernel": p.Filters()}, "matches no leaf"),
        ({"a/bias": p.Filters()}, "a/bias: Filters needs at least 2 dimensions"),
        ({"b/kernel": p.BlockRows(2)}, "b/kernel: BlockRows: a block of 2 outputs does not divide the 3"),
    ]:
        with pytest.raises(ValueError, match=message):
            group_lasso(inner, bad, 1.0, step_size=0.1).init(params)
    with pytest.raises(ValueError, match="scale of 'a' is 0"):
        group_lasso(inner, groups, 1.0, step_size=0.1, scale={"a": 0.0}).init(params)
    with pytest.raises(ValueError, match="Rule 'b' has no effect"):
        group_lasso(inner, groups, 1.0, step_size=0.1, scale={"b": 2.0}).init(params)
    with pytest.raises(ValueError, match="no leaf has this path"):
        transform.init({"a": params["a"]})
    with pytest.raises(ValueError, match="w holds int32"):
        group_lasso(inner, {"w": p.Filters()}, 1.0, step_size=0.1).init({"w": jnp.ones((2, 2), jnp.int32)})
    with pytest.raises(ValueError, match=r"'\*scale' has no effect"):
        slimming(inner, 1.0, step_size=0.1).init(params)
