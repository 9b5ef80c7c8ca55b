"""What is found, what is refused and with which sentence, and bad input."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from compressjax import channels, trees
from tests.channels.functions import along, conv, inputs, numbered, weights
from tests.channels.networks import CASES

X = inputs(3, 4)
PAIR = weights(a=(4, 6), b=(6, 2))


def through(middle):
    """A dense layer, something, and a dense layer."""
    return lambda p, x: middle(x @ p["a"]) @ p["b"]


@pytest.mark.parametrize("name", CASES)
def test_the_terms_of_every_construct(name):
    f, params, xs, groups, terms = CASES[name]()
    net = channels.trace(f, params, *xs)
    assert {key: str(net.axes[key[0]][key[1]]) for key in terms} == terms
    assert len(net.groups) == groups


@pytest.mark.parametrize("name", ["two_dense_layers", "depthwise", "rms_norm", "fused_attention", "loops_and_branches"])
def test_jit_remat_and_abstract_arguments_change_nothing(name):
    f, params, xs, groups, terms = CASES[name]()
    abstract = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), (params, *xs))
    for wrapped in (jax.jit(f), jax.checkpoint(f)):
        net = channels.trace(wrapped, *abstract)
        assert {key: str(net.axes[key[0]][key[1]]) for key in terms} == terms
        assert len(net.groups) == groups


@pytest.mark.parametrize(
    ("middle", "sentence"),
    [
        (lambda h: jax.nn.softmax(h), "reduce_max at .* runs over this axis"),
        (lambda h: jnp.sort(h, -1), "sort at .* runs over this axis"),
        (lambda h: jnp.cumsum(h, -1), "cumsum at .* runs over this axis"),
        (lambda h: jnp.flip(h, -1), "rev at .* runs over this axis"),
        (lambda h: lax.top_k(h, 6)[0], "top_k at .* runs over this axis"),
        (lambda h: jnp.prod(h, -1, keepdims=True) * h, "reduce_prod at .* runs over this axis"),
        (lambda h: h[:, jnp.array([5, 4, 3, 2, 1, 0])], "gather at .* looks up positions"),
        (lambda h: lax.dynamic_slice(h, (0, 1), (3, 4)) @ jnp.ones((4, 6)), "dynamic_slice at .* chosen at run time"),
        (lambda h: jnp.fft.fft(h).real, "is not followed: there is no rule for fft"),
        (lambda h: h.at[:, 0].set(0), "scatter at .* writes at positions of this axis that are chosen at run time"),
        (lambda h: h.at[0].set(1.0).sum(-1, keepdims=True) + h, "contributes an unknown value, not 0"),
        (lambda h: h.at[0].add(1.0).sum(-1, keepdims=True) + h, "contributes an unknown value, not 0"),
        (lambda h: h.at[0].apply(jnp.cos).sum(-1, keepdims=True) + h, "contributes an unknown value, not 0"),
        (lambda h: (h + 1).at[0].multiply(h[1]).sum(-1, keepdims=True) + h, "contributes an unknown value, not 0"),
        (lambda h: h.reshape(3, 2, 3).transpose(0, 2, 1).reshape(3, 3, 2).sum((1, 2))[:, None] + h, None),
        (lambda h: lax.reduce_window(h, 0.0, lax.add, (1, 3), (1, 1), "SAME"), "reduce_window_sum .* slides a window"),
        (
            lambda h: jnp.exp(h) / jnp.exp(h).sum(-1, keepdims=True),
            "reduce_sum .* a masked channel contributes 1.0, not 0",
        ),
        (
            lambda h: jax.nn.sigmoid(h) @ jnp.ones((6, 6)),
            "dot_general .* contributes 0.5 times 1.0, not 0",
        ),
        (lambda h: jnp.cos(h).mean(-1, keepdims=True) + h, "reduce_sum .* contributes 1.0, not 0"),
        (lambda h: h / jnp.sqrt((h * h).sum(0, keepdims=True)), "div at .* makes a masked channel nan"),
        (lambda h: (h + 1.5).sum(-1, keepdims=True) + h, "contributes 1.5, not 0"),
        (lambda h: jnp.where(h > 0, 1.0, 2.0).sum(-1, keepdims=True) + h, "contributes 2.0, not 0"),
        (
            lambda h: jnp.where(inputs(3, 6) > 0, 1.0, h).sum(-1, keepdims=True) + h,
            "contributes an unknown value, not 0",
        ),
        (
            lambda h: jnp.pad(h, ((1, 1), (0, 0)), constant_values=1.0).sum(-1, keepdims=True)[:3] + h,
            "contributes an unknown value, not 0",
        ),
        (lambda h: jnp.concatenate([h, h + 1], -1).sum(-1, keepdims=True) + h, "contributes an unknown value"),
        (
            lambda h: lax.scan(lambda c, _: ((c[0] + 1, c[0]), None), (h, h), None, 3)[0][1].sum(-1, keepdims=True) + h,
            "contributes an unknown value",  # only the second turn shows it
        ),
        (lambda h: inputs(3, 6) / h, "div at .* divides by a masked channel, which is 0"),
        (lambda h: (jnp.log(jnp.abs(h)).T @ jnp.ones((3, 3))).T, "dot_general .* makes a masked channel infinite"),
        # The sign of a masked zero is not known: -0.0 for a negative operand.
        (lambda h: jnp.exp(-1 / h).sum(-1, keepdims=True) + h, "div at .* divides by a masked channel, which is 0"),
        (lambda h: jnp.arctan2(h, h).sum(-1, keepdims=True) + h, "contributes an unknown value"),
        (lambda h: jnp.abs(jnp.conj(h + 1j) - 1j).sum(-1, keepdims=True) + h, "contributes 2.0, not 0"),
        # A lookup out of bounds, and a window that lies in padding, hold no masked entry.
        (
            lambda h: h.at[jnp.array([0, 9, 1])].get(mode="fill", fill_value=1.0).sum(-1, keepdims=True) + h,
            "contributes an unknown value",
        ),
        (
            lambda h: (
                jnp.maximum(lax.reduce_window(h, -jnp.inf, lax.max, (2, 1), (3, 1), ((3, 0), (0, 0))), -5.0).sum() + h
            ),
            "contributes an unknown value",
        ),
        (lambda h: jnp.log(jnp.abs(h)) * jnp.tanh(h + inputs(3, 6)), "makes a masked channel infinite"),
    ],
)
def test_refusals_name_the_operation(middle, sentence):
    net = channels.trace(through(middle), PAIR, X)
    if sentence is None:
        assert [str(net.axes["a"][1])] == ["g0*g1"]
        return
    assert net.at("a", 1) == ()
    assert re.fullmatch(f"a axis 1 is kept whole: .*{sentence}.*\\.", net.why("a", 1)), net.why("a", 1)


@pytest.mark.parametrize(
    "middle",
    [
        lambda h: jnp.where(h > 0, 1.0, 0.0).sum(-1, keepdims=True) + h,
        lambda h: jnp.tanh(h).mean(-1, keepdims=True) + h,
        lambda h: jax.nn.relu(h) @ jnp.ones((6, 6)),
        lambda h: (jnp.exp(h) - 1).sum(-1, keepdims=True) * h,
        lambda h: (h**2).sum(-1, keepdims=True) * jnp.sqrt(jnp.abs(h)),
        lambda h: h / jnp.sqrt((h * h).sum(0, keepdims=True) + 1e-6),
        lambda h: jnp.log1p(jnp.abs(h)).sum() + h,
        lambda h: h.at[0].multiply(inputs(6)).sum(-1, keepdims=True) + h,
        lambda h: jnp.abs(lax.complex(h, h)).sum(-1, keepdims=True) + h,
        lambda h: (jnp.exp(1j * inputs(3, 1)) * h).real.sum(-1, keepdims=True) + h,
        lambda h: h.at[jnp.array([0, 9, 1])].get(mode="fill", fill_value=0.0).sum(-1, keepdims=True) + h,
        lambda h: jnp.take(h, jnp.array([0, 1, 1]), axis=0).sum(-1, keepdims=True) + h,
        lambda h: lax.reduce_window(h, -jnp.inf, lax.max, (2, 1), (1, 1), ((1, 0), (0, 0))).sum(-1, keepdims=True) + h,
    ],
)
def test_sums_over_masked_zeros_are_allowed(middle):
    assert len(channels.trace(through(middle), PAIR, X).groups) >= 1


def test_sentences_give_the_module_path_and_the_line():
    module = nn.Sequential([nn.Dense(6), nn.LayerNorm(use_fast_variance=False), nn.Dense(2)])
    net = channels.trace(module.apply, numbered(module, X), X)
    sentence = net.why("params/layers_0/kernel", 1)
    assert re.search(r"reduce_sum at .*layers_1 \(normalization\.py:\d+\) adds up this axis", sentence)
    assert net.why("params/layers_0/kernel", 0).endswith("it is an axis of the input.")
    assert net.why("params/layers_2/kernel", 1).endswith("it is an axis of the result.")


def test_why_for_what_can_be_cut_and_what_is_unused():
    params = {**PAIR, "spare": np.ones((3, 2), np.float32), "one": np.ones((1,), np.float32)}
    net = channels.trace(lambda p, x: through(jnp.tanh)(p, x) * p["one"][None], params, X)
    assert net.why("a", 1) == "a axis 1 follows g0."
    half = channels.trace(through(lambda h: jax.nn.softmax(h.reshape(3, 3, 2), -1).reshape(3, 6)), PAIR, X)
    assert re.fullmatch(r"a axis 1 follows g0\*2; the rest is kept whole: .*runs over this axis\.", half.why("a", 1))
    assert net.why("spare", 0) == "spare is unused: the result does not depend on it."
    assert net.why("one", 0) == "one axis 0 has size 1: there is nothing to remove."
    assert net.unused == ("spare",)
    assert net.at("b", 0) == ("g0",)
    for path, axis, match in (("c", 0, "No leaf has the path 'c'"), ("a", 2, "there is no axis 2")):
        with pytest.raises(ValueError, match=match):
            net.why(path, axis)


def test_groups_hold_their_members_and_sizes():
    f, params, xs, _, _ = CASES["convolution_then_flatten"]()
    (group,) = channels.trace(f, params, *xs).groups
    assert [(m.path, m.axis, str(m.term)) for m in group.members] == [
        ("a", 3, "g0"), ("a_bias", 0, "g0"), ("b", 0, "2*2*g0")
    ]  # fmt: skip
    assert group.members[2].index.tolist() == 4 * [0, 1, 2, 3, 4]
    assert group.members[2].index.dtype == np.int32
    assert not group.members[0].index.flags.writeable
    assert group.entries == 3 * 3 * 2 + 1 + 4 * 3
    assert group.size == 5


def test_notes_and_hazards():
    table = jnp.asarray(inputs(3, 6))
    net = channels.trace(through(lambda h: h * table), PAIR, X)
    assert net.groups[0].notes == ("closed-over constant",)
    net = channels.trace(through(lambda h: h * along(jnp.arange(6.0), h)), PAIR, X)
    assert net.groups[0].notes == ("index-dependent constant",)
    assert net.shrink(PAIR, {}).hazards == ()
    (hazard,) = net.shrink(PAIR, {"g0": np.arange(6) < 3}).hazards
    assert hazard == "g0 (a axis 1): index-dependent constant; a rebuilt module may differ."
    net = channels.trace(through(lambda h: h * h.mean(-1, keepdims=True)), PAIR, X)
    assert "adds it up; a mean divides by the width as traced" in net.groups[0].notes[0]


def test_ignored_leaves_stay_whole():
    params = weights(a=(4, 6), b=(6, 5), c=(5, 2))
    f = lambda p, x: jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"]) @ p["c"]  # noqa: E731
    assert len(channels.trace(f, params, X).groups) == 2
    assert channels.trace(f, params, X, ignore=["b"]).groups == ()
    net = channels.trace(f, params, X, ignore=[("b", 0)])
    assert (len(net.groups), net.at("b", 1)) == (1, ("g0",))
    assert net.why("a", 1) == "a axis 1 is kept whole: ('b', 0) is listed under ignore."


def test_tied_axes_move_together():
    module, x = nn.MultiHeadDotProductAttention(2, qkv_features=6), inputs(2, 3, 4)
    params = numbered(module, x)
    assert len(channels.trace(module.apply, params, x).groups) == 3
    net = channels.trace(module.apply, params, x, tie=[("*/query/kernel", 2, "*/value/kernel", 2)])
    assert len(net.groups) == 2
    assert net.at("params/query/kernel", 2) == net.at("params/out/kernel", 1)


def train_mode(p, x):
    """BatchNorm that returns its new running mean."""
    h = x @ p["a"]
    mean = h.mean(0)
    h = (h - along(mean, h)) * lax.rsqrt(((h - along(mean, h)) ** 2).mean(0, keepdims=True) + 1e-5)
    return h @ p["b"], {"mean": 0.9 * p["mean"] + 0.1 * mean}


def test_returned_statistics_are_cut_with_their_leaf():
    params = {**PAIR, "mean": np.ones(6, np.float32)}
    assert channels.trace(train_mode, params, X).groups == ()
    net = channels.trace(train_mode, params, X, state=lambda out: out[1])
    assert net.at("mean", 0) == net.at("a", 1) == ("g0",)
    keep = {"g0": np.array([1, 0, 1, 1, 0, 0], bool)}
    small = net.shrink(params, keep).params
    left, right = train_mode(net.mask(params, keep), X), net.replay(keep)(small, X)
    np.testing.assert_allclose(left[0], right[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(left[1]["mean"][keep["g0"]], right[1]["mean"], rtol=1e-5)
    assert net.verify(params, (X,), keep)["keep"] < 1e-5
    with pytest.raises(ValueError, match="picks a result 'median', which is no leaf"):
        channels.trace(lambda p, x: (x, {"median": x}), params, X, state=lambda out: out[1])
    with pytest.raises(ValueError, match=r"result 'mean' has shape \(3, 4\), the leaf \(6,\)"):
        channels.trace(lambda p, x: (x, {"mean": x}), params, X, state=lambda out: out[1])


@pytest.mark.parametrize(
    ("leaf", "match"),
    [
        ("text", "spare is a str, no array"),
        (np.array(["text"]), "spare has dtype .*: parameters are numbers"),
        (object(), "spare is a object, no array"),
        (jax.random.key(0), "spare is a random key: pass it as an input"),
    ],
)
def test_leaves_that_are_no_numbers(leaf, match):
    with pytest.raises(ValueError, match=match):
        channels.trace(through(jnp.tanh), {**PAIR, "spare": leaf}, X)


def test_side_effects_are_refused():
    def f(p, x):
        jax.debug.print("{}", x[0, 0])
        return x @ p["a"]

    for g in (f, jax.jit(f), lambda p, x: lax.fori_loop(0, 2, lambda _, s: s + f(p, x), jnp.zeros((3, 6)))):
        with pytest.raises(ValueError, match=r"debug\w+ at .* has the side effect"):
            channels.trace(g, PAIR, X)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"ignore": ["c*"]}, "ignore names 'c*', which matches no leaf: a, b"),
        ({"ignore": "a"}, "a sequence of globs"),
        ({"ignore": [("a", 2)]}, r"ignore names axis 2 of a, which has shape \(4, 6\)"),
        ({"tie": [("a", 0, "c", 0)]}, "tie names 'c'"),
        ({"tie": [("a", 0, "b", 0)]}, "axis 0 of 'a' has size 4, axis 0 of 'b' has 6"),
        ({"tie": [("*", 1, "a", 1)]}, "matches 2 leaves, 'a' matches 1"),
    ],
)
def test_options_that_do_not_fit(options, match):
    with pytest.raises(ValueError, match=match.replace("c*", r"c\*")):
        channels.trace(through(jnp.tanh), PAIR, X, **options)


def test_tracing_compiles_nothing():
    f, params, xs, _, _ = CASES["decoder"]()
    jax.clear_caches()
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    net = channels.trace(f, params, *xs)
    small = net.shrink(params, {"g0": np.arange(10) < 4})
    assert compiled == []
    assert trees.leaves(small.params)["down"].shape == (4, 8)
    jax.jit(lambda x: x + 1)(1.0)
    assert compiled, "the counter counts"


def test_pointwise_convolutions_leave_space_alone():
    f = lambda p, x: conv(jnp.tanh(conv(x, p["a"])), p["b"]).reshape(1, -1) @ p["c"]  # noqa: E731
    params = weights(a=(1, 1, 2, 4), b=(1, 1, 4, 2), c=(18, 2))
    assert channels.trace(f, params, inputs(1, 3, 3, 2)).at("b", 2) == ("g0",)
