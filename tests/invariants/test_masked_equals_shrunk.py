"""Law 2: a network with units masked and the same network without them give the same output."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressjax import channels, trees, zoo
from tests.channels.networks import CASES
from tests.channels.random_programs import random_program

MODELS = {
    "lenet5": zoo.build("lenet5", widths=(4, 5, 7), input_shape=(18, 16, 2), classes=3),
    "lenet300": zoo.build("lenet300", widths=(9, 6), input_shape=(3, 4, 1), classes=3),
}


def random_params(model, seed, density=1.0):
    """Random weights and biases, of which a share `density` is not zero."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0))

    def draw(leaf):
        values = rng.standard_normal(leaf.shape) * (rng.random(leaf.shape) < density)
        return jnp.asarray(values / max(1.0, np.sqrt(values.size / leaf.shape[-1])), jnp.float32)

    return jax.tree.map(draw, shapes)


def outputs(model, *parameters):
    x = jax.random.uniform(jax.random.key(7), (4, *model.input_shape))
    return [
        np.asarray(jax.jit(zoo.build(**{**model.config, "widths": zoo.widths_of(model.name, p)}).apply)(p, x))
        for p in parameters
    ]


def assert_same(left, right):
    """Relative Frobenius error, because single logits may lie near zero."""
    assert np.linalg.norm(left - right) <= 1e-5 * max(np.linalg.norm(left), 1e-3)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", range(3))
def test_masked_equals_shrunk(name, seed):
    model = MODELS[name]
    rng = np.random.default_rng(seed)
    params = random_params(model, seed)
    keep = {
        layer: np.sort(rng.choice(width, rng.integers(1, width + 1), replace=False))
        for layer, width in zip(model.chain, model.widths, strict=False)
    }
    shrunk = channels.take(params, model.chain, keep)
    assert zoo.widths_of(name, shrunk) == tuple(len(k) for k in keep.values())
    assert_same(*outputs(model, channels.mask_units(params, model.chain, keep), shrunk))


@pytest.mark.parametrize("name", MODELS)
def test_cut_is_the_shrunk_twin_of_masking_the_least_important(name):
    model = MODELS[name]
    params = random_params(model, 5)
    widths = tuple(w // 2 for w in model.widths)
    keep = {
        layer: np.sort(np.argsort(-score, kind="stable")[:width])
        for (layer, score), width in zip(channels.importance(params, model.chain).items(), widths, strict=True)
    }
    small = channels.cut(params, model.chain, widths)
    assert zoo.widths_of(name, small) == widths
    assert_same(*outputs(model, channels.mask_units(params, model.chain, keep), small))


@settings(max_examples=40)
@given(
    name=st.sampled_from(sorted(MODELS)),
    seed=st.integers(0, 2**20),
    density=st.sampled_from([0.02, 0.05, 0.1, 0.3, 1.0]),
)
def test_removing_dead_units_changes_nothing(name, seed, density):
    model = MODELS[name]
    params = random_params(model, seed, density)
    # Sparse kernels alone would leave biases sparse as well; constants must move, so give every unit one.
    biases = {p: leaf + 0.3 for p, leaf in trees.leaves(params).items() if p.endswith("bias")}
    params = trees.update(params, biases)
    small, kept = channels.remove_dead(params, model.chain)
    assert zoo.widths_of(name, small) == tuple(len(k) for k in kept.values())
    # Shapes differ from case to case, so compare without compiling each: plain NumPy.
    x = np.random.default_rng(seed).random((3, *model.input_shape))
    assert_same(numpy_forward(model, params, x), numpy_forward(model, small, x))
    again, kept_again = channels.remove_dead(small, model.chain)
    assert all(len(k) == len(kept_again[layer]) for layer, k in kept.items())
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(small), jax.tree.leaves(again), strict=True))


def numpy_forward(model, params, x):
    """The network in float64, from its definition."""
    for layer in model.chain:
        kernel, bias = (np.asarray(params[layer][leaf], np.float64) for leaf in ("kernel", "bias"))
        if kernel.ndim == 4:
            windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
            x = np.maximum(np.einsum("nhwcij,ijco->nhwo", windows, kernel, optimize=True) + bias, 0)
            h, w = x.shape[1] // 2, x.shape[2] // 2
            x = x[:, : 2 * h, : 2 * w].reshape(len(x), h, 2, w, 2, -1).max((2, 4))
        else:
            x = x.reshape(len(x), -1) @ kernel + bias
            x = x if layer == model.chain[-1] else np.maximum(x, 0)
    return x


@pytest.mark.parametrize("name", MODELS)
def test_the_numpy_network_is_the_network(name):
    model = MODELS[name]
    params = random_params(model, 1)
    x = np.random.default_rng(2).random((3, *model.input_shape)).astype(np.float32)
    np.testing.assert_allclose(model.apply(params, x), numpy_forward(model, params, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_removing_dead_units_changes_nothing_in_the_real_network(name):
    model = MODELS[name]
    params = random_params(model, 3, density=0.05)
    params = trees.update(params, {p: w + 0.2 for p, w in trees.leaves(params).items() if p.endswith("bias")})
    small, _ = channels.remove_dead(params, model.chain)
    assert sum(zoo.widths_of(name, small)) < sum(model.widths)
    assert_same(*outputs(model, params, small))


def random_keep(net, rng):
    """Loses some members of every group that has two, and keeps some."""
    keep = {}
    for group in net.groups:
        kept = rng.random(group.size) < 0.6
        first, last = rng.permutation(group.size)[[0, -1]]
        kept[last], kept[first] = False, True
        keep[group.name] = kept
    return keep


def assert_law(f, params, xs, net, keep):
    masked, small = net.mask(params, keep), net.shrink(params, keep).params
    replay = net.replay(keep)
    both = jax.jit(lambda m, s, *x: (f(m, *x), replay(s, *x)))  # one compilation instead of two
    for left, right in zip(*map(jax.tree.leaves, both(masked, small, *xs)), strict=True):
        assert np.linalg.norm(left) > 0
        assert np.linalg.norm(left - right) <= 1e-5 * np.linalg.norm(left)


@pytest.mark.parametrize("name", CASES)
def test_masked_equals_shrunk_for_every_construct(name):
    f, params, xs, _, _ = CASES[name]()
    net = channels.trace(f, params, *xs)
    keep = random_keep(net, np.random.default_rng(0))
    assert_law(f, params, xs, net, keep)
    assert bool(net.groups) == bool(net.shrink(params, keep).widths)


@pytest.mark.parametrize("seed", range(8))
def test_masked_equals_shrunk_for_random_programs(seed):
    f, params, xs = random_program(seed)
    net = channels.trace(f, params, *xs)
    assert_law(f, params, xs, net, random_keep(net, np.random.default_rng(seed)))
