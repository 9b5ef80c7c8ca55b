"""Masks as data: the law of masked networks holds for every construct that channels are followed through."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import channels, zoo
from compressjax.channels import _masked_replay
from tests.channels.functions import inputs, weights
from tests.channels.networks import CASES

X = inputs(3, 4)
PARAMS = weights(a=(4, 6), b=(6, 5), c=(5, 2))
MASKS = {
    "g0": np.array([[1, 0, 1, 0, 1, 0], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]], np.float32),
    "g1": np.array([[1, 0, 1, 0, 1], [0, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.float32),
}


def three_layers(p, x):
    return jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"]) @ p["c"]


NET = channels.trace(three_layers, PARAMS, X)


def floats(keep):
    return {name: kept.astype(np.float32) for name, kept in keep.items()}


def gap(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.linalg.norm(a - b) / max(np.linalg.norm(a), 1e-30)


@pytest.mark.parametrize("name", CASES)
def test_masks_as_data_equal_masked_parameters(name):
    f, params, xs, _, _ = CASES[name]()
    net = channels.trace(f, params, *xs)
    keep = {group.name: np.arange(group.size) % 2 == 0 for group in net.groups}
    expected = jax.tree.leaves(jax.jit(f)(net.mask(params, keep), *xs))
    found = jax.tree.leaves(jax.jit(channels.masked_replay(net))(params, floats(keep), *xs))
    assert len(expected) == len(found)
    for a, b in zip(expected, found, strict=True):
        assert np.isfinite(np.asarray(a, np.float64)).all()
        assert gap(a, b) < 1e-5


def randomised(model, key=0):
    """Parameters with batch normalization statistics and shifts that are not 0 and 1."""
    params = model.init(jax.random.key(key))
    rng = np.random.default_rng(key)
    return jax.tree.map(
        lambda w: w if w.ndim > 1 else jnp.asarray(rng.uniform(0.5, 1.5, w.shape), w.dtype), jax.device_get(params)
    )


NETWORKS = {"lenet5": ({"widths": (3, 5, 7)}, (2, 28, 28, 1)), "resnet20": ({"blocks": (1, 1, 1)}, (2, 32, 32, 3))}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_the_zoo(name):
    options, shape = NETWORKS[name]
    model = zoo.build(name, **options)
    params, x = randomised(model), inputs(*shape)
    net = channels.trace(model.apply, params, x)
    rng = np.random.default_rng(0)
    keeps = [{g.name: (rng.random(g.size) < 0.6) | (np.arange(g.size) == 0) for g in net.groups} for _ in range(3)]
    masks = {g.name: np.stack([keep[g.name] for keep in keeps]).astype(np.float32) for g in net.groups}
    apply = jax.jit(model.apply)
    expected = [apply(net.mask(params, keep), x) for keep in keeps]
    found = jax.jit(channels.population_replay(net))(params, masks, x)
    for a, b in zip(expected, found, strict=True):
        assert gap(a, b) < 1e-5
        assert gap(a, apply(params, x)) > 0.01
    small = net.shrink(params, keeps[0]).params
    assert gap(jax.jit(net.replay(keeps[0]))(small, x), found[0]) < 1e-5  # law 2


@pytest.mark.parametrize("chunk", [1, 2, 3, 10])
def test_a_population_is_its_members_one_by_one(chunk):
    one = jax.jit(channels.masked_replay(NET))
    expected = [one(PARAMS, {name: mask[i] for name, mask in MASKS.items()}, X) for i in range(3)]
    found = jax.jit(channels.population_replay(NET, chunk=chunk))(PARAMS, MASKS, X)
    np.testing.assert_allclose(found, np.stack(expected), rtol=1e-6)


def in_slots(masks, spare):
    """The same keep sets, gathered, with empty slots that hold removed members."""
    members, filled = {}, {}
    for name, mask in masks.items():
        width = min(mask.shape[1], int(mask.sum(1).max()) + spare)
        members[name] = jnp.asarray(np.argsort(-mask, axis=1, kind="stable")[:, :width])
        filled[name] = jnp.asarray(np.take_along_axis(mask, np.asarray(members[name]), axis=1))
    return channels.Slots(members, filled)


WITHOUT_GROUPS = ("two_pass_layer_norm", "linear_attention_with_elu")


@pytest.mark.parametrize("name", [name for name in CASES if name not in WITHOUT_GROUPS])
def test_slots_equal_masks_for_every_construct(name):
    f, params, xs, _, _ = CASES[name]()
    net = channels.trace(f, params, *xs)
    keeps = [{g.name: np.arange(g.size) % 2 == i for g in net.groups if g.size > 1} for i in range(2)]
    masks = {name: np.stack([keep[name] for keep in keeps]).astype(np.float32) for name in keeps[0]}
    expected = [f(net.mask(params, keep), *xs) for keep in keeps]
    found = jax.jit(channels.population_replay(net))(params, in_slots(masks, spare=1), *xs)
    values = net._traced.program.outs
    for i, one in enumerate(expected):
        for a, b, value in zip(jax.tree.leaves(one), jax.tree.leaves(found), values, strict=True):
            if not any(term.names for term in value.terms):  # state has members, in another order
                assert np.isfinite(np.asarray(a, np.float64)).all()
                assert gap(a, b[i]) < 1e-5


def test_slots_compute_less():
    masks = {"g0": MASKS["g0"][:2], "g1": MASKS["g1"][:2]}
    for given, size in ((masks, 5), (in_slots(masks, spare=0), 3)):
        text = str(jax.make_jaxpr(channels.population_replay(NET))(PARAMS, given, X))
        assert f"f32[3,{size}] = tanh" in text  # the second hidden layer
    found = jax.jit(channels.population_replay(NET))(PARAMS, in_slots(masks, spare=0), X)
    np.testing.assert_allclose(found, channels.population_replay(NET)(PARAMS, masks, X), rtol=1e-5)


def test_slots_beside_shared_masks():
    which = np.array([1, 0, 1])
    shared = channels.Shared({"g0": jnp.asarray(MASKS["g0"][:2])}, jnp.asarray(which))
    slots = in_slots({"g1": MASKS["g1"]}, spare=0)
    found = jax.jit(channels.population_replay(NET))(PARAMS, slots, X, shared=shared)
    expected = channels.population_replay(NET)(PARAMS, {**MASKS, "g0": MASKS["g0"][which]}, X)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_slots_that_do_not_fit(unchecked):
    replay = channels.population_replay(NET)
    index, one = jnp.zeros((3, 2), int), jnp.ones((3, 2))
    for slots, match in [
        (channels.Slots({"g7": index}, {"g7": one}), "'g7', which is no group"),
        (channels.Slots({"g0": index}, {}), "'g0', but not which are filled"),
        (channels.Slots({"g0": index}, {"g0": jnp.ones((3, 4))}), r"shapes \(3, 2\) and \(3, 4\)"),
        (channels.Slots({"g0": jnp.zeros((3, 7), int)}, {"g0": jnp.ones((3, 7))}), "with 1 to 6 slots"),
        (channels.Slots({"g0": one}, {"g0": one}), "float32: give whole numbers"),
        (channels.Slots({"g0": index}, {"g0": one, "g1": jnp.ones((3, 4))}), "mask of g1 has shape"),
    ]:
        with pytest.raises(ValueError, match=match):
            replay(PARAMS, slots, X)


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("name", ["g0", "g1"])
def test_shared_masks_give_the_same(name, chunk):
    which = np.array([1, 0, 1, 1])
    rest = {other: mask[[0, 1, 2, 1]] for other, mask in MASKS.items() if other != name}
    whole = {**rest, name: MASKS[name][which]}
    expected = channels.population_replay(NET)(PARAMS, whole, X)
    shared = channels.Shared({name: jnp.asarray(MASKS[name][:2])}, jnp.asarray(which))
    found = jax.jit(channels.population_replay(NET, chunk=chunk))(PARAMS, rest, X, shared=shared)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # With every group shared nothing is left but to pick.
    everything = channels.Shared({n: jnp.asarray(m[:2]) for n, m in MASKS.items()}, jnp.asarray(which))
    found = channels.population_replay(NET)(PARAMS, {}, X, shared=everything)
    expected = channels.population_replay(NET)(PARAMS, {n: m[which] for n, m in MASKS.items()}, X)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def dots(jaxpr):
    """Matrix products outside of and inside loops."""
    outside = inside = 0
    for eqn in jaxpr.eqns:
        outside += eqn.primitive.name == "dot_general"
        if eqn.primitive.name == "scan":
            inside += sum(dots(eqn.params["jaxpr"].jaxpr))
    return outside, inside


def test_what_no_mask_reaches_is_outside_of_the_loop():
    replay = channels.population_replay(NET)
    assert dots(jax.make_jaxpr(replay)(PARAMS, MASKS, X).jaxpr) == (1, 2)
    only_last = {"g1": MASKS["g1"]}
    assert dots(jax.make_jaxpr(replay)(PARAMS, only_last, X).jaxpr) == (2, 1)
    first, second, third = _masked_replay._stages(NET._traced.program, {"g0": 1, "g1": 2})
    assert [[s.name for s in stage if s.name == "dot_general"] for stage in (first, second, third)] == [
        ["dot_general"]
    ] * 3


def test_masks_can_be_differentiated_and_change_without_a_compilation():
    count = []

    def g(params, masks, x):
        count.append(None)
        return channels.masked_replay(NET)(params, masks, x).sum()

    jitted = jax.jit(g)
    for i in range(3):
        jitted(PARAMS, {"g0": MASKS["g0"][i]}, X)
    assert len(count) == 1
    slope = jax.grad(g, 1)(PARAMS, {"g0": MASKS["g0"][2]}, X)["g0"]
    hidden = jnp.tanh(X @ PARAMS["a"])

    def by_hand(m):
        return (jnp.tanh((hidden * m[None]) @ PARAMS["b"]) @ PARAMS["c"]).sum()

    np.testing.assert_allclose(slope, jax.grad(by_hand)(jnp.ones(6)), rtol=1e-5)


def test_groups_without_masks_stay_whole():
    np.testing.assert_allclose(channels.masked_replay(NET)(PARAMS, {}, X), three_layers(PARAMS, X), rtol=1e-6)


def test_a_summary_is_all_that_is_kept():
    replay = channels.population_replay(NET, summary=lambda y: {"mean": y.mean()})
    assert replay(PARAMS, MASKS, X)["mean"].shape == (3,)


@pytest.mark.parametrize(
    ("masks", "match"),
    [
        ([1.0], "masks is a list"),
        ({"g7": np.ones((3, 6), np.float32)}, "masks names 'g7', which is no group. Groups: g0, g1"),
        ({"g0": np.ones((3, 5), np.float32)}, r"mask of g0 has shape \(3, 5\); it must be \(population, 6\)"),
        ({"g0": np.ones(6, np.float32)}, r"mask of g0 has shape \(6,\)"),
        ({"g0": np.ones((3, 6), bool)}, "mask of g0 is bool: give floats"),
        ({}, "no common population of at least 1: there are none"),
        ({"g0": np.ones((0, 6), np.float32)}, "no common population"),
        ({"g0": np.ones((3, 6), np.float32), "g1": np.ones((2, 5), np.float32)}, r"\{'g0': 3, 'g1': 2\}"),
    ],
)
def test_masks_that_do_not_fit(unchecked, masks, match):
    with pytest.raises(ValueError, match=match):
        channels.population_replay(NET)(PARAMS, masks, X)


def test_shared_masks_that_do_not_fit():
    replay = channels.population_replay(NET)
    which = jnp.zeros(3, int)
    with pytest.raises(ValueError, match="masks of g0 are given twice"):
        replay(PARAMS, MASKS, X, shared=channels.Shared({"g0": jnp.ones((1, 6))}, which))
    uneven = channels.Shared({"g0": jnp.ones((1, 6)), "g1": jnp.ones((2, 5))}, which)
    with pytest.raises(ValueError, match="one number of rows"):
        replay(PARAMS, {}, X, shared=uneven)
    with pytest.raises(ValueError, match=r"'g1': 3, 'shared.which': 2"):
        replay(PARAMS, {"g1": MASKS["g1"]}, X, shared=channels.Shared({"g0": jnp.ones((1, 6))}, which[:2]))


def test_other_arguments_that_do_not_fit(unchecked):
    replay = channels.masked_replay(NET)
    with pytest.raises(ValueError, match=r"Input 0 has shape \(2, 4\); .* \(3, 4\): trace it with the batch"):
        replay(PARAMS, {}, X[:2])
    with pytest.raises(ValueError, match="Input 0 is float16"):
        replay(PARAMS, {}, X.astype(np.float16))
    with pytest.raises(ValueError, match="The inputs have the structure"):
        replay(PARAMS, {}, X, X)
    with pytest.raises(ValueError, match=r"a has shape \(6, 6\)"):
        replay({**PARAMS, "a": np.ones((6, 6), np.float32)}, {}, X)
    for chunk in (0, 1.5, True):
        with pytest.raises(ValueError, match="must be a whole number, at least 1"):
            channels.population_replay(NET, chunk=chunk)
