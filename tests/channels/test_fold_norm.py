"""Batch normalization folded into the layer before it computes the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import trees, zoo
from compressjax.channels import fold_norm, fold_norms

NORM = {
    "scale": jnp.array([2.0, -0.5]),
    "bias": jnp.array([1.0, 0.0]),
    "mean": jnp.array([0.5, 3.0]),
    "var": jnp.array([4.0, 1e-4]),
}


@pytest.mark.parametrize("bias", [True, False])
def test_a_dense_layer_and_its_norm(bias):
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)), jnp.float32)
    layer = {"kernel": kernel, **({"bias": jnp.array([0.3, -0.7])} if bias else {})}
    x = jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)), jnp.float32)
    before = x @ kernel + layer.get("bias", jnp.zeros(2))[None]
    factor = NORM["scale"] / jnp.sqrt(NORM["var"] + 1e-5)
    expected = (before - NORM["mean"][None]) * factor[None] + NORM["bias"][None]
    folded = fold_norm(layer, NORM)
    np.testing.assert_allclose(x @ folded["kernel"] + folded["bias"][None], expected, rtol=1e-5, atol=1e-5)


def test_a_network_keeps_its_function_and_its_structure():
    model = zoo.build("resnet20", widths=(2, 3), blocks=(1,), input_shape=(4, 4, 3))
    params = model.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    noisy = {path: leaf for path, leaf in trees.leaves(params).items() if "norm" in path}
    params = trees.update(
        params, {path: jnp.asarray(rng.uniform(0.5, 2.0, leaf.shape), jnp.float32) for path, leaf in noisy.items()}
    )
    layers = sorted(path.removesuffix("/kernel") for path in trees.leaves(params) if "conv" in path)
    pairs = {layer: layer.replace("conv", "norm") for layer in layers}
    folded = fold_norms(params, pairs)
    assert trees.shapes(folded) == trees.shapes(params)
    for norm in pairs.values():
        np.testing.assert_array_equal(trees.leaves(folded)[f"{norm}/mean"], 0.0)
    x = jax.random.uniform(jax.random.key(1), (2, 4, 4, 3))
    apply = jax.jit(model.apply)
    np.testing.assert_allclose(apply(folded, x), apply(params, x), rtol=1e-5, atol=1e-5)


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(ValueError, match="scale has shape \\(2,\\), the layer 3 outputs"):
        fold_norm({"kernel": jnp.ones((4, 3))}, NORM)
    with pytest.raises(ValueError, match="the norm has no 'scale'"):
        fold_norm({"kernel": jnp.ones((4, 2))}, {"bias": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"fc and nowhere: .*the norm has no 'scale'"):
        fold_norms({"fc": {"kernel": jnp.ones((4, 2))}}, {"fc": "nowhere"})
    shared = {"a": {"kernel": jnp.ones((4, 2))}, "b": {"kernel": jnp.ones((4, 2))}, "norm": NORM}
    with pytest.raises(ValueError, match="b and norm: another layer is folded"):
        fold_norms(shared, {"a": "norm", "b": "norm"})
