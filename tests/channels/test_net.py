"""Keep sets, surgery, checking rebuilt functions, sizes for cost models, tables and pictures."""

import re
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from compressjax import channels, trees
from tests.channels.functions import inputs, weights
from tests.channels.networks import CASES

X = inputs(3, 4)
PAIR = weights(a=(4, 6), b=(6, 2))
HALF = {"g0": np.arange(6) % 2 == 0}


def two_layers(p, x):
    return jnp.tanh(x @ p["a"]) @ p["b"]


NET = channels.trace(two_layers, PAIR, X)


@pytest.mark.parametrize(
    ("keep", "match"),
    [
        ({"g1": np.ones(6, bool)}, "keep names 'g1', which is no group. Groups: g0"),
        ({"g0": np.ones(5, bool)}, r"keep of g0 \(a axis 1\) has shape \(5,\), but the group has 6 members"),
        ({"g0": np.ones((6, 1), bool)}, r"has shape \(6, 1\)"),
        ({"g0": np.arange(6)}, r"keep of g0 \(a axis 1\) is int64: give one Boolean per member"),
        ({"g0": np.ones(6)}, "is float64"),
        ({"g0": np.zeros(6, bool)}, "keeps nothing: leave at least one member"),
    ],
)
def test_keep_sets_that_do_not_fit(keep, match):
    for method in (NET.keep, NET.replay, lambda k: NET.shrink(PAIR, k), lambda k: NET.mask(PAIR, k)):
        with pytest.raises(ValueError, match=match):
            method(keep)


def test_trees_that_do_not_fit():
    for method in (NET.shrink, NET.mask):
        with pytest.raises(ValueError, match=r"a has shape \(4, 5\), but the net expects \(4, 6\)"):
            method({**PAIR, "a": np.ones((4, 5))}, HALF)
        with pytest.raises(ValueError, match="have no leaf 'b'"):
            method({"a": PAIR["a"]}, HALF)
        with pytest.raises(ValueError, match="the traced parameters have no leaf 'c'"):
            method({**PAIR, "c": np.ones(1)}, HALF)
    replay = NET.replay(HALF)
    with pytest.raises(ValueError, match=r"a has shape \(4, 6\), but the net expects \(4, 3\)"):
        replay(PAIR, X)
    small = NET.shrink(PAIR, HALF).params
    with pytest.raises(ValueError, match=r"Input 0 has shape \(2, 4\); the function was traced with \(3, 4\)"):
        replay(small, X[:2])
    with pytest.raises(ValueError, match="The inputs have the structure"):
        replay(small, X, X)


def test_shrink_takes_what_keep_names_and_says_so():
    shrunk = NET.shrink(PAIR, HALF)
    np.testing.assert_array_equal(shrunk.params["a"], PAIR["a"][:, ::2])
    np.testing.assert_array_equal(shrunk.params["b"], PAIR["b"][::2])
    assert shrunk.widths == {"a": ((4, 6), (4, 3)), "b": ((6, 2), (3, 2))}
    assert shrunk.keep["g0"].tolist() == [True, False] * 3
    assert NET.shrink(PAIR, {}).widths == {}


def test_kinds_of_leaves_stay_what_they_are():
    params = {"a": jnp.asarray(PAIR["a"], jnp.bfloat16), "b": PAIR["b"]}
    for tree in (NET.shrink(params, HALF).params, NET.mask(params, HALF)):
        assert isinstance(tree["a"], jax.Array)
        assert tree["a"].dtype == jnp.bfloat16
        assert type(tree["b"]) is np.ndarray
    abstract = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), params)
    assert trees.shapes(NET.shrink(abstract, HALF).params) == {"a": (4, 3), "b": (3, 2)}


def test_mask_zeroes_every_slice_and_leaves_its_argument_alone():
    before = {path: leaf.copy() for path, leaf in PAIR.items()}
    masked = NET.mask(PAIR, HALF)
    assert not masked["a"][:, 1::2].any()
    assert not masked["b"][1::2].any()
    np.testing.assert_array_equal(masked["a"][:, ::2], PAIR["a"][:, ::2])
    assert all((PAIR[path] == before[path]).all() for path in PAIR)


def test_integer_leaves_are_not_masked():
    f, params, xs, _, _ = CASES["integer_codes"]()
    net = channels.trace(f, params, *xs)
    masked = net.mask(params, HALF)
    np.testing.assert_array_equal(masked["codes"], params["codes"])
    assert not masked["scale"][1::2].any()


def test_replay_can_be_jitted_differentiated_and_batched():
    small, replay = NET.shrink(PAIR, HALF).params, NET.replay(HALF)
    expected = two_layers(small, X)
    np.testing.assert_allclose(jax.jit(replay)(small, X), expected, rtol=1e-6)
    gradient = jax.grad(lambda p: replay(p, X).sum())(small)
    np.testing.assert_allclose(gradient["a"], jax.grad(lambda p: two_layers(p, X).sum())(small)["a"], rtol=1e-5)
    assert jax.vmap(replay, (None, 0))(small, np.stack([X, X])).shape == (2, 3, 2)


def rms(p, x, divisor=None):
    h = x @ p["a"]
    return (h * lax.rsqrt((h * h).sum(-1, keepdims=True) / (divisor or h.shape[-1]) + 1e-6)) @ p["b"]


def heads(p, x, count=2):
    q = (x @ p["a"]).reshape(3, count, -1)
    return jnp.tanh(q).reshape(3, -1) @ p["b"]


def unlike(p, x):
    return jnp.sin(x @ p["a"]) @ p["b"]


def longer(p, x):
    return two_layers(p, x) + 1


def test_a_rebuilt_function_passes():
    NET.check(two_layers, HALF)
    NET.check(jax.jit(two_layers), HALF)
    for name in ("convolution_then_flatten", "linen_group_norm", "gated_recurrence", "loops_and_branches"):
        f, params, xs, _, _ = CASES[name]()
        channels.trace(f, params, *xs).check(f, {})


def test_the_first_differing_operation_is_named():
    net = channels.trace(rms, PAIR, X)
    with pytest.raises(ValueError, match=r"div at .*test_net.py:\d+ reads 6.0 in the shrunk function, 3.0 in"):
        net.check(rms, HALF)
    net.check(lambda p, x: rms(p, x, 6), HALF)


def test_heads_that_would_be_cut_elsewhere_are_seen():
    params = weights(a=(4, 16), b=(16, 2))
    net = channels.trace(lambda p, x: heads(p, x, 4), params, X)
    assert [group.size for group in net.groups] == [4, 4]
    keep = {"g0": np.array([True, False, True, False])}
    with pytest.raises(ValueError, match=r"has new_sizes=\(3, 2, 4\) in the shrunk function, new_sizes=\(3, 4, 2\)"):
        net.check(lambda p, x: heads(p, x, 4), keep)  # it runs: eight channels make four heads too
    net.check(lambda p, x: heads(p, x, 2), keep)


@pytest.mark.parametrize(
    ("rebuilt", "match"),
    [
        (unlike, "tanh at .* meets sin at"),
        (longer, "add at .* is in the rebuilt function only"),
        (lambda p, x: x @ p["a"] @ p["b"], "tanh at .* meets dot_general"),
        (lambda p, x: (two_layers(p, x),), "returns PyTreeDef"),
        (lambda p, x: jnp.tanh(x @ p["a"]) @ (p["b"] * 2), "meets mul|reads another value"),
    ],
)
def test_other_functions_are_refused(rebuilt, match):
    with pytest.raises(ValueError, match=match):
        NET.check(rebuilt, HALF)


def test_constants_and_positions_are_compared():
    table = inputs(6)
    net = channels.trace(lambda p, x: jnp.tanh((x @ p["a"]) * table[None]) @ p["b"], PAIR, X)
    net.check(lambda p, x: jnp.tanh((x @ p["a"]) * table[::2][None]) @ p["b"], HALF)
    with pytest.raises(ValueError, match="reads a constant of shape"):
        net.check(lambda p, x: jnp.tanh((x @ p["a"]) * table[:3][None]) @ p["b"], HALF)
    counted = lambda p, x: ((x @ p["a"]) * lax.iota(jnp.float32, p["a"].shape[1])[None]) @ p["b"]  # noqa: E731
    with pytest.raises(ValueError, match=r"iota at .* keeps its traced positions"):
        channels.trace(counted, PAIR, X).check(counted, HALF)


def test_bodies_and_callbacks_are_compared():
    def folded(operation):
        def f(p, x):
            return lax.reduce(jnp.tanh(x @ p["a"]) @ p["b"], np.float32(0), operation, (0,))

        return f

    def called(function):
        def f(p, x):
            y = jnp.tanh(x @ p["a"]) @ p["b"]
            return jax.pure_callback(function, jax.ShapeDtypeStruct(y.shape, y.dtype), y)

        return f

    for make, same, other in (
        (folded, lambda a, b: a + b * b, lambda a, b: a - b * b),
        (called, np.sin, np.cos),
    ):
        net = channels.trace(make(same), PAIR, X)
        net.check(make(same), HALF)
        with pytest.raises(ValueError, match=r"calls a function .* not the same"):
            net.check(make(other), HALF)


def test_a_nan_in_a_constant_equals_itself():
    f = lambda p, x: jnp.where(x @ p["a"] > 1e9, jnp.nan, x @ p["a"]) @ p["b"]  # noqa: E731
    channels.trace(f, PAIR, X).check(f, HALF)


def test_other_dtypes_are_refused():
    scaled = lambda p, x: jnp.tanh((x / x.max()) @ p["a"]) @ p["b"]  # noqa: E731
    net = channels.trace(scaled, PAIR, X)
    with pytest.raises(ValueError, match="Input 0 is uint8; the function was traced with float32"):
        net.replay(HALF)(net.shrink(PAIR, HALF).params, X.astype(np.uint8))
    half = {name: leaf.astype(jnp.bfloat16) for name, leaf in PAIR.items()}
    with pytest.raises(ValueError, match="a is bfloat16"):
        net.replay(HALF)(net.shrink(half, HALF).params, X)


def test_surgery_is_for_the_host():
    for surgery in (NET.shrink, NET.mask):
        with pytest.raises(ValueError, match="outside of jit"):
            jax.jit(lambda p, surgery=surgery: surgery(p, HALF))(PAIR)
    shapes = jax.eval_shape(lambda: PAIR)
    assert NET.mask(shapes, HALF) == shapes


def test_verify_measures_every_group():
    f, params, xs, _, _ = CASES["depthwise"]()
    errors = channels.trace(f, params, *xs).verify(params, xs)
    assert list(errors) == ["g0", "g1", "all"]
    assert max(errors.values()) < 1e-5
    assert list(NET.verify(PAIR, (X,), HALF, f=two_layers)) == ["keep"]
    wrong = NET.verify(PAIR, (X,), HALF, f=lambda p, x: two_layers(p, x) * 1.5)
    assert wrong["keep"] == pytest.approx(1 / 3, rel=1e-3)
    with pytest.raises(ValueError, match="infinite or nan"):
        NET.verify({**PAIR, "a": np.full((4, 6), np.nan, np.float32)}, (X,))


def macs(net, widths):
    """Multiply-adds from the roles: what a cost model does."""
    total = 0
    for op in net.operations:
        count = op.trips if op.roles else 0
        for role, terms in op.roles.items():
            for term in terms if role != "groups" else ():
                count = count * net.size(term, widths)
        total = total + count
    return total


def test_sizes_follow_widths_in_one_vmap():
    f, params, xs, _, _ = CASES["depthwise"]()
    net = channels.trace(f, params, *xs)
    whole = 2 * 9 * (2 * 5 + 9 * 10 + 10 * 3)
    assert macs(net, {}) == whole
    widths = {"g0": jnp.array([5.0, 2.0]), "g1": jnp.array([2.0, 1.0])}
    assert jax.vmap(lambda w: macs(net, w))(widths).tolist() == [whole, 2 * 9 * (2 * 2 + 9 * 2 + 2 * 3)]
    keep = {"g0": np.arange(5) < 2, "g1": np.arange(2) < 1}
    small = net.shrink(params, keep).params
    assert macs(channels.trace(net.replay(keep), small, *xs), {}) == 2 * 9 * (2 * 2 + 9 * 2 + 2 * 3)


def test_operations_count_the_turns_of_loops():
    f, params, xs, _, _ = CASES["gated_recurrence"]()
    dots = [op for op in channels.trace(f, params, *xs).operations if op.primitive == "dot_general"]
    assert [op.trips for op in dots] == [4] * 5
    assert [op.sources[1] for op in dots] == ["zx", "zh", "hx", "hh", "out"]
    f, params, xs, _, _ = CASES["loops_and_branches"]()
    dots = [op for op in channels.trace(f, params, *xs).operations if op.primitive == "dot_general"]
    assert [(op.trips, op.dynamic) for op in dots] == [(1, False), (1, True), (2, False), (1, False)]


def test_operations_have_paths_terms_and_dtypes():
    f, params, xs, _, _ = CASES["linen_group_norm"]()
    net = channels.trace(f, params, *xs)
    first, last = (op for op in net.operations if op.primitive == "conv_general_dilated")
    assert re.search("layers_0$", first.path)
    assert re.search("layers_3$", last.path)
    assert [str(t) for t in first.outputs[0]] == ["2", "3", "3", "g0*g1"]
    assert {role: [str(t) for t in terms] for role, terms in last.roles.items()} == {
        "batch": ["2"], "space": ["3", "3"], "window": ["1", "1"], "in": ["g0*g1"], "out": ["2"], "groups": ["1"]
    }  # fmt: skip
    assert last.input_dtypes == (np.float32, np.float32)
    assert last.sources == (None, "params/layers_3/kernel")


def test_the_table_lists_groups_reasons_and_leaves():
    params = {**PAIR, "spare": np.ones(2, np.float32)}
    text = str(channels.trace(two_layers, params, X))
    assert text.splitlines() == [
        "1 group in 3 leaves",
        "g0  6 members of 6 parameters: a[1]=g0, b[0]=g0",
        "a axis 0 is kept whole: it is an axis of the input.",
        "b axis 1 is kept whole: it is an axis of the result.",
        "spare is unused: the result does not depend on it.",
    ]
    f, params, xs, _, _ = CASES["decoder"]()
    assert "and 3 more" in str(channels.trace(f, params, *xs))


def test_the_picture_is_svg_with_a_strip_for_every_axis():
    f, params, xs, _, _ = CASES["fused_attention"]()
    net = channels.trace(f, params, *xs)
    root = ElementTree.fromstring(net.draw())
    titles = [title.text for title in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == ["g0: 2", "g1: 4", "4: 4", "4: 4", *["g0: 2", "g2: 4"] * 2, "g0: 2", "g1: 4"]
    assert "qkv" in {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
