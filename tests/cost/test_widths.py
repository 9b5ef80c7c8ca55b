"""Costs as functions of widths equal the costs of the shrunk network, traced anew."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from compressjax import channels, cost, zoo
from tests.channels import networks
from tests.channels.random_programs import random_program


def conv(x, w, **kwargs):
    return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), **kwargs)


def separable(params, x):
    x = jax.nn.relu(conv(x, params["expand"]))
    x = jax.nn.relu(conv(x, params["depthwise"], feature_group_count=x.shape[-1]))
    return conv(x, params["project"]).mean((1, 2)) @ params["fc"]


def attention(params, x):
    q, k, v = (jnp.einsum("bsd,dhk->bshk", x, params[name]) for name in "qkv")
    mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k)), v)
    return lax.cond(
        x.sum() > 0,
        lambda y: y @ params["out"] @ params["out"].T @ params["out"],
        lambda y: y @ params["out"],
        mixed.reshape(*x.shape[:2], -1),
    )


def random(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.standard_normal(shape), jnp.float32) for name, shape in shapes.items()}


def lenet():
    model = zoo.build("lenet5", widths=(4, 6, 8))
    return model.apply, model.init(jax.random.key(0)), (jnp.ones((2, 28, 28, 1)),)


def separable_case():
    shapes = {"expand": (1, 1, 3, 8), "depthwise": (3, 3, 1, 8), "project": (1, 1, 8, 6), "fc": (6, 10)}
    return separable, random(shapes), (jnp.ones((2, 5, 5, 3)),)


def attention_case():
    shapes = {"q": (6, 2, 4), "k": (6, 2, 4), "v": (6, 2, 4), "out": (8, 6)}
    return attention, random(shapes), (jnp.ones((2, 5, 6)),)


CASES = {"lenet": lenet, "separable": separable_case, "attention": attention_case}
CASES |= networks.CASES
CASES |= {f"random program {seed}": partial(random_program, seed) for seed in range(10)}


@pytest.mark.parametrize("name", CASES)
def test_layers_at_widths_are_those_of_the_shrunk_network(name):
    f, params, xs = CASES[name]()[:3]
    net = channels.trace(f, params, *xs)
    whole = cost.layers(f, params, *xs, while_steps=3)
    at = cost.of_widths(net, whole)
    assert cost.macs(at({})).tolist() == cost.macs(whole).tolist()
    rng = np.random.default_rng(1)
    keep = {group.name: rng.permutation(group.size) < max(1, group.size // 2) for group in net.groups}
    small = net.shrink(params, keep)
    direct = cost.layers(net.replay(keep), small.params, *xs, while_steps=3)
    widths = {name: vector.sum() for name, vector in keep.items()}
    for field in ("batch", "positions", "valid_taps", "window", "inputs", "outputs", "groups", "repeats"):
        assert getattr(at(widths), field).tolist() == getattr(direct, field).tolist(), field


def test_latency_of_a_population_under_jit():
    f, params, (x,) = separable_case()
    net = channels.trace(f, params, x)
    at = cost.of_widths(net, cost.layers(f, params, x).replace(weight_bits=8, activation_bits=8))
    group = net.at("depthwise", 3)[0]
    platform = cost.SIMD(frequency=1e9, vector_bits=128, units=2, bandwidth=1e9)
    sweep = jax.jit(jax.vmap(lambda width: platform.latency(at({group: width})).sum()))(jnp.arange(1.0, 9.0))
    for width, seconds in enumerate(sweep, 1):
        np.testing.assert_allclose(seconds, platform.latency(at({group: width})).sum(), rtol=1e-6)
    assert (np.diff(sweep) >= 0).all()


def test_widths_out_of_range(unchecked):
    f, params, (x,) = separable_case()
    at = cost.of_widths(channels.trace(f, params, x), cost.layers(f, params, x))
    for width in (-3, 99, 8.5, np.nan, jnp.array(9)):
        with pytest.raises(ValueError, match=r"width of group 'g0' is .*: it must be .* at least 0 and at most 8"):
            at({"g0": width})
    with pytest.raises(ValueError, match="width of group 'g0' is 'all'"):
        at({"g0": "all"})
    for population in (np.array([1, 2, 3]), jnp.array([4.0]), [1, 2]):
        with pytest.raises(ValueError, match=r"group 'g0' has shape \(\d,\): give one number, and use jax\.vmap"):
            at({"g0": population})
    assert cost.macs(at({"g0": 8})).tolist() == cost.macs(at({})).tolist()
    assert cost.macs(at({"g0": np.int8(0)})).tolist()[:2] == [0, 0]
    # Traced widths are not known, so that they pass.
    assert jax.vmap(lambda width: cost.macs(at({"g0": width})).sum())(jnp.array([1.0, 99.0])).shape == (2,)


def test_bad_input():
    f, params, (x,) = separable_case()
    net = channels.trace(f, params, x)
    with pytest.raises(ValueError, match="'nope', which is no group"):
        cost.of_widths(net, cost.layers(f, params, x))({"nope": 3})
    with pytest.raises(ValueError, match="no operation of the size of layer"):
        cost.of_widths(net, cost.layers(f, params, jnp.ones((3, 5, 5, 3))))
