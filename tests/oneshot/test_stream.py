"""The stream through a network: each layer sees the compressed ones before it, kernels in any layout are found."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import oneshot, zoo
from compressjax.channels._program import program
from compressjax.oneshot._kernels import find, rows
from compressjax.oneshot._stream import _Run
from compressjax.projections import NM, Cardinality, Joint
from tests.oneshot.problems import correlated

WANDA = oneshot.wanda  # exact and cheap, so that tests can ask for equality


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def mlp(params, x):
    return jax.nn.relu(x @ params["a"] + params["bias"][None]) @ params["b"]


MLP = {"a": normal(6, 8), "b": normal(8, 3, seed=1), "bias": normal(8, seed=2)}


def batches(count=3, rows_=32, inputs=6):
    return [jnp.asarray(correlated(rows_, inputs, seed)) for seed in range(count)]


def seen_of(parts):
    seen = oneshot.start(parts[0].shape[-1])
    for part in parts:
        seen = oneshot.add(seen, part)
    return seen


def test_later_layers_see_the_compressed_earlier_ones():
    data, half = batches(), Cardinality(0.5)
    new, layers = oneshot.compress(mlp, MLP, data, {"[ab]": half}, WANDA)
    a = WANDA(MLP["a"], seen_of(data), half)
    hidden = [jax.nn.relu(x @ a + MLP["bias"][None]) for x in data]
    b = WANDA(MLP["b"], seen_of(hidden), half)
    np.testing.assert_array_equal(new["a"], a)
    np.testing.assert_array_equal(new["b"], b)
    np.testing.assert_array_equal(new["bias"], MLP["bias"])
    assert [(one.path, one.inputs, one.outputs, one.kept, one.rows) for one in layers] == [
        ("a", 6, 8, 24, 96),
        ("b", 8, 3, 12, 96),
    ]
    error = oneshot.output_error(b, MLP["b"], seen_of(hidden))
    np.testing.assert_allclose(layers[1].error, error, rtol=1e-5)


def test_one_batch_or_many_is_the_same_and_so_is_a_jitted_network():
    data = batches()
    new, _ = oneshot.compress(mlp, MLP, data, {"[ab]": Cardinality(0.5)}, oneshot.sparsegpt)
    whole, _ = oneshot.compress(
        jax.jit(mlp), MLP, [jnp.concatenate(data)], {"[ab]": Cardinality(0.5)}, oneshot.sparsegpt
    )
    for path in "ab":
        np.testing.assert_allclose(new[path], whole[path], rtol=1e-3, atol=1e-4)


def test_only_what_is_still_read_is_kept():
    prog = program(jax.make_jaxpr(mlp)(MLP, batches()[0]))
    first, second = find(prog, sorted(MLP), ["a", "b"])
    run = _Run(prog, [first, second], [MLP[name] for name in sorted(MLP)], [[x] for x in batches()])
    run.advance(first.at)
    assert [[v.shape for v in batch.values()] for batch in run.batches] == [[(32, 6)]] * 3
    run.advance(second.at)
    assert [[v.shape for v in batch.values()] for batch in run.batches] == [[(32, 8)]] * 3


def test_kernels_that_read_the_same_activations_share_statistics():
    params = {"q": normal(6, 4), "k": normal(6, 4, seed=1)}
    f = lambda p, x: (x @ p["q"]) * (x @ p["k"])  # noqa: E731
    given = []

    def method(w, statistics, constraint):
        given.append(statistics)
        return WANDA(w, statistics, constraint)

    oneshot.compress(f, params, batches(), {"*": Cardinality(0.5)}, method)
    assert given[0] is given[1]


@pytest.mark.parametrize(
    ("strides", "padding", "dilation", "layout"),
    [
        ((1, 1), "SAME", (1, 1), ("NHWC", "HWIO", "NHWC")),
        ((2, 1), "VALID", (1, 2), ("NHWC", "HWIO", "NHWC")),
        ((2, 2), ((1, 2), (0, 1)), (1, 1), ("NCHW", "OIHW", "NCHW")),
    ],
)
def test_rows_times_the_matrix_is_the_convolution(strides, padding, dilation, layout):
    shapes = {"NHWC": (2, 7, 6, 3), "NCHW": (2, 3, 7, 6), "HWIO": (3, 2, 3, 4), "OIHW": (4, 3, 3, 2)}
    x, kernel = normal(*shapes[layout[0]]), normal(*shapes[layout[1]], seed=1)

    def f(kernel, x):
        return jax.lax.conv_general_dilated(
            x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=layout
        )

    prog = program(jax.make_jaxpr(f)(kernel, x))
    (found,) = find(prog, ["k"], ["k"])
    product = rows(prog.steps[found.at], found.operand, x) @ kernel.reshape(-1)[found.order]
    expected = f(kernel, x)
    expected = jnp.moveaxis(expected, layout[2].index("C"), -1).reshape(-1, 4)
    np.testing.assert_allclose(product, expected, rtol=1e-4, atol=1e-4)
    if layout[1] == "HWIO":  # windows first, then channels: what N:M along a kernel's inputs means
        np.testing.assert_array_equal(found.order, np.arange(72).reshape(18, 4))


@pytest.mark.parametrize(
    ("f", "shape", "matrix"),
    [
        (lambda w, x: x @ w, (6, 4), np.arange(24).reshape(6, 4)),
        (lambda w, x: x @ w.T, (4, 6), np.arange(24).reshape(4, 6).T),
        (lambda w, x: jnp.einsum("oi,ri->or", w, x), (4, 6), np.arange(24).reshape(4, 6).T),
        (lambda w, x: jnp.einsum("rab,abcd->rcd", x.reshape(-1, 2, 3), w), (2, 3, 2, 2), np.arange(24).reshape(6, 4)),
        (lambda w, x: x @ w.astype(jnp.float32).reshape(6, 4), (2, 12), np.arange(24).reshape(6, 4)),
    ],
    ids=["plain", "transposed", "outputs first", "heads", "reshaped"],
)
def test_kernels_are_found_in_any_layout(f, shape, matrix):
    w, x = normal(*shape), batches(1)[0]
    prog = program(jax.make_jaxpr(f)(w, x))
    (found,) = find(prog, ["w"], ["w"])
    np.testing.assert_array_equal(found.order, matrix)
    step = prog.steps[found.at]
    entering = x.reshape(step.ins[1 - found.operand].shape)
    np.testing.assert_array_equal(rows(step, found.operand, entering), x)


@pytest.mark.slow
def test_a_decoder_runs_through():
    decoder = zoo.build("decoder", widths=(8, 2, 1, 4, 4, 12), layers=1, classes=11, input_shape=(6,))
    params = decoder.init(jax.random.key(0))
    tokens = [np.random.default_rng(i).integers(0, 11, (4, 6)) for i in range(2)]
    rules = {"layer*/kernel": NM(2, 4)}
    new, layers = oneshot.compress(decoder.apply, params, tokens, rules, WANDA)
    assert [one.path.split("/")[1] for one in layers] == ["query", "key", "value", "out", "gate", "up", "down"]
    assert all(one.kept == one.inputs * one.outputs // 2 for one in layers)
    assert jax.tree.structure(new) == jax.tree.structure(params)


@pytest.mark.slow
def test_a_residual_network_runs_through():
    net = zoo.build("resnet20", widths=(4, 4, 8, 4), blocks=(1, 1), input_shape=(8, 8, 3))
    params = net.init(jax.random.key(0))
    images = [normal(2, 8, 8, 3, seed=i) for i in range(2)]
    _, layers = oneshot.compress(net.apply, params, images, {"stage*/kernel": Cardinality(0.5)}, WANDA)
    assert [(one.inputs, one.rows) for one in layers] == [(36, 256), (36, 256), (36, 64), (36, 64)]


@pytest.mark.slow
def test_alps_by_default_beats_magnitude_at_the_outputs_of_the_network():
    data, rules = batches(), {"[ab]": Cardinality(0.5)}
    x, dense = jnp.concatenate(data), mlp(MLP, jnp.concatenate(data))
    found = (oneshot.compress(mlp, MLP, data, rules, oneshot.magnitude)[0], oneshot.compress(mlp, MLP, data, rules)[0])
    plain, best = (float(jnp.sum(jnp.square(mlp(new, x) - dense))) for new in found)
    assert best < 0.5 * plain


def test_what_damping_closed_is_said():
    _, layers = oneshot.compress(mlp, MLP, batches(1, 4), {"a": Cardinality(0.5)}, WANDA)
    assert layers[0].shortage == "only 4 rows for 6 inputs"
    assert "closed by damping" in str(layers[0])


def loop(params, x):
    return jax.lax.scan(lambda x, w: (x @ w, None), x, params["w"])[0]


@pytest.mark.parametrize(
    ("f", "w", "words"),
    [
        (lambda p, x: (x @ p["w"]) @ p["w"], normal(6, 6), "w feeds .* as well as"),
        (lambda p, x: x + p["w"].sum(), normal(6, 6), "w feeds reduce_sum.*no product or convolution"),
        (lambda p, x: x, normal(6, 6), "w feeds no product"),
        (loop, normal(2, 6, 6), "w feeds scan.*has to be written out"),
        (lambda p, x: x @ (p["w"] @ p["w2"]), normal(6, 6), "w feeds dot_general.*depends on the inputs"),
        (lambda p, x: jnp.einsum("gri,gio->gro", x.reshape(2, -1, 6), p["w"]), normal(2, 6, 4), "one matrix per batch"),
    ],
    ids=["shared", "summed", "unread", "scanned", "merged", "batched"],
)
def test_what_is_no_kernel_of_one_layer_is_refused_by_path(f, w, words):
    with pytest.raises(ValueError, match=words):
        oneshot.compress(f, {"w": w, "w2": normal(6, 6)}, batches(), {"w": Cardinality(3)}, WANDA)


def test_convolutions_in_groups_are_refused_by_path():
    f = lambda p, x: jax.lax.conv_general_dilated(  # noqa: E731
        x, p["w"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=3
    )
    with pytest.raises(ValueError, match="w is the kernel of a convolution in groups"):
        oneshot.compress(f, {"w": normal(3, 3, 1, 3)}, [normal(1, 4, 4, 3)], {"w": Cardinality(3)}, WANDA)


def test_bad_input():
    run = partial(oneshot.compress, mlp, MLP, method=WANDA)
    with pytest.raises(ValueError, match="no calibration batches"):
        run([], {"a": Cardinality(3)})
    with pytest.raises(ValueError, match=r"batch 1 has .*\(31, 6\).* leave out a shorter last one"):
        run([batches()[0], batches()[0][:31]], {"a": Cardinality(3)})
    broken = {**MLP, "bias": MLP["bias"].at[0].set(jnp.nan)}
    with pytest.raises(ValueError, match="b: wanda: the calibration activations are not finite"):
        oneshot.compress(mlp, broken, batches(), {"[ab]": Cardinality(3)}, WANDA)
    with pytest.raises(ValueError, match="a: NM: m=4 does not divide"):
        run(batches(), {"a": NM(2, 4)})
    with pytest.raises(ValueError, match=r"a: wanda: Joint.* layers are solved one after the other"):
        run(batches(), {"a": Joint(Cardinality(3))})
    with pytest.raises(ValueError, match="it matches no leaf"):
        run(batches(), {"c": Cardinality(3)})
    empty = {**MLP, "a": jnp.zeros((6, 0)), "b": jnp.zeros((0, 3)), "bias": jnp.zeros(0)}
    with pytest.raises(ValueError, match="a: wanda: a kernel of shape"):
        oneshot.compress(mlp, empty, batches(), {"a": Cardinality(0.5)}, WANDA)
