import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from compressjax import interop, trees, zoo


def rand(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_layouts_and_names():
    weights = {
        "features.0.weight": rand(8, 3, 5, 7),
        "features.0.bias": rand(8),
        "features.1.weight": rand(8),
        "features.1.running_mean": rand(8),
        "features.1.running_var": rand(8),
        "features.1.num_batches_tracked": np.array(3),
        "head.weight": rand(10, 8),
        "line.weight": rand(4, 3, 9),
        "volume.weight": rand(4, 3, 2, 5, 6),
    }
    got = trees.leaves(interop.from_torch(weights))
    assert {path: leaf.shape for path, leaf in got.items()} == {
        "features/0/kernel": (5, 7, 3, 8),
        "features/0/bias": (8,),
        "features/1/scale": (8,),
        "features/1/mean": (8,),
        "features/1/var": (8,),
        "head/kernel": (8, 10),
        "line/kernel": (9, 3, 4),
        "volume/kernel": (2, 5, 6, 3, 4),
    }
    assert got["features/0/kernel"][1, 2, 0, 5] == weights["features.0.weight"][5, 0, 1, 2]
    assert got["head/kernel"][3, 4] == weights["head.weight"][4, 3]


def test_a_convolution_gives_the_same_numbers():
    weight, x = rand(4, 3, 3, 3), rand(2, 3, 6, 6)
    want = lax.conv_general_dilated(x, weight, (1, 1), "VALID", dimension_numbers=("NCHW", "OIHW", "NCHW"))
    kernel = interop.from_torch({"weight": weight})["kernel"]
    got = lax.conv_general_dilated(
        x.transpose(0, 2, 3, 1), kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(got.transpose(0, 3, 1, 2), want, rtol=1e-4, atol=1e-5)


def test_flattened_features_are_reordered():
    weight, features = rand(5, 3 * 2 * 4), rand(6, 3, 2, 4)
    kernel = interop.from_torch({"fc.weight": weight}, flattened={"fc/kernel": (3, 2, 4)})["fc"]["kernel"]
    want = features.reshape(6, -1) @ weight.T
    got = features.transpose(0, 2, 3, 1).reshape(6, -1) @ kernel
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_rules_override_the_layout_and_none_keeps_it():
    weights = {"up.weight": rand(8, 3, 5, 5), "table.weight": rand(100, 16), "fc.weight": rand(4, 2)}
    got = interop.from_torch(weights, axes={"up/kernel": (2, 3, 0, 1), "table/*": None})
    assert got["up"]["kernel"].shape == (5, 5, 8, 3)
    assert got["table"]["kernel"].shape == (100, 16)
    assert got["fc"]["kernel"].shape == (2, 4)


def test_a_lenet_in_torch_layout_is_a_lenet_of_the_zoo():
    model = zoo.build("lenet5", widths=(3, 4, 6))
    weights = {
        "conv1.weight": rand(3, 1, 5, 5),
        "conv1.bias": rand(3),
        "conv2.weight": rand(4, 3, 5, 5),
        "conv2.bias": rand(4),
        "fc1.weight": rand(6, 4 * 4 * 4),
        "fc1.bias": rand(6),
        "fc2.weight": rand(10, 6),
        "fc2.bias": rand(10),
    }
    params = interop.from_torch(weights, flattened={"fc1/kernel": (4, 4, 4)})
    assert zoo.widths_of("lenet5", params) == model.widths
    assert model.apply(params, jnp.ones((1, 28, 28, 1))).shape == (1, 10)


@pytest.mark.parametrize(
    "weights, kwargs, match",
    [
        ({"fc.weight": (2, 3)}, {"axes": {"conv/*": (0, 1)}}, r"'conv/\*' has no effect"),
        ({"fc.weight": (2, 3)}, {"axes": {"fc/*": (0, 2)}}, r"axes \(0, 2\) are no order of the 2 axes of fc/kernel"),
        ({"fc.weight": (2, 3)}, {"flattened": {"fc1/kernel": (1, 1, 3)}}, "flattened names 'fc1/kernel'"),
        ({"fc.weight": (2, 3)}, {"flattened": {"fc/kernel": (1, 1, 4)}}, r"does not read features \(1, 1, 4\)"),
        ({"fc.weight": (2, 3), "fc.kernel": (2, 3)}, {}, "'fc/kernel', which another weight takes"),
        ({"a.b": (2,), "a.b.c": (2,)}, {}, "another weight takes or passes"),
    ],
)
def test_bad_input(weights, kwargs, match):
    with pytest.raises(ValueError, match=match):
        interop.from_torch({name: rand(*shape) for name, shape in weights.items()}, **kwargs)
