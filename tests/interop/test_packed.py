"""Packed kernels in Linen and NNX models, without an edit of the models: law 5 end to end."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from compressjax import interop, masks, runtime, trees, zoo
from compressjax.projections import Block, BlockPunched
from compressjax.runtime import As

RULES = {
    "conv2/kernel": BlockPunched((2, 4), 0.4),
    "fc1/kernel": Block((8, 4), 0.3),
    "fc2/kernel": Block((4, 2), 0.5),
}


def error(got, want):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    return np.linalg.norm(got - want) / np.linalg.norm(want)


def lenet():
    """LeNet-5 with block-pruned layers."""
    model = zoo.build("lenet5", widths=(4, 8, 16), input_shape=(16, 16, 1))
    params = model.init(jax.random.key(0))
    kept = {path: rule.support(trees.leaves(params)[path]) for path, rule in RULES.items()}
    return model, masks.apply(params, kept), kept


def loss_of(apply):
    return lambda p, x: jnp.sum(jnp.sin(apply(p, x)))


def trained(packed, apply, x):
    """Value, and gradients of the float leaves, put back into a tree."""
    floats = {path: leaf for path, leaf in trees.leaves(packed).items() if jnp.issubdtype(leaf.dtype, jnp.floating)}
    loss = loss_of(apply)
    value, got = jax.jit(jax.value_and_grad(lambda f: loss(trees.update(packed, f), x)))(floats)
    return value, runtime.unpack(trees.update(packed, got))


@pytest.mark.slow
def test_lenet_in_linen_forward_and_gradients():
    model, dense, kept = lenet()
    packed = runtime.pack(dense, RULES)
    x = jax.random.uniform(jax.random.key(1), (3, 16, 16, 1))

    def apply(p, x):
        with interop.packed_layers():
            return model.apply(p, x)

    want, gradients = jax.jit(jax.value_and_grad(loss_of(model.apply)))(dense, x)
    got, packed_gradients = trained(packed, apply, x)
    assert error(apply(packed, x), model.apply(dense, x)) < 1e-5
    assert error(got, want) < 1e-5
    flat = trees.leaves(gradients)
    for path, gradient in trees.leaves(packed_gradients).items():
        mask = kept.get(path, jnp.ones_like(gradient, bool))
        # Zeros inside of a stored block are weights like the others; here all blocks are whole.
        assert error(gradient, jnp.where(mask, flat[path], 0)) < 1e-5
    for path in RULES:
        assert 0 < trees.leaves(kept)[path].mean() < 1


def test_batch_normalization_and_padded_convolutions():
    model = zoo.build("resnet20", widths=(4, 8), blocks=(1,), input_shape=(8, 8, 3))
    params = model.init(jax.random.key(0))
    rules = {"stage*/conv*/kernel": As(block=(2, 4))}
    packed = runtime.pack(params, rules)
    x = jax.random.uniform(jax.random.key(1), (2, 8, 8, 3))
    got = interop.packed_apply(model.module, packed, x)
    assert error(got, model.apply(params, x)) < 1e-5
    assert sum(map(runtime.is_packed, jax.tree.leaves(packed, is_leaf=runtime.is_packed))) == 2


class Branches(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Conv(1, 4, (3, 3), strides=2, padding="SAME", rngs=rngs)
        self.later = nnx.List([nnx.Linear(16, 8, rngs=rngs), nnx.Linear(8, 5, use_bias=False, rngs=rngs)])

    def __call__(self, x):
        x = jax.nn.relu(self.first(x)).reshape(len(x), -1)
        return self.later[1](jax.nn.relu(self.later[0](x)))


def branches():
    model = Branches(nnx.Rngs(0))
    dense = interop.from_nnx(nnx.state(model, nnx.Param))
    # Rank promotion is an error in these tests, and nnx.Conv and Linear reshape their biases themselves.
    rules = {"first/kernel": BlockPunched((1, 2), 0.5), "later/*/kernel": Block((4, 1), 0.5)}
    dense = trees.update(
        dense, {path: rule.project(trees.leaves(dense)[path]) for path, rule in trees.assign(rules, dense).items()}
    )
    nnx.update(model, interop.to_nnx(nnx.state(model, nnx.Param), dense))
    return model, runtime.pack(dense, rules)


def test_nnx_layers_are_replaced_by_path():
    model, packed = branches()
    x = jax.random.uniform(jax.random.key(1), (3, 4, 4, 1))
    copy = interop.packed_nnx(model, packed)
    assert isinstance(copy.first, interop.PackedLayer)
    assert isinstance(copy.later[1], interop.PackedLayer)
    assert isinstance(model.first, nnx.Conv)

    def run(model):
        graph, state = nnx.split(model)

        def loss(x):
            y = nnx.merge(graph, state)(x)
            return jnp.sum(jnp.sin(y)), y

        return jax.jit(jax.grad(loss, has_aux=True))(x)

    (gradient, y), (wanted_gradient, wanted) = run(copy), run(model)
    assert error(y, wanted) < 1e-5
    assert error(gradient, wanted_gradient) < 1e-5


def test_a_shared_layer_stays_one_wherever_it_stands():
    class Twice(nnx.Module):
        def __init__(self):
            self.here = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
            self.there = nnx.List([jax.nn.relu, self.here])

    model = Twice()
    packed = runtime.pack(interop.from_nnx(nnx.state(model, nnx.Param)), {"here/kernel": As()})
    copy = interop.packed_nnx(model, packed)
    assert isinstance(copy.here, interop.PackedLayer)
    assert copy.there[1] is copy.here


class Contained(nnx.Module):
    def __init__(self, container, rngs):
        self.layers = nnx.data(container(nnx.Linear(4, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)))

    def __call__(self, x):
        for layer in self.layers.values() if isinstance(self.layers, dict) else self.layers:
            x = layer[0](x) if isinstance(layer, list) else layer(x)
        return x


@pytest.mark.parametrize(
    "container",
    [lambda a, b: [a, b], lambda a, b: (a, b), lambda a, b: {"a": a, "b": b}, lambda a, b: {"a": [a], "b": b}],
    ids=["list", "tuple", "dict", "nested"],
)
def test_layers_in_plain_containers_are_replaced(container):
    model = Contained(container, nnx.Rngs(0))
    doubled = jax.tree.map(lambda w: 2 * w, interop.from_nnx(nnx.state(model, nnx.Param)))
    copy = interop.packed_nnx(model, runtime.pack(doubled, {"*/kernel": As(block=(2, 2))}))
    kinds = [type(module) for _, module in nnx.iter_modules(copy)]
    assert kinds.count(interop.PackedLayer) == 2
    assert nnx.Linear not in kinds
    np.testing.assert_allclose(copy(jnp.ones((3, 4))), 4 * model(jnp.ones((3, 4))), rtol=1e-5)


def test_dense_leaves_are_taken_over():
    model, packed = branches()
    packed["first"]["bias"] = packed["first"]["bias"] + 1
    copy = interop.packed_nnx(model, packed)
    np.testing.assert_array_equal(copy.first.bias[...], model.first.bias[...] + 1)


def test_nnx_refuses_by_path():
    model, packed = branches()
    with pytest.raises(ValueError, match="no parameter 'second/kernel'"):
        interop.packed_nnx(model, {"second": {"kernel": packed["first"]["kernel"]}})
    embed = nnx.Embed(4, 6, rngs=nnx.Rngs(0))
    tree = runtime.pack(interop.from_nnx(nnx.state(embed, nnx.Param)), {"embedding": As()})
    with pytest.raises(ValueError, match="embedding is packed, but a Embed does not multiply"):
        interop.packed_nnx(embed, tree)
    grouped = nnx.Conv(4, 4, (3, 3), feature_group_count=2, rngs=nnx.Rngs(0))
    tree = runtime.pack(interop.from_nnx(nnx.state(grouped, nnx.Param)), {"kernel": As()})
    with pytest.raises(ValueError, match="kernel is packed, but this convolution has groups"):
        interop.packed_nnx(grouped, tree)


class Net(nn.Module):
    layer: nn.Module

    @nn.compact
    def __call__(self, x):
        return self.layer(x)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.Conv(4, (3, 3), feature_group_count=2), (1, 5, 5, 4), "layer/kernel is packed, .* has groups"),
        (nn.Conv(4, (3, 3), padding="CIRCULAR"), (1, 5, 5, 4), "layer/kernel is packed, .* has padding 'CIRCULAR'"),
        (
            nn.Conv(4, (3, 3), padding=1, input_dilation=2),
            (1, 5, 5, 4),
            "layer/kernel is packed, .* has dilated inputs",
        ),
        (nn.Embed(5, 4), (3,), "layer/embedding is packed, but a Embed does not"),
        (nn.ConvTranspose(4, (3, 3)), (1, 5, 5, 4), "layer/kernel is packed, but a ConvTranspose does not"),
    ],
)
def test_linen_layers_that_cannot_are_refused_by_path(layer, shape, message):
    net = Net(layer)
    x = jnp.zeros(shape, jnp.int32 if isinstance(layer, nn.Embed) else jnp.float32)
    params = jax.eval_shape(net.init, jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), params)
    packed = runtime.pack(params, {"layer/kernel" if "kernel" in params["layer"] else "layer/embedding": As()})
    with pytest.raises(ValueError, match=message):
        interop.packed_apply(net, packed, x)


def test_extra_batch_axes_and_dtypes_follow_the_layer():
    net = Net(nn.Conv(4, (3, 3), strides=2, padding=1, dtype=jnp.bfloat16))
    x = jax.random.normal(jax.random.key(1), (2, 3, 5, 5, 4))
    params = net.init(jax.random.key(0), x)["params"]
    packed = runtime.pack(params, {"*/kernel": As(block=(4, 4))})
    got, want = interop.packed_apply(net, packed, x), net.apply({"params": params}, x)
    assert got.dtype == want.dtype == jnp.bfloat16
    assert error(got, want) < 2e-2
