"""Ternary gradients: hand cases, unbiasedness, workers on a mesh and on one device, bytes."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec

from compressjax.training import ternarize, ternary_gradients, ternary_mean, traffic

KEY = jax.random.key(0)
NO_CLIP = {"*": math.inf}


def gradient(seed=0, shape=(6, 5)):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_codes_by_hand():
    g = jnp.array([2.0, -2.0, 0.0])
    codes = ternarize(g, KEY, jnp.float32(2.0))
    assert codes.dtype == jnp.int8
    assert codes.tolist() == [1, -1, 0]
    assert ternarize(jnp.zeros(3), KEY, jnp.float32(0.0)).tolist() == [0, 0, 0]


def test_updates_are_three_values_scaled_to_the_largest():
    g = gradient()
    updates, _ = (t := ternary_gradients(optax.identity(), KEY, NO_CLIP)).update({"w": g}, t.init({"w": g}))
    values = np.unique(np.abs(updates["w"]))
    np.testing.assert_allclose(values, [0.0, np.abs(g).max()], rtol=1e-6)


def test_the_mean_over_many_keys_is_the_gradient():
    g, draws = gradient(), 4000
    scale = float(jnp.max(jnp.abs(g)))
    codes = jax.jit(jax.vmap(lambda key: ternarize(g, key, jnp.float32(scale))))(jax.random.split(KEY, draws))
    mean = scale * np.asarray(codes, np.float64).mean(0)
    # The variance of one draw is |g| (s - |g|) <= s^2 / 4; five standard errors over 30 entries.
    spread = np.sqrt(np.abs(g) * (scale - np.abs(g)) / draws)
    assert np.all(np.abs(mean - g) <= 5 * spread + 1e-6)
    assert np.any(np.abs(mean - g) > 0.1 * spread)  # and the bound is of the right size


def test_the_mean_over_steps_is_the_gradient():
    # The transform's own keys, one per step: their draws must be as independent as those of split keys.
    g, draws = {"a": gradient(1), "b": gradient(1)}, 1500
    transform = ternary_gradients(optax.identity(), KEY, NO_CLIP)

    def step(state, _):
        updates, state = transform.update(g, state)
        return state, updates

    _, updates = jax.jit(lambda state: jax.lax.scan(step, state, None, draws))(transform.init(g))
    scale = np.abs(g["a"]).max()
    for name in g:
        spread = np.sqrt(np.abs(g[name]) * (scale - np.abs(g[name])) / draws)
        assert np.all(np.abs(np.asarray(updates[name], np.float64).mean(0) - g[name]) <= 5 * spread + 1e-6)
    assert np.any(updates["a"] != updates["b"])  # leaves draw separately


def test_clipping_bounds_the_scale():
    g = gradient(2, (400,)).at[0].set(50.0)
    sigma = float(jnp.std(g))
    updates, _ = (t := ternary_gradients(optax.identity(), KEY, {"w": 2.5})).update({"w": g}, t.init({"w": g}))
    np.testing.assert_allclose(np.abs(updates["w"]).max(), 2.5 * sigma, rtol=1e-5)


def test_a_step_depends_on_the_key_and_the_count_alone():
    g = {"w": gradient(3)}
    transform = ternary_gradients(optax.identity(), KEY)
    first, state = transform.update(g, transform.init(g))
    second, _ = transform.update(g, state)
    again, _ = transform.update(g, transform.init(g))
    np.testing.assert_array_equal(first["w"], again["w"])
    assert np.any(first["w"] != second["w"])


@pytest.mark.parametrize("fault", [np.nan, np.inf])
def test_a_broken_gradient_is_not_hidden(fault):
    g = {"w": gradient().at[0, 0].set(fault)}
    for clips in ({"w": 2.5}, NO_CLIP):
        updates, _ = (t := ternary_gradients(optax.sgd(0.1), KEY, clips)).update(g, t.init(g))
        assert not np.isfinite(updates["w"]).any()


def test_descent_on_a_convex_problem():
    target = gradient(4)
    params = {"w": jnp.zeros((6, 5))}
    optimizer = ternary_gradients(optax.sgd(optax.cosine_decay_schedule(0.1, 400)), KEY)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update({"w": params["w"] - target}, state)
        return optax.apply_updates(params, updates), state

    for _ in range(400):
        params, state = step(params, state)
    assert float(jnp.max(jnp.abs(params["w"] - target))) < 0.02


def test_a_mesh_and_one_device_do_the_same():
    workers = 2
    rng = np.random.default_rng(5)
    # Eighths, so that sums are exact in any order.
    local = {
        name: jnp.asarray(rng.integers(-40, 40, (workers, *shape)) / 8, jnp.float32)
        for name, shape in (("kernel", (3, 4)), ("bias", (4,)))
    }
    clips = {"*kernel": math.inf, "bias": None}
    mesh = Mesh(np.array(jax.devices()[:workers]), ("data",))
    spec = PartitionSpec("data")

    def shard(local, key):
        mean = ternary_mean(jax.tree.map(lambda g: g[0], local), key, "data", clips)
        return jax.tree.map(lambda g: g[None], mean)

    on_mesh = jax.jit(jax.shard_map(shard, mesh=mesh, in_specs=(spec, PartitionSpec()), out_specs=spec))(local, KEY)
    emulated = jax.jit(jax.vmap(lambda g: ternary_mean(g, KEY, "data", clips), axis_name="data"))(local)
    for name in local:
        np.testing.assert_array_equal(on_mesh[name], emulated[name])
        np.testing.assert_array_equal(on_mesh[name][0], on_mesh[name][1])  # all workers agree
    np.testing.assert_array_equal(on_mesh["bias"][0], local["bias"].mean(0))
    votes = np.asarray(on_mesh["kernel"][0]) / np.abs(local["kernel"]).max() * workers
    np.testing.assert_allclose(votes, np.round(votes), atol=1e-5)
    assert len(np.unique(np.round(votes))) > 3  # sums of both workers' own draws


def test_gradients_taken_on_the_mesh_are_averaged_and_travel_as_bytes():
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    everywhere, shards = PartitionSpec(), PartitionSpec("data")

    def shard(params, x, key):
        gradients = jax.grad(lambda params: jnp.sum(params["w"] * x[0] + params["b"]))(params)
        return ternary_mean(gradients, key, "data", {"w": math.inf, "b": None})

    step = jax.jit(
        jax.shard_map(
            shard, mesh=mesh, in_specs=(everywhere, shards, everywhere), out_specs=everywhere, check_vma=False
        )
    )
    # Entries of one magnitude are ternary already, so that there is no noise: the mean of both workers, not their sum.
    x = jnp.array([[2.0, -2.0, 2.0], [2.0, 2.0, -2.0]])
    operands = {"w": jnp.ones(3), "b": jnp.zeros(())}, x, KEY
    mean = step(*operands)
    np.testing.assert_array_equal(mean["w"], [2.0, 0.0, 0.0])
    assert float(mean["b"]) == 3.0
    assert re.search(r"all_reduce.*?tensor<3xi8>", step.lower(*operands).as_text(), re.DOTALL)


def test_the_result_is_replicated_without_a_worker_axis():
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))

    def shard(x, key):
        return ternary_mean({"w": x.sum(0)}, key, "data")["w"]

    spec = PartitionSpec("data")
    mean = jax.shard_map(shard, mesh=mesh, in_specs=(spec, PartitionSpec()), out_specs=PartitionSpec())
    assert jax.jit(mean)(gradient(6, (4, 3)), KEY).shape == (3,)


def test_the_mean_of_workers_is_unbiased():
    local = gradient(7, (3, 8))
    keys = jax.random.split(KEY, 3000)
    mean = jax.vmap(lambda g, key: ternary_mean({"w": g}, key, "data", NO_CLIP)["w"], (0, None), axis_name="data")
    draws = np.asarray(jax.jit(jax.vmap(lambda key: mean(local, key)[0]))(keys), np.float64)
    scale = float(np.abs(local).max())
    spread = np.sqrt(np.sum(np.abs(local) * (scale - np.abs(local)), axis=0) / 9 / len(keys))
    assert np.all(np.abs(draws.mean(0) - local.mean(0)) <= 5 * spread + 1e-5)


def test_bytes():
    params = {"fc": {"kernel": jnp.zeros((784, 300)), "bias": jnp.zeros(300)}}
    entries = 784 * 300
    assert traffic(params, 4, {"*kernel": 2.5}) == (4 * entries + 1200, entries + 4 + 1200, entries // 4 + 4 + 1200)
    half = {"w": jax.ShapeDtypeStruct((10,), jnp.bfloat16)}
    assert traffic(half, 127) == (20, 14, 7)
    assert traffic(half, 128).votes == 24
    plain, votes, packed = traffic(params, 8)
    assert plain / votes > 3.99
    assert plain / packed > 15.9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ternary_gradients(optax.sgd(0.1), KEY, {"*": 0.0}), "bound of '\\*' is 0.0; it must be positive"),
        (lambda: ternary_gradients(optax.sgd(0.1), KEY, {"v": 2.5}).init({"w": jnp.ones(2)}), "matches no leaf"),
        (lambda: traffic({"w": jnp.ones(2)}, 0), "workers=0 must be"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()
