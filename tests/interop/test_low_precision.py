"""Low precision in Linen models: which layers are touched, and what is refused."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax.interop import IntegerLayer, inputs_of, integer_layers, layer_inputs
from compressjax.quantizers import Codes, Integers, to_integers

ONE = jnp.float32(1.0)


def codes(x):
    return to_integers(x, ONE, Codes(8))


def test_inputs_are_seen_and_replaced_by_name_or_by_keyword():
    layer = nn.Dense(2)
    params = {"params": {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}}
    with layer_inputs(lambda path, x: 2 * x):
        by_place, by_name = layer.apply(params, jnp.ones((1, 3))), layer.apply(params, inputs=jnp.ones((1, 3)))
    np.testing.assert_array_equal(by_place, [[6.0, 6.0]])
    np.testing.assert_array_equal(by_name, by_place)
    np.testing.assert_array_equal(layer.apply(params, jnp.ones((1, 3))), [[3.0, 3.0]])  # outside nothing is left


class Twice(nn.Module):
    @nn.compact
    def __call__(self, x):
        layer = nn.Dense(3, name="shared")
        return layer(layer(x))


def test_a_layer_that_is_called_twice_has_no_one_input():
    params = {"shared": {"kernel": jnp.eye(3), "bias": jnp.zeros(3)}}
    with pytest.raises(ValueError, match="'shared' is called more than once"):
        inputs_of(lambda params, x: Twice().apply({"params": params}, x), params, jnp.ones((1, 3)))


@pytest.mark.parametrize("padding", ["SAME", "VALID", 1, ((0, 1), (1, 0))])
def test_convolutions_have_the_geometry_of_their_layer(padding):
    layer = nn.Conv(2, (3, 3), strides=(2, 1), padding=padding)
    x = jnp.asarray(np.random.default_rng(0).integers(-3, 4, (1, 6, 5, 2)), jnp.float32)
    params = {"kernel": jnp.asarray(np.random.default_rng(1).integers(-3, 4, (3, 3, 2, 2)), jnp.float32)}
    params["bias"] = jnp.array([1.0, -2.0])
    weights = Integers(params["kernel"].astype(jnp.int8), ONE)
    with integer_layers({"": IntegerLayer(weights, jnp.array([1, -2], jnp.int32), codes)}):
        ours = layer.apply({"params": params}, x)
    np.testing.assert_array_equal(ours, layer.apply({"params": params}, x))


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"kernel_size": (3, 3), "feature_group_count": 2}, "groups"),
        ({"kernel_size": (3, 3), "kernel_dilation": 2}, "dilation"),
        ({"kernel_size": (3,)}, "two spatial axes"),
        ({"kernel_size": (3, 3), "padding": "CIRCULAR"}, "padding 'CIRCULAR'"),
    ],
)
def test_other_convolutions_are_refused(settings, what):
    layer = nn.Conv(2, **settings)
    weights = Integers(jnp.ones((3, 3, 2, 2), jnp.int8), ONE)
    with integer_layers({"": IntegerLayer(weights, None, codes)}), pytest.raises(ValueError, match=what):
        layer.apply({"params": {}}, jnp.ones((1, 6, 6, 2)))


def test_layers_that_are_not_named_stay_as_they_are():
    layer = nn.Dense(2)
    params = {"params": layer.init(jax.random.key(0), jnp.ones((1, 3)))["params"]}
    with integer_layers({"elsewhere": IntegerLayer(Integers(jnp.ones((3, 2), jnp.int8), ONE), None, codes)}):
        inside = layer.apply(params, jnp.ones((1, 3)))
    np.testing.assert_array_equal(inside, layer.apply(params, jnp.ones((1, 3))))
