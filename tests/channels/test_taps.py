"""What the readers of a group read, against activations written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from compressjax import channels, zoo
from tests.channels.functions import conv, inputs, weights
from tests.zoo.test_shrinking import MODELS


def relu_pool(x):
    n, h, w, c = x.shape
    return jax.nn.relu(x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4)))


def test_lenet5_is_seen_before_every_reader() -> None:
    model = zoo.build("lenet5", widths=(4, 5, 6))
    params = model.init(jax.random.key(0))
    x = inputs(3, 28, 28, 1)
    net = channels.trace(model.apply, params, x)
    (conv1,), (conv2,), (fc1,) = (
        net.at(path, axis) for path, axis in (("conv1/kernel", 3), ("conv2/kernel", 3), ("fc1/kernel", 1))
    )
    biased = lambda y, layer: y + params[layer]["bias"].reshape((1,) * (y.ndim - 1) + (-1,))  # noqa: E731
    first = relu_pool(biased(conv(x, params["conv1"]["kernel"], padding="VALID"), "conv1"))
    second = relu_pool(biased(conv(first, params["conv2"]["kernel"], padding="VALID"), "conv2"))
    third = jax.nn.relu(biased(second.reshape(3, -1) @ params["fc1"]["kernel"], "fc1"))

    tapped = jax.jit(net.taps())(params, x)
    assert tapped.keys() == {conv1, conv2, fc1}
    assert all(len(arrays) == 1 for arrays in tapped.values())
    np.testing.assert_allclose(tapped[conv1][0], first, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(tapped[conv2][0], second.reshape(3, 16, 5), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(tapped[fc1][0], third, rtol=1e-5, atol=1e-5)
    assert second.std() > 1e-3
    assert list(net.taps([conv2])(params, x)) == [conv2]


def test_a_residual_stream_is_seen_in_all_its_places() -> None:
    model = zoo.build("resnet20", widths=(6, 7, 13, 8, 19, 9), blocks=(1, 1, 1), input_shape=(8, 8, 3), classes=4)
    params, x = model.init(jax.random.key(1)), inputs(3, 8, 8, 3)
    net = channels.trace(model.apply, params, x)
    tapped = jax.jit(net.taps())(params, x)
    assert tapped.keys() == {group.name for group in net.groups}
    for group in net.groups:
        assert all(array.shape[0] == 3 and array.shape[-1] == group.size for array in tapped[group.name])
    # The stem's channels are read by the first convolution of every stage and by the dense layer.
    (stem,) = net.at("conv0/kernel", 3)
    assert [array.shape for array in tapped[stem]] == [(3, 8, 8, 6), (3, 8, 8, 6), (3, 4, 4, 6), (3, 6)]
    # What the block's second convolution reads follows by hand from what its first one reads.
    block = params["stage1_block0"]
    (inner,) = net.at("stage1_block0/conv1/kernel", 3)
    norm = {name: np.asarray(leaf)[None, None, None] for name, leaf in block["norm1"].items()}
    feature = (conv(tapped[stem][0], block["conv1"]["kernel"]) - norm["mean"]) / np.sqrt(norm["var"] + 1e-5)
    np.testing.assert_allclose(
        tapped[inner][0], np.maximum(feature * norm["scale"] + norm["bias"], 0), rtol=1e-4, atol=1e-5
    )
    # The dense layer's operand is a concatenation of groups: together they give the logits.
    kernel, logits = np.asarray(params["fc"]["kernel"]), np.asarray(params["fc"]["bias"])[None]
    for group in net.groups:
        for member in group.members:
            if (member.path, member.axis) == ("fc/kernel", 0):
                rows = np.argsort(np.where(member.index < 0, len(kernel), member.index))[: group.size]
                logits = logits + np.asarray(tapped[group.name][-1]) @ kernel[rows]
    np.testing.assert_allclose(logits, model.apply(params, x), rtol=1e-4, atol=1e-5)


def nchw(p, x):
    y = conv(x, p["a"], dimension_numbers=("NCHW", "OIHW", "NCHW"))
    return jax.nn.relu(y).reshape(len(x), -1) @ p["b"]


def test_channels_outside_of_positions_are_told_apart() -> None:
    params = {"a": inputs(5, 2, 3, 3), "b": inputs(5 * 16, 2)}
    x = inputs(3, 2, 4, 4)
    (found,) = channels.trace(nchw, params, x).taps()(params, x)["g0"]
    feature = jax.nn.relu(conv(x, params["a"], dimension_numbers=("NCHW", "OIHW", "NCHW")))
    np.testing.assert_allclose(found, feature.reshape(3, 5, 16).transpose(0, 2, 1), rtol=1e-6)


def test_samples_on_another_axis_and_samples_merged_with_positions() -> None:
    params, x = {"a": inputs(6, 4), "b": inputs(2, 6)}, inputs(5, 4)
    net = channels.trace(lambda p, x: p["b"] @ jnp.tanh(p["a"] @ x.T), params, x)
    (found,) = net.taps()(params, x)["g0"]
    np.testing.assert_allclose(found, np.tanh(x @ params["a"].T), rtol=1e-5)

    params, x = {"a": inputs(4, 6), "b": inputs(6, 2)}, inputs(5, 3, 4)
    net = channels.trace(lambda p, x: jnp.tanh(x.reshape(15, 4) @ p["a"]) @ p["b"], params, x)
    (found,) = net.taps()(params, x)["g0"]
    np.testing.assert_allclose(found, np.tanh(x @ params["a"]), rtol=1e-5)


def test_concatenations_and_products_of_groups() -> None:
    params, x = weights(a=(4, 3), b=(4, 5), c=(8, 2)), inputs(6, 4)

    def joined(p, x):
        return jnp.concatenate([jnp.tanh(x @ p["a"]), jnp.sin(x @ p["b"])], -1) @ p["c"]

    tapped = channels.trace(joined, params, x).taps()(params, x)
    np.testing.assert_allclose(tapped["g0"][0], np.tanh(x @ params["a"]), rtol=1e-5)
    np.testing.assert_allclose(tapped["g1"][0], np.sin(x @ params["b"]), rtol=1e-5)

    params = weights(v=(4, 3, 5), o=(3, 5, 2))  # heads times width, both summed over

    def heads(p, x):
        return jnp.einsum("nhw,hwo->no", jnp.tanh(jnp.einsum("ni,ihw->nhw", x, p["v"])), p["o"])

    net = channels.trace(heads, params, x)
    tapped = net.taps()(params, x)
    value = jnp.tanh(jnp.einsum("ni,ihw->nhw", x, params["v"]))  # NumPy rounds sums near 0 otherwise
    np.testing.assert_allclose(tapped[net.at("v", 1)[0]][0], value.transpose(0, 2, 1), rtol=1e-5)
    np.testing.assert_allclose(tapped[net.at("v", 2)[0]][0], value, rtol=1e-5)


def test_grouped_convolutions_are_readers_and_depthwise_ones_are_not() -> None:
    params, x = weights(a=(1, 1, 2, 6), depth=(3, 3, 1, 6), b=(1, 1, 6, 3)), inputs(3, 4, 4, 2)

    def separable(p, x):
        return conv(jnp.tanh(conv(jnp.tanh(conv(x, p["a"])), p["depth"], feature_group_count=6)), p["b"])

    (found,) = channels.trace(separable, params, x).taps()(params, x)["g0"]
    hidden = jnp.tanh(conv(x, params["a"]))
    np.testing.assert_allclose(found, jnp.tanh(conv(hidden, params["depth"], feature_group_count=6)), rtol=1e-5)

    params["depth"] = weights(depth=(3, 3, 2, 6))["depth"]  # three feature groups of two channels

    def grouped(p, x):
        return conv(jnp.tanh(conv(jnp.tanh(conv(x, p["a"])), p["depth"], feature_group_count=3)), p["b"])

    net = channels.trace(grouped, params, x)
    tapped = net.taps()(params, x)
    outer, inner = net.at("a", 3)
    assert [array.shape for array in tapped[outer]] == [(3, 4, 4, 2, 3), (3, 4, 4, 2, 3)]
    np.testing.assert_allclose(tapped[outer][0], hidden.reshape(3, 4, 4, 3, 2).swapaxes(-1, -2), rtol=1e-5)
    np.testing.assert_allclose(tapped[inner][0], hidden.reshape(3, 4, 4, 3, 2), rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_every_group_of_the_zoo_is_seen(name) -> None:
    model = MODELS[name]
    params = jax.eval_shape(model.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((3, *model.input_shape), "int32" if "decoder" in name else "float32")
    net = channels.trace(model.apply, params, x)
    seen = jax.eval_shape(net.taps(), params, x)
    for group in net.groups:
        assert {(array.shape[0], array.shape[-1]) for array in seen[group.name]} == {(3, group.size)}


def test_an_operand_with_two_readers_is_given_once() -> None:
    params, x = weights(a=(4, 6), b=(6, 2), c=(6, 2)), inputs(3, 4)

    def twice(p, x):
        h = jnp.tanh(x @ p["a"])
        return h @ p["b"] + h @ p["c"], (h * h) @ p["b"]

    tapped = channels.trace(twice, params, x).taps()(params, x)["g0"]
    h = np.tanh(x @ params["a"])
    assert len(tapped) == 2
    np.testing.assert_allclose(tapped[0], h, rtol=1e-5)
    np.testing.assert_allclose(tapped[1], h * h, rtol=1e-5)


def test_taps_can_be_batched_and_differentiated() -> None:
    params, x = weights(a=(4, 6), b=(6, 2)), inputs(3, 4)
    taps = channels.trace(lambda p, x: jnp.tanh(x @ p["a"]) @ p["b"], params, x).taps()
    stacked = jax.tree.map(lambda leaf: np.stack([leaf, 2 * leaf]), params)
    (found,) = jax.vmap(taps, (0, None))(stacked, x)["g0"]
    np.testing.assert_allclose(found[1], np.tanh(2 * x @ params["a"]), rtol=1e-5)
    slope = jax.grad(lambda p: taps(p, x)["g0"][0].sum())(params)["a"]
    np.testing.assert_allclose(slope, x.T @ (1 - np.tanh(x @ params["a"]) ** 2), rtol=1e-4, atol=1e-5)


def test_groups_that_cannot_be_seen_are_left_out_or_refused_by_name() -> None:
    params, x = weights(a=(4, 6), b=(6, 4), c=(4, 5), d=(5, 2)), inputs(3, 4)

    def looped(p, x):
        x, _ = lax.scan(lambda x, _: (jnp.tanh(x @ p["a"]) @ p["b"], None), x, None, 2)
        return jnp.tanh(x @ p["c"]) @ p["d"]

    net = channels.trace(looped, params, x)
    (inner,), (outer,) = net.at("a", 1), net.at("c", 1)
    assert list(net.taps()(params, x)) == [outer]
    with pytest.raises(ValueError, match=rf"{inner} \(a axis 1\) has no tap: no dense layer or convolution outside"):
        net.taps([inner])
    with pytest.raises(ValueError, match="groups names 'g9', which is no group"):
        net.taps(["g9"])
    with pytest.raises(ValueError, match=r"not the string 'g0': write \['g0'\]"):
        net.taps("g0")


def test_a_sum_over_samples_hides_them() -> None:
    params, x = weights(a=(4, 6), b=(6, 2)), inputs(3, 4)
    net = channels.trace(lambda p, x: jnp.tanh(x @ p["a"]).sum(0) @ p["b"], params, x)
    assert net.taps()(params, x) == {}


def test_inputs_that_do_not_fit() -> None:
    params = weights(a=(4, 6), b=(6, 2))
    f = lambda p, x: jnp.tanh(x @ p["a"]) @ p["b"]  # noqa: E731
    with pytest.raises(ValueError, match=r"The first input has shape \(1, 4\): taps need at least two samples"):
        channels.trace(f, params, inputs(1, 4)).taps()
    with pytest.raises(ValueError, match="The first input is missing"):
        channels.trace(lambda p: jnp.ones((3, 4)) @ p["a"] @ p["b"], params).taps()
    tapped = channels.trace(f, params, inputs(3, 4)).taps()
    with pytest.raises(ValueError, match=r"Input 0 has shape \(2, 4\)"):
        tapped(params, inputs(2, 4))
    with pytest.raises(ValueError, match=r"a has shape \(4, 5\)"):
        tapped({**params, "a": inputs(4, 5)}, inputs(3, 4))
