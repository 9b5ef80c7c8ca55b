"""Rescaling keeps the function; equalizing makes quantization hurt less, without data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import channels, projections, trees, zoo
from compressjax.quantizers import Codebook, Levels, PowerOfTwo

MODELS = {
    "lenet5": zoo.build("lenet5", widths=(4, 5, 7), input_shape=(18, 16, 2), classes=3),
    "lenet300": zoo.build("lenet300", widths=(9, 6), input_shape=(3, 4, 1), classes=3),
}


def uneven(model, seed=0):
    """A random network, half of its weights zero, whose units differ in scale by two orders of magnitude."""
    rng = np.random.default_rng(seed)
    params = jax.jit(model.init)(jax.random.key(seed))
    params = jax.tree.map(lambda w: jnp.asarray(w * (rng.random(w.shape) < 0.5) + 0.1 * (w.ndim == 1)), params)
    factors = {
        layer: jnp.asarray(np.exp(rng.uniform(-2, 2, width)), jnp.float32)
        for layer, width in zip(model.chain, model.widths, strict=False)
    }
    return channels.rescale(params, model.chain, factors)


def outputs(model, params):
    return np.asarray(model.apply(params, jax.random.uniform(jax.random.key(7), (16, *model.input_shape))))


def relative_error(original, scaled, rules):
    """What `equalize` minimises: over kernels, the relative squared error of quantization in the original scale."""
    total, snapped = 0.0, trees.leaves(projections.project(rules, scaled))
    for path, before in trees.leaves(original).items():
        if path.endswith("kernel"):
            after = trees.leaves(scaled)[path]
            ratio = jnp.where(before == 0, 1.0, after / jnp.where(before == 0, 1.0, before))
            total += float(jnp.sum(((snapped[path] - after) / ratio) ** 2) / jnp.sum(before**2))
    return total


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_rescale_keeps_function_and_zeros_and_is_undone_by_the_inverse(name):
    model = MODELS[name]
    params = uneven(model)
    factors = {layer: jnp.linspace(0.25, 4.0, width) for layer, width in zip(model.chain, model.widths, strict=False)}
    scaled = channels.rescale(params, model.chain, factors)
    np.testing.assert_allclose(outputs(model, scaled), outputs(model, params), rtol=1e-4, atol=1e-5)
    back = channels.rescale(scaled, model.chain, {layer: 1 / factor for layer, factor in factors.items()})
    for path, leaf in trees.leaves(params).items():
        np.testing.assert_array_equal(trees.leaves(scaled)[path] == 0, leaf == 0)
        np.testing.assert_allclose(trees.leaves(back)[path], leaf, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "quantizer"),
    [pytest.param("lenet5", Codebook(2), marks=pytest.mark.slow), ("lenet300", Levels(2)), ("lenet300", PowerOfTwo(2))],
    ids=str,
)
def test_equalize_keeps_the_function_and_quantization_hurts_less(name, quantizer):
    model, rules = MODELS[name], {"*/kernel": quantizer}
    params = uneven(model)
    equal = channels.equalize(params, model.chain, rules)
    before, after = outputs(model, params), outputs(model, equal)
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-4)

    def lost(p):
        return np.linalg.norm(outputs(model, projections.project(rules, p)) - before)

    assert relative_error(params, equal, rules) < 0.8 * relative_error(params, params, rules)
    assert lost(equal) < lost(params)


def test_layers_without_a_rule_do_not_count():
    params = {"a": {"kernel": jnp.array([[1.0, 4.0]])}, "b": {"kernel": jnp.array([[6.0], [1.5]])}}
    equal = channels.equalize(params, ("a", "b"), {"a/kernel": Levels(1)})
    np.testing.assert_allclose(jnp.ptp(equal["a"]["kernel"]), 0, atol=0.05)


def test_already_perfect_weights_stay():
    params = {"a": {"kernel": jnp.array([[2.0, -2.0]])}, "b": {"kernel": jnp.array([[3.0], [0.0]])}}
    equal = channels.equalize(params, ("a", "b"), {"*": Levels(1)})
    for path, leaf in trees.leaves(params).items():
        np.testing.assert_array_equal(trees.leaves(equal)[path], leaf)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"c": jnp.ones(1)}, "no hidden layer"),
        ({"b": jnp.ones(1)}, "no hidden layer"),
        ({"a": jnp.ones(3)}, "shape"),
        ({"a": jnp.array([1.0, 0.0])}, "positive"),
        ({"a": jnp.array([1.0, jnp.inf])}, "positive and finite"),
    ],
)
def test_bad_factors_are_refused(factors, message):
    params = {"a": {"kernel": jnp.ones((1, 2))}, "b": {"kernel": jnp.ones((2, 1))}}
    with pytest.raises(ValueError, match=message):
        channels.rescale(params, ("a", "b"), factors)


def test_rules_outside_the_chain_are_refused():
    params = {"a": {"kernel": jnp.ones((1, 2)), "bias": jnp.ones(2)}, "b": {"kernel": jnp.ones((2, 1))}}
    with pytest.raises(ValueError, match=r"a/bias.*no kernel of the chain"):
        channels.equalize(params, ("a", "b"), {"*": Levels(2)})
    with pytest.raises(ValueError, match="c/kernel"):
        channels.equalize(params, ("a", "b"), {"c/kernel": Levels(2)})
