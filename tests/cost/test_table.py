"""Tables agree with what they tabulate, between the points too, and trace."""

import dataclasses
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import cost, data


def network():
    def f(params, x):
        conv = dict(padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.lax.conv_general_dilated(x, params["full"], (1, 1), **conv)
        x = jax.lax.conv_general_dilated(x, params["depthwise"], (1, 1), feature_group_count=32, **conv)
        return x.mean((1, 2)) @ params["fc"]

    shapes = {"full": (3, 3, 16, 32), "depthwise": (3, 3, 1, 32), "fc": (32, 10)}
    params = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    return cost.layers(f, params, jax.ShapeDtypeStruct((1, 8, 8, 16), jnp.float32))


def narrowed(net, c_in, c_out):
    return net.replace(
        inputs={"full": c_in, "fc": c_out}, outputs={"full": c_out, "depthwise": c_out}, groups={"depthwise": c_out}
    )


def test_a_bilinear_platform_is_tabulated_exactly():
    platform, net = cost.Roofline(peak=1e9), network()
    table = cost.tabulate(net, platform, points=4, multiple=4)
    assert table.modelled
    assert "roofline" in table.source
    for c_in, c_out in ((16, 32), (12, 24), (7, 19), (4, 8)):
        small = narrowed(net, c_in, c_out)
        np.testing.assert_allclose(table.latency(small), platform.latency(small), rtol=1e-9)
    np.testing.assert_allclose(table.latency(net.replace(repeats=3)), 3 * table.latency(net))


def test_a_staircase_is_exact_at_the_points():
    platform, net = cost.SIMD(frequency=1e9, vector_bits=256, units=1), network()
    table = cost.tabulate(net, platform, points=4, multiple=8)
    for c_in, c_out in ((8, 8), (8, 32), (16, 24)):
        small = narrowed(net, c_in, c_out)
        np.testing.assert_allclose(table.latency(small), platform.latency(small))


def test_outside_the_table_the_nearest_width_counts():
    net = network()
    table = cost.tabulate(net, cost.Roofline(peak=1e9), points=2, multiple=8)
    np.testing.assert_allclose(table.latency(narrowed(net, 1, 1)), table.latency(narrowed(net, 8, 16)))


def test_a_table_of_the_host_is_traced_without_measuring():
    net = network()
    host = cost.Host(repeats=1, warmup=1)
    table = cost.tabulate(net, host, points=2, multiple=16)
    assert not table.modelled
    seconds = jax.jit(jax.vmap(lambda c: table.latency(narrowed(net, 16.0, c)).sum()))(jnp.array([16.0, 24.0, 32.0]))
    assert seconds.shape == (3,)
    np.testing.assert_allclose(seconds[2], table.latency(net).sum(), rtol=1e-5)


def test_bit_table():
    table = cost.BitTable(np.arange(12.0).reshape(3, 2, 2), True, "toy")
    net = network()
    assert table.latency(net.replace(weight_bits=[1, 2, 9], activation_bits=[2, 1, 1])).tolist() == [1, 6, 10]
    traced = jax.vmap(lambda b: table.latency(net.replace(weight_bits=b, activation_bits=b)).sum())
    assert traced(jnp.array([1.0, 1.5, 2.0])).tolist() == [12, 21, 21]
    with pytest.raises(ValueError, match="3 layers, not 6: it belongs to another network"):
        table.latency(cost.concatenate([net, net]))


def test_bad_grids():
    with pytest.raises(ValueError, match="points=1"):
        cost.tabulate(network(), cost.Roofline(peak=1.0), points=1)


@pytest.mark.skipif(
    not (Path(os.environ.get("COMPRESSJAX_DATA", "")) / "latency").is_dir(), reason="needs the latency tables"
)
def test_published_tables_as_costs():
    cells = data.architecture_latencies("nasbench201")
    table = cost.LookUp(cells.ops.astype(np.int32), cells.on("pixel3"))
    rows = np.array([0, 777, 15624])
    np.testing.assert_allclose(jax.vmap(table)(cells.ops[rows].astype(np.int32)), cells.on("pixel3")[rows], rtol=1e-6)
    haq = cost.BitTable(data.haq_cycles() / 1e9, True, "HAQ")
    layers = cost.concatenate([network()] * 18)
    first = jax.tree.map(lambda column: column[:53], layers)  # as many layers as MobileNetV2
    first = dataclasses.replace(
        first, **{name: getattr(layers, name)[:53] for name in ("names", "kinds", "geometry", "weight_operands")}
    )
    cycles = haq.latency(first.replace(weight_bits=4, activation_bits=4)).sum() * 1e9
    assert round(float(cycles)) == 15_716_150
    with pytest.raises(ValueError, match="53 layers, not 54"):
        haq.latency(layers)
