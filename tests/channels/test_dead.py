"""Dead members of traced networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import channels, zoo

X = jnp.asarray(np.random.default_rng(0).standard_normal((5, 3)), jnp.float32)


def perceptron(activation=jax.nn.relu):
    rng = np.random.default_rng(1)
    sizes = {"a": (3, 4), "b": (4, 4), "c": (4, 2)}
    params = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in sizes.items()}
    params["bias"] = np.zeros(4, np.float32)

    def f(p, x):
        return activation(activation(x @ p["a"] + p["bias"][None]) @ p["b"]) @ p["c"]

    return f, params


def find(f, params, x=X, **options):
    net = channels.trace(f, params, x)
    keep = channels.dead(net, params, x, **options)
    return net, keep, {net.groups[i].members[0].path: keep[group.name].tolist() for i, group in enumerate(net.groups)}


def test_unmade_and_unread_members_go_and_the_function_stays():
    f, params = perceptron()
    params["a"][:, 1] = 0  # nothing makes it
    params["b"][2] = 0  # nothing reads it
    params["c"][3] = 0
    net, keep, by_path = find(f, params)
    assert by_path == {"a": [True, False, False, True], "b": [True, True, True, False]}
    small = net.shrink(params, keep).params
    np.testing.assert_allclose(f(small, X), f(params, X), rtol=1e-6)


def test_death_spreads_both_ways():
    f, params = perceptron()
    params["a"][:, 1:] = 0  # only member 0 lives: members of b that read others alone are unmade
    params["b"][0, 2] = 0
    params["c"][1] = 0
    _, _, by_path = find(f, params)
    assert by_path == {"a": [True, False, False, False], "b": [True, False, False, True]}


def test_a_constant_is_not_dead():
    f, params = perceptron(jax.nn.sigmoid)  # sigmoid(0) is 1/2
    params["a"][:, 1] = 0
    params["b"][2] = 0
    assert find(f, params)[2]["a"] == [True, True, False, True]
    f, params = perceptron()
    params["a"][:, 1] = params["a"][:, 2] = 0
    params["bias"][1] = 1.0  # relu(1) is 1; its neighbour is dead all the same
    assert find(f, params)[2]["a"] == [True, True, False, True]


def test_a_constant_that_the_readers_hide_is_not_dead():
    # Member 0 is 1 on every input; what reads it is switched off on these inputs, but not at x = 3.
    params = {
        "a": np.array([[0.0, 1.0]], np.float32),
        "bias": np.array([1.0, 0.0], np.float32),
        "w": np.array([[5.0], [1.0]], np.float32),
        "bw": np.array([-6.0], np.float32),
        "o": np.ones((1, 1), np.float32),
        "d": np.ones((1, 1), np.float32),
    }

    def f(p, x):
        h = jax.nn.relu(x @ p["a"] + p["bias"][None])
        return jax.nn.relu(h @ p["w"] + p["bw"][None]) @ p["o"] + x @ p["d"]

    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 1)), jnp.float32)
    assert find(f, params, x)[2]["a"] == [True, True]
    params["w"][0] = 0  # now nothing reads it
    assert find(f, params, x)[2]["a"] == [False, True]


def test_complex_results():
    f, params = perceptron()
    params["a"][:, 1] = 0

    def wave(p, x):
        return jnp.exp(1j * x.sum(1, keepdims=True)) * f(p, x)

    assert find(wave, params)[2]["a"] == [True, False, True, True]


def test_one_member_stays_where_all_are_dead():
    f, params = perceptron()
    params["a"][:] = 0
    _, keep, by_path = find(f, params)
    assert by_path["a"] == [True, False, False, False]
    assert all(vector.any() for vector in keep.values())


def test_a_living_network_is_left_alone():
    f, params = perceptron()
    assert all(vector.all() for vector in find(f, params)[1].values())


def test_residual_network_with_batch_normalization():
    model = zoo.build("resnet20", widths=(4, 4), blocks=(1,), input_shape=(8, 8, 3))
    params = jax.tree.map(np.array, model.init(jax.random.key(0)))
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    params["stage1_block0"]["conv1"]["kernel"][..., 1] = 0
    params["stage1_block0"]["conv2"]["kernel"][:, :, 3] = 0
    net = channels.trace(model.apply, params, x)
    (inner,) = net.at("stage1_block0/conv1/kernel", 3)
    keep = channels.dead(net, params, x)
    assert keep[inner].tolist() == [True, False, True, False]
    assert all(vector.all() for name, vector in keep.items() if name != inner)
    # A normalization that adds a constant keeps its channel.
    params["stage1_block0"]["norm1"]["bias"][1] = 1.0
    assert channels.dead(net, params, x)[inner].tolist() == [True, True, True, False]


def test_bad_input():
    f, params = perceptron()
    net = channels.trace(f, params, X)
    with pytest.raises(ValueError, match="no leaf"):
        channels.dead(net, {**params, "d": X}, X)
    with pytest.raises(ValueError, match="infinite or nan"):
        channels.dead(net, {**params, "c": np.full((4, 2), np.nan, np.float32)}, X)
    with pytest.raises(ValueError, match="it has 2 axes"):
        channels.dead(net, params, X, outputs={"a": 5})
    with pytest.raises(ValueError, match="matches no leaf"):
        channels.dead(net, params, X, outputs={"nothing": 1})
