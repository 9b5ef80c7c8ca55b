"""Layers from jaxprs: counts by hand, by XLA and by the literature; bodies, origins, refusals."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from compressjax import cost, trees, zoo


def zeros(*shape, dtype="float32"):
    return jax.ShapeDtypeStruct(shape, dtype)


def xla_flops(f, *args):
    analysis = jax.jit(f).lower(*args).compile().cost_analysis()
    return (analysis[0] if isinstance(analysis, list) else analysis)["flops"]


def conv(x, w, **kwargs):
    kwargs = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": ("NHWC", "HWIO", "NHWC")} | kwargs
    return lax.conv_general_dilated(x, w, **kwargs)


def of_zoo(name):
    model = zoo.build(name)
    params = jax.eval_shape(model.init, jax.random.key(0))
    return cost.layers(model.apply, params, zeros(1, *model.input_shape)), trees.leaves(params)


def test_lenet5():
    net, _ = of_zoo("lenet5")
    assert cost.macs(net).tolist() == [288_000, 1_600_000, 400_000, 5_000]
    assert cost.parameters(net).tolist() == [500, 25_000, 400_000, 5_000]
    assert cost.weight_bytes(net).sum() == 1_722_000
    assert cost.macs(net, valid=True).tolist() == cost.macs(net).tolist()


def test_python_numbers_are_parameters():
    params = {"a": jnp.ones((4, 8)), "temperature": 2.0, "steps": 3}
    net = cost.layers(lambda p, x: p["steps"] * (x @ p["a"]) / p["temperature"], params, zeros(1, 4))
    assert net.names == ("a",)
    assert (cost.macs(net), cost.parameters(net)) == (32, 32)


def test_resnet56():
    net, leaves = of_zoo("resnet56")
    assert cost.macs(net).sum() == 125_485_696  # the published 125.49 M
    kernels = {path: np.prod(leaf.shape) for path, leaf in leaves.items() if path.endswith("/kernel")}
    assert dict(zip(net.names, cost.parameters(net), strict=True)) == kernels


CONVOLUTIONS = {
    "padded": ((1, 8, 8, 4), (3, 3, 4, 6), {}),
    "strided": ((2, 9, 9, 4), (3, 3, 4, 6), {"window_strides": (2, 2)}),
    "dilated": ((1, 9, 8, 4), (3, 2, 4, 6), {"rhs_dilation": (2, 3)}),
    "grouped": ((1, 8, 8, 4), (3, 3, 2, 6), {"feature_group_count": 2}),
    "depthwise": ((1, 8, 8, 4), (3, 3, 1, 8), {"feature_group_count": 4}),
    "transposed": ((1, 5, 5, 4), (4, 4, 4, 6), {"lhs_dilation": (2, 2), "padding": ((2, 2), (2, 2))}),
    "batch groups": ((4, 8, 8, 3), (3, 3, 3, 6), {"batch_group_count": 2}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_valid_macs_are_what_xla_counts(name):
    x_shape, w_shape, kwargs = CONVOLUTIONS[name]
    x, w = jnp.ones(x_shape), jnp.ones(w_shape)
    net = cost.layers(lambda w, x: conv(x, w, **kwargs), w, x)
    assert 2 * cost.macs(net, valid=True).sum() == xla_flops(lambda w, x: conv(x, w, **kwargs), w, x)
    assert cost.macs(net) >= cost.macs(net, valid=True)
    assert cost.parameters(net) == w.size
    assert cost.activations(net) == conv(x, w, **kwargs).size
    assert net.batch * net.input_positions * net.inputs * net.groups == x.size


def test_nominal_taps_of_convolutions_by_hand():
    expected = {
        "padded": 64 * 9 * 4 * 6,
        "grouped": 64 * 9 * 2 * 6,
        "depthwise": 64 * 9 * 8,
        "transposed": 25 * 16 * 4 * 6,  # every input meets every tap
    }
    for name, macs in expected.items():
        x_shape, w_shape, kwargs = CONVOLUTIONS[name]
        net = cost.layers(lambda w, x, kwargs=kwargs: conv(x, w, **kwargs), zeros(*w_shape), zeros(*x_shape))
        assert cost.macs(net) == macs, name
    transposed = {"lhs_dilation": (2, 2), "padding": ((3, 3), (3, 3))}  # nothing cropped: every tap is valid
    net = cost.layers(lambda w, x: conv(x, w, **transposed), zeros(4, 4, 4, 6), zeros(1, 5, 5, 4))
    assert cost.macs(net, valid=True) == cost.macs(net)
    # Dilated along one axis, strided along the other: inputs count along the first, outputs along the second.
    mixed = {"lhs_dilation": (2, 1), "window_strides": (1, 2), "padding": ((2, 2), (0, 0))}
    net = cost.layers(lambda w, x: conv(x, w, **mixed), zeros(3, 3, 4, 6), zeros(1, 8, 8, 4))
    assert cost.macs(net) == cost.macs(net, valid=True) == 8 * 3 * 9 * 4 * 6


@pytest.mark.parametrize(
    "equation, x, w, macs",
    [
        ("bsd,df->bsf", (2, 3, 4), (4, 5), 2 * 3 * 4 * 5),
        ("bsd,dhk->bshk", (2, 3, 4), (4, 2, 5), 2 * 3 * 4 * 10),
        ("bd,hdk->hbk", (3, 4), (2, 4, 5), 3 * 4 * 10),
        ("hbd,hdk->hbk", (2, 3, 4), (2, 4, 5), 2 * 3 * 4 * 5),
        ("d,d->", (4,), (4,), 4),
    ],
)
def test_products_with_weights(equation, x, w, macs):
    for order in (
        lambda w, x: jnp.einsum(equation, x, w["w"]),
        lambda w, x: x.mean() * jnp.einsum(equation, x, w["w"]),
    ):
        net = cost.layers(order, {"w": zeros(*w)}, zeros(*x))
        assert (net.names, net.kinds) == (("w",), ("dense",))
        assert cost.macs(net) == macs
        assert cost.parameters(net) == np.prod(w)
        assert net.batch * net.positions * net.inputs * net.groups == np.prod(x)


def test_weight_on_the_left():
    net = cost.layers(lambda w, x: w["w"] @ x, {"w": zeros(7, 3)}, zeros(3, 5))
    assert (net.inputs, net.outputs, net.batch, cost.macs(net)) == (3, 7, 5, 105)


def test_attention():
    module = nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=8, name="attention")
    x = jnp.ones((3, 5, 6))
    params = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    net = cost.layers(lambda p, x: module.apply({"params": p}, x), params, x)
    weights = [name for name, kind in zip(net.names, net.kinds, strict=True) if kind == "dense"]
    assert sorted(weights) == ["key/kernel", "out/kernel", "query/kernel", "value/kernel"]
    assert net.kinds.count("product") == 2
    assert all("attention" in name for name, kind in zip(net.names, net.kinds, strict=True) if kind == "product")
    assert cost.macs(net).sum() == 4 * 3 * 5 * 6 * 8 + 2 * 3 * 2 * 5 * 5 * 4
    assert cost.parameters(net).sum() == 4 * 6 * 8


def test_scan_counts_every_step_and_each_weight_once():
    def stacked(params, x):
        return lax.scan(jax.checkpoint(lambda c, w: (jax.nn.relu(c @ w), None)), x, params["w"])[0]

    def shared(params, x):
        return lax.scan(lambda c, _: (jnp.tanh(c @ params["w"]), c @ params["w"]), x, None, length=3)[0]

    net = cost.layers(stacked, {"w": zeros(3, 4, 4)}, zeros(2, 4))
    assert (cost.macs(net), cost.parameters(net), net.names) == (3 * 2 * 16, 3 * 16, ("w",))
    net = cost.layers(shared, {"w": zeros(4, 4)}, zeros(2, 4))
    assert (cost.macs(net).tolist(), cost.parameters(net).tolist()) == ([96, 96], [16, 0])
    assert net.names == ("w", "w#2")


def test_a_carry_that_starts_as_a_parameter_ends_as_data():
    def f(params, x):
        return lax.scan(lambda h, row: (h @ params["w"] + row, h @ h.T), params["h0"], x)[1]

    net = cost.layers(f, {"w": zeros(4, 4), "h0": zeros(2, 4)}, zeros(3, 2, 4))
    assert net.names[0] == "w"
    assert net.kinds == ("dense", "product")
    assert cost.parameters(net).tolist() == [16, 0]


def test_origin_survives_what_is_done_to_a_weight():
    def f(params, x):
        quantized = jnp.round(params["w"] / params["scale"]) * params["scale"]
        masked = jnp.where(params["mask"], quantized, 0.0).reshape(4, 6)
        query, key = jnp.split(params["qk"], 2, axis=1)
        return jax.jit(lambda w, x: x @ w)(masked, x) @ query @ key.T

    params = {"w": zeros(24), "scale": zeros(24), "mask": zeros(24, dtype="bool"), "qk": zeros(6, 4)}
    net = cost.layers(f, params, zeros(1, 4))
    assert net.names[1:] == ("qk", "qk#2")
    assert cost.parameters(net).tolist() == [24, 12, 12]
    assert net.kinds == ("dense",) * 3


def test_branches_loops_and_constants():
    closed_over = np.random.default_rng(0).random((4, 5), np.float32)

    def f(params, x):
        x = lax.cond(x.sum() > 0, lambda x: x @ params["a"] @ params["a"], lambda x: x @ params["a"], x)
        return lax.while_loop(lambda x: x.sum() > 0, lambda x: x @ params["b"], x) @ closed_over @ jnp.ones((5, 6))

    params = {"a": zeros(4, 4), "b": zeros(4, 4)}
    with pytest.raises(ValueError, match=r"while.* unknown length"):
        cost.layers(f, params, zeros(1, 4))
    net = cost.layers(f, params, zeros(1, 4), while_steps=7)
    assert cost.macs(net).tolist() == [16, 16, 7 * 16, 20, 30]
    assert cost.parameters(net).tolist() == [16, 0, 16, 20, 0]
    assert net.names == ("a", "a#2", "b", "dot_general", "dot_general#2")
    for steps in (0, -1):
        with pytest.raises(ValueError, match=f"while_steps={steps} must be at least 1"):
            cost.layers(f, params, zeros(1, 4), while_steps=steps)


def test_a_closed_over_stack_that_is_scanned_is_stored_whole():
    stack = np.ones((5, 4, 4), np.float32)
    net = cost.layers(lambda params, x: lax.scan(lambda c, w: (c @ w, None), x, stack)[0], {}, zeros(1, 4))
    assert cost.parameters(net).tolist() == [5 * 16]


def test_bit_widths_follow_the_dtypes():
    params, x = zeros(4, 4, dtype="int8"), zeros(1, 4, dtype="bfloat16")
    net = cost.layers(lambda w, x: lax.dot_general(x, w, (((1,), (0,)), ((), ()))), params, x)
    assert (net.weight_bits, net.activation_bits) == (8, 16)


def test_what_cannot_be_counted_is_refused():
    def ragged(w, x):
        return lax.ragged_dot(x, w, jnp.array([1, 2], jnp.int32))

    with pytest.raises(ValueError, match="ragged_dot"):
        cost.layers(ragged, zeros(2, 4, 5), zeros(3, 4))


def test_nothing_to_count():
    net = cost.layers(lambda w, x: x * w, zeros(4), zeros(4))
    assert len(net) == 0
    assert cost.macs(net).sum() == 0
    assert "total" in str(net)


def test_what_nobody_reads_is_not_counted():
    def f(params, x):
        unused = x @ params["a"]
        return jax.jit(lambda x: (x @ params["b"], x @ params["a"]))(x)[0], unused.shape[0]

    net = cost.layers(f, {"a": zeros(4, 4), "b": zeros(4, 4)}, zeros(1, 4))
    assert net.names == ("b",)


def test_a_training_step_stores_no_more_than_its_parameters():
    def loss(params, x):
        return jnp.sum(jax.nn.relu(x @ params["a"]) @ params["b"])

    net = cost.layers(jax.grad(loss), {"a": zeros(4, 8), "b": zeros(8, 3)}, zeros(2, 4))
    assert cost.parameters(net).sum() == 32 + 24
