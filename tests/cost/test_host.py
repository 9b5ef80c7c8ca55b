"""The measured host: which kernels run, what is cached, what is refused.  No number here depends on speed."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import cost
from compressjax.cost import _host
from compressjax.cost._kernels import Spec, _activations, kernel, specs


def net(**fields):
    def f(params, x):
        x = jax.lax.conv(x, params["conv"], (2, 2), "SAME")
        return x.reshape(2, -1) @ params["fc"]

    params = {"conv": jnp.ones((6, 3, 3, 3)), "fc": jnp.ones((6 * 4 * 4, 5))}
    return cost.layers(f, params, jnp.ones((2, 3, 8, 8))).replace(**fields)


@pytest.mark.parametrize("bits, dtype", [(32, "float32"), (16, "float32"), (8, "int32")])
def test_dense_kernels_have_the_layers_shapes(bits, dtype):
    conv, fc = (kernel(spec, "")() for spec in specs(net(weight_bits=bits, activation_bits=bits)))
    assert (conv.shape, conv.dtype) == ((2, 4, 4, 6), dtype)
    assert (fc.shape, fc.dtype) == ((2, 5), dtype)


@pytest.mark.parametrize("block", [(1, 1), (1, 2), (4, 2), (1, 99)])
def test_sparse_kernels_have_the_layers_shapes(block):
    layers = net(density=0.25, block_inputs=block[0], block_outputs=block[1])
    for variant in (layers, cost.as_gemm(layers)):
        conv, fc = (kernel(spec, "")() for spec in specs(variant))
        assert conv.size == 32 * 6
        assert fc.size >= 2 * 5  # the last block may be partly empty


def test_patches_are_what_a_convolution_multiplies():
    geometry = cost.Geometry((7, 6), (3, 2), (2, 1), ((1, 2), (0, 1)), (1, 1), (2, 1))
    spec = Spec("conv", geometry, 2, 1, 3, 4, 1, 32, 0.5, 1, 1)
    x, patches = _activations(spec, np.random.default_rng(0))
    w = jnp.asarray(np.random.default_rng(1).standard_normal((3, 2, 3, 4)), jnp.float32)
    expected = jax.lax.conv_general_dilated(
        x, w, (2, 1), geometry.padding, rhs_dilation=(2, 1), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose((patches(x) @ w.reshape(-1, 4)).reshape(expected.shape), expected, atol=1e-5)


def test_products_run_in_groups():
    layers = cost.layers(lambda w, x: jnp.einsum("bhqd,bhkd->bhqk", x, x), (), jnp.ones((2, 3, 4, 5)))
    assert kernel(specs(layers)[0], "")().shape == (6, 4, 4)


def test_each_distinct_layer_is_measured_once_and_cached(tmp_path, monkeypatch):
    timed = []

    def fake(calls, **kwargs):
        timed.append(len(calls))
        return [cost.Timing(1.0 + i, 1.0, 1, 0.0) for i in range(len(calls))]

    monkeypatch.setattr(_host, "take_turns", fake)
    host = cost.Host(cache=tmp_path)
    twice = cost.concatenate([net(), net(repeats=3)])
    assert host.latency(twice).tolist() == [1.0, 2.0, 3.0, 6.0]  # less the 1.0 of the empty call
    assert timed == [3]
    assert cost.Host(cache=tmp_path).latency(net()).tolist() == [1.0, 2.0]
    assert timed == [3]
    host.latency(net(weight_bits=8, activation_bits=8))
    assert timed == [3, 3]
    assert timed == [3, 3]
    (file,) = tmp_path.iterdir()
    assert len(json.loads(file.read_text("utf-8"))["seconds"]) == 4
    assert cost.Host(fastest=True, cache=tmp_path).latency(net()).tolist() == [0.0, 0.0]  # another way, another file


def test_a_damaged_cache_is_refused(tmp_path):
    host = cost.Host(repeats=1, warmup=1, cache=tmp_path)
    host.latency(net())
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text("utf-8")[:-5], "utf-8")
    with pytest.raises(ValueError, match=r"holds no timings .* delete it"):
        host.latency(net())


def test_host_is_a_measured_platform():
    host = cost.Host(repeats=1, warmup=1)
    assert isinstance(host, cost.Platform)
    assert not host.modelled
    assert jax.__version__ in host.source
    assert (host.latency(net()) >= 0).all()


def test_what_the_host_cannot_run_is_refused():
    host = cost.Host(repeats=1)
    with pytest.raises(ValueError, match="cannot be traced: tabulate"):
        jax.jit(lambda n: host.latency(net(outputs=n)))(4.0)
    with pytest.raises(ValueError, match=r"fc has outputs=4\.5"):
        host.latency(net(outputs={"fc": 4.5}))
    with pytest.raises(ValueError, match=r"conv is pruned, .* leave it dense"):
        host.latency(net(density=0.5, groups={"conv": 2}))
    with pytest.raises(ValueError, match="compressed rows are measured at 32 bits, not 8"):
        host.latency(cost.as_gemm(net(density=0.5, weight_bits=8, activation_bits=8)))


def test_measured_break_even_compares_with_the_dense_layer(monkeypatch):
    def fake(calls, **kwargs):  # idle, then per ratio conv and fc: dense 1, sparse 4, 2, 1/2 times as slow
        times = [0.0, *np.repeat([1.0, 4.0, 2.0, 0.5], 2)]
        assert len(calls) == len(times)
        return [cost.Timing(t, t, 1, 0.0) for t in times]

    monkeypatch.setattr(_host, "take_turns", fake)
    ratios = cost.break_even(cost.as_gemm(net()), cost.Host(), ratios=[1.0, 2.0, 8.0])
    np.testing.assert_allclose(ratios, 4.0)


def test_take_turns():
    order = []
    timings = cost.take_turns([lambda: order.append("a"), lambda: order.append("b")], repeats=2, warmup=1)
    assert order == ["a", "b"] * 3
    assert [t.rounds for t in timings] == [2, 2]
    assert all(0 < t.minimum <= t.median for t in timings)
    with pytest.raises(ValueError, match="repeats=0"):
        cost.take_turns([], repeats=0)
