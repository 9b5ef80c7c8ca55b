"""Layers as data: replacing, joining, vmapping, differentiating."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import cost


@pytest.fixture
def net():
    params = {"a": jnp.ones((8, 16)), "b": jnp.ones((16, 4))}
    return cost.layers(lambda w, x: x @ w["a"] @ w["b"], params, jnp.ones((2, 8)))


def test_a_population_of_widths_is_one_vmap(net):
    def price(width):
        changed = net.replace(outputs={"a": width}, inputs={"b": width})
        return cost.macs(changed).sum(), cost.SIMD(frequency=1.0, vector_bits=128, units=1).latency(changed).sum()

    widths = jnp.arange(1.0, 17.0)
    macs, latency = jax.jit(jax.vmap(price))(widths)
    assert macs.tolist() == (2 * (8 * widths + 4 * widths)).tolist()
    for width in (1, 5, 8):
        assert price(float(width))[1] == latency[width - 1]
    assert latency[15] == cost.SIMD(frequency=1.0, vector_bits=128, units=1).latency(net).sum()


def test_gradients_with_respect_to_bits_and_density(net):
    def price(bits, density):
        return cost.weight_bytes(net.replace(weight_bits=bits, density=density, block_outputs=4)).sum()

    by_bits, by_density = jax.jit(jax.grad(price, (0, 1)))(jnp.array([8.0, 8.0]), jnp.array([0.5, 0.5]))
    assert by_bits.tolist() == [128 * 0.5 / 8, 64 * 0.5 / 8]
    assert by_density.tolist() == [128.0, 64.0]


def test_replace_takes_numbers_arrays_and_rules(net):
    assert net.replace(weight_bits=8).weight_bits.tolist() == [8, 8]
    assert net.replace(weight_bits=[8, 4]).weight_bits.tolist() == [8, 4]
    assert net.replace(weight_bits={"b": 2, "*": None}).weight_bits.tolist() == [32, 2]
    assert net.weight_bits.tolist() == [32, 32]
    with pytest.raises(ValueError, match="no numeric field 'bits'"):
        net.replace(bits=8)
    with pytest.raises(ValueError, match=r"weight_bits has shape \(3,\)"):
        net.replace(weight_bits=np.ones(3))
    with pytest.raises(ValueError, match="matches no leaf"):
        net.replace(weight_bits={"c": 8})


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"density": 2.0}, "density is 2.0: it must be a number at least 0 and at most 1"),
        ({"density": -1}, "density is -1"),
        ({"density": np.nan}, "density is nan"),
        ({"density": jnp.array([0.5, 1.5])}, "density of b is 1.5"),
        ({"density": {"b": 1.5}}, "density of 'b' is 1.5"),
        ({"weight_bits": 0}, "weight_bits is 0: it must be a number above 0"),
        ({"activation_bits": [8, -8]}, "activation_bits of b is -8"),
        ({"block_outputs": 0.0}, "block_outputs is 0.0"),
        ({"groups": -1}, "groups is -1"),
        ({"outputs": -3}, "outputs is -3: it must be a number at least 0"),
        ({"inputs": "many"}, "inputs is 'many': it must be a number"),
        ({"inputs": {"a": "many"}}, "inputs of 'a' is 'many'"),
        ({"inputs": {"a": np.arange(3)}}, r"inputs of 'a' has shape \(3,\): give one number, and use jax\.vmap"),
    ],
)
def test_numbers_out_of_range(net, changes, match):
    with pytest.raises(ValueError, match=match):
        net.replace(**changes)


def test_limits_of_the_ranges_are_allowed(net):
    assert net.replace(density=0.0).density.tolist() == [0, 0]
    assert net.replace(density=np.float32(1.0), weight_bits=0.5, outputs=0).outputs.tolist() == [0, 0]
    assert net.replace(weight_bits=jnp.bfloat16(8)).weight_bits.tolist() == [8, 8]


def test_traced_numbers_are_not_checked(net):
    def price(density):
        return cost.weight_bytes(net.replace(density=density, weight_bits={"b": 8 * density})).sum()

    assert jax.vmap(price)(jnp.array([0.5, 2.0])).shape == (*jax.jit(price)(2.0).shape, 2)


def test_joining_keeps_every_layer(net):
    both = cost.concatenate([net, net.replace(weight_bits=8)])
    assert both.names == net.names * 2
    assert both.weight_bits.tolist() == [32, 32, 8, 8]
    assert cost.macs(both).tolist() == cost.macs(net).tolist() * 2


def test_index_bits_appear_with_the_first_pruned_weight(net):
    assert cost.weight_bytes(net).tolist() == [512, 256]
    single = cost.weight_bytes(net.replace(density=0.5))
    assert single.tolist() == [256 + 16, 128 + 8]  # one bit per weight
    blocks = cost.weight_bytes(net.replace(density=0.5, block_inputs=4, block_outputs=8))
    assert blocks.tolist() == [256 + 0.5, 128 + 0.5]  # blocks of 4 x 8, and of 4 x 4 where there are no 8 outputs


def test_gemm_shapes_keep_macs_and_weights():
    net = cost.layers(lambda w, x: jax.lax.conv(x, w, (2, 2), "SAME"), jnp.ones((6, 4, 3, 3)), jnp.ones((2, 4, 9, 9)))
    gemm = cost.as_gemm(net)
    assert (gemm.kinds, gemm.geometry) == (("dense",), (None,))
    assert cost.macs(gemm) == cost.macs(net)
    assert cost.parameters(gemm) == cost.parameters(net)
    assert (gemm.inputs, gemm.batch * gemm.positions) == (36, 50)


def test_table_lists_every_layer_and_the_total(net):
    text = str(net).splitlines()
    assert text[1].split() == ["a", "2x1", "of", "8->16", "256", "256", "128", "32", "512"]
    assert text[-1].split() == ["total", "384", "384", "192", "40", "768"]
    assert str(net) == str(cost.count(net))
