import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from compressjax import trees, zoo
from compressjax.zoo import _lenet


@pytest.mark.parametrize("name, weights, biases", [("lenet5", 430_500, 580), ("lenet300", 266_200, 410)])
def test_published_sizes(name, weights, biases):
    model = zoo.build(name)
    shapes = trees.leaves(jax.eval_shape(model.init, jax.random.key(0)))
    assert sum(s.size for p, s in shapes.items() if p.endswith("kernel")) == weights
    assert sum(s.size for p, s in shapes.items() if p.endswith("bias")) == biases
    assert {p.rsplit("/", 1)[0] for p in shapes} == set(model.chain)
    assert all(s.dtype == jnp.float32 for s in shapes.values())


def test_lenet5_shapes():
    shapes = trees.leaves(jax.eval_shape(zoo.build("lenet5").init, jax.random.key(0)))
    assert {p: s.shape for p, s in shapes.items() if p.endswith("kernel")} == {
        "conv1/kernel": (5, 5, 1, 20),
        "conv2/kernel": (5, 5, 20, 50),
        "fc1/kernel": (800, 500),
        "fc2/kernel": (500, 10),
    }


def reference_lenet5(params, x):
    """The definition, with Flax's pooling and ReLU before it."""
    for layer in ("conv1", "conv2"):
        x = jax.lax.conv_general_dilated(
            x, params[layer]["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = nn.max_pool(jax.nn.relu(x + params[layer]["bias"].reshape(1, 1, 1, -1)), (2, 2), (2, 2))
    x = x.reshape(x.shape[0], -1)
    x = jax.nn.relu(x @ params["fc1"]["kernel"] + params["fc1"]["bias"][None])
    return x @ params["fc2"]["kernel"] + params["fc2"]["bias"][None]


@pytest.mark.parametrize("shape", [(28, 28, 1), (17, 20, 2)])
def test_lenet5_agrees_with_its_definition_in_value_and_gradient(shape):
    model = zoo.build("lenet5", widths=(3, 4, 5), input_shape=shape)
    params = model.init(jax.random.key(0))
    x = jax.random.uniform(jax.random.key(1), (2, *shape))

    def loss(params, forward):
        logits = forward(params, x)
        return (logits**2).sum(), logits

    (got, logits), (want, reference) = (
        jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)(params, f) for f in (model.apply, reference_lenet5)
    )
    np.testing.assert_allclose(logits, reference, rtol=1e-4, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), got, want)


def test_lenet300_agrees_with_its_definition():
    model = zoo.build("lenet300", widths=(4, 3), input_shape=(2, 3, 2))
    params = model.init(jax.random.key(0))
    x = jax.random.uniform(jax.random.key(1), (5, 2, 3, 2))
    want = x.reshape(5, -1)
    for layer in model.chain:
        want = want @ params[layer]["kernel"] + params[layer]["bias"][None]
        want = want if layer == "fc3" else jax.nn.relu(want)
    np.testing.assert_allclose(model.apply(params, x), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("h, w", [(4, 4), (5, 7), (2, 3)])
def test_pooling_is_flax_pooling(h, w):
    x = jax.random.normal(jax.random.key(0), (2, h, w, 3))
    np.testing.assert_array_equal(_lenet.max_pool(x), nn.max_pool(x, (2, 2), (2, 2)))


# One of each family, of little depth.
@pytest.mark.parametrize(
    "name, options",
    [
        ("lenet5", {}),
        ("lenet300", {}),
        ("resnet20", {"blocks": (1, 1, 1)}),
        ("resnet50", {"blocks": (1, 1)}),
        ("vgg16", {}),
        ("mobilenet_v2", {"blocks": (1, 1), "strides": (2, 1, 2)}),
        ("vit", {"layers": 1}),
        ("decoder", {"layers": 1, "tied": True}),
    ],
)
def test_a_model_is_its_config(name, options):
    known = zoo.build(name, **options)
    widths = tuple(2 * i + 2 for i in range(len(known.widths)))
    model = zoo.build(name, widths=widths, classes=7, **options)
    assert zoo.build(**json.loads(json.dumps(model.config))) == model
    assert hash(zoo.build(**model.config)) == hash(model)
    params = jax.eval_shape(model.init, jax.random.key(0))
    assert zoo.widths_of(name, params, **options) == widths
    assert tuple(trees.shapes(params)[path][axis] for path, axis in model.axes) == widths
    assert model.like(params) == model
    assert type(params) is dict
    tokens = len(model.input_shape) == 1
    x = jax.ShapeDtypeStruct((3, *model.input_shape), jnp.int32 if tokens else jnp.float32)
    outputs = jax.eval_shape(model.apply, params, x)
    assert outputs.shape == ((3, *model.input_shape, 7) if tokens else (3, 7))
    logits, statistics = jax.eval_shape(model.apply_train, params, x)
    assert logits == outputs
    moments = {p: leaf for p, leaf in trees.leaves(params).items() if p.endswith(("/mean", "/var"))}
    assert statistics == moments


def test_init_depends_on_the_key():
    model = zoo.build("lenet300", widths=(2, 2))
    one, same, other = (model.init(jax.random.key(i))["fc1"]["kernel"] for i in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


@pytest.mark.parametrize(
    "name, kwargs, match",
    [
        ("lenet", {}, r"no network 'lenet' in the zoo\. Known: lenet5, lenet300"),
        ("lenet5", {"depth": 5}, "lenet5 has no option 'depth'; its options: none"),
        ("lenet5", {"widths": (20, 50)}, "has 3 hidden layers"),
        ("lenet300", {"widths": (20, 50, 500)}, "has 2 hidden layers"),
        ("lenet5", {"widths": (20, 0, 500)}, "must be positive integers"),
        ("lenet5", {"widths": (20, True, 500)}, "must be positive integers"),
        ("lenet5", {"classes": 0}, "classes"),
        ("lenet5", {"input_shape": (15, 28, 1)}, ">= 16"),
        ("lenet300", {"input_shape": (28, 28)}, "height, width, channels"),
    ],
)
def test_bad_builds(name, kwargs, match):
    with pytest.raises(ValueError, match=match):
        zoo.build(name, **kwargs)


def test_bad_inputs_are_named():
    model = zoo.build("lenet300", widths=(2, 2))
    params = model.init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"takes images \(n, \*\(28, 28, 1\)\), not \(2, 32, 32, 3\)"):
        model.apply(params, jnp.zeros((2, 32, 32, 3)))
    with pytest.raises(ValueError, match="needs the leaf 'fc2/kernel'"):
        zoo.widths_of("lenet300", {"fc1": params["fc1"]})
