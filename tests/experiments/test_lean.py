"""Lean quantization: few levels for biases, short scales, the same weights, a smaller file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import storage, trees, zoo
from experiments import phases
from experiments.schema import Quantize

MODEL = zoo.build("lenet300", widths=(12, 8), input_shape=(4, 4, 1))


def finished(lean):
    """Random sparse parameters after the last phase of a quantization to four levels."""
    quantize = Quantize(stage=0, bits={"*/kernel": 2}, quantizer="levels", lean=lean)
    rng = np.random.default_rng(0)

    def sparse(leaf):
        kept = rng.random(leaf.shape) < (0.3 if leaf.ndim > 1 else 1.0)
        return jnp.asarray(np.where(kept, rng.normal(size=leaf.shape), 0), jnp.float32)

    params = jax.tree.map(sparse, jax.eval_shape(MODEL.init, jax.random.key(0)))
    *_, last = phases._quantize_phases(quantize, MODEL, lambda _: params)
    return storage.positive_zeros(last.end(params))


@pytest.mark.slow
def test_lean_is_smaller_and_changes_weights_by_their_scale_only():
    files = {lean: finished(lean) for lean in (False, True)}
    plain, lean = (trees.leaves(params) for params in files.values())
    for path, leaf in lean.items():
        steps = np.abs(leaf[leaf != 0]).min()
        codes = leaf / steps
        assert np.array_equal(codes, np.rint(codes))
        fraction = np.frexp(steps)[0] * 32
        assert fraction == np.rint(fraction)
        if path.endswith("kernel"):
            np.testing.assert_allclose(leaf, plain[path], rtol=0.033)
        else:
            assert np.abs(codes).max() <= phases.LEAN_STEPS
    assert len(storage.encode(files[True])) < 0.9 * len(storage.encode(files[False]))


@pytest.mark.parametrize("scale", [0.3, 1e-6, 5.0])
def test_short_scales(scale):
    x = np.float32(scale) * np.array([1, -3, 0, 2], np.float32)
    np.testing.assert_allclose(phases.short_scale(x), x, rtol=2**-5)
    np.testing.assert_array_equal(phases.short_scale(np.zeros(3, np.float32)), np.zeros(3))
