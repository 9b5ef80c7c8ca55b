"""Calibration: exact ranges, percentiles and least errors of streams, and bad batches."""

import jax.numpy as jnp
import numpy as np
import pytest

from compressjax.quantizers import Codes, calibrate, least_error, min_max, observe, percentile


def stream(parts=4):
    x = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    x[7] = 40.0
    return x, [jnp.asarray(part) for part in np.array_split(x, parts)]


def error(x, step, codes):
    return np.mean((np.clip(np.round(x / step), codes.low, codes.high) * step - x) ** 2)


def test_a_stream_is_the_tensor_it_makes():
    x, parts = stream()
    seen = calibrate(lambda x: {"a": x}, parts)["a"]
    whole = observe(jnp.asarray(x))
    assert (float(seen.low), float(seen.high)) == (x.min(), x.max())
    np.testing.assert_array_equal(seen.count, whole.count)
    np.testing.assert_allclose(seen.total, whole.total, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("codes", [Codes(4), Codes(8), Codes(3, signed=False)])
def test_min_max_clips_nothing(codes):
    x, _ = stream(1)
    x = x if codes.signed else np.abs(x)
    step = float(min_max(observe(jnp.asarray(x)), codes))
    np.testing.assert_allclose(step, 40.0 / codes.high, rtol=1e-6)


def test_percentiles_are_those_of_numpy():
    x, _ = stream(1)
    seen = observe(jnp.asarray(x))
    for share in (0.9, 0.99, 0.999):
        step = float(percentile(seen, Codes(8), share))
        np.testing.assert_allclose(step * 127, np.quantile(np.abs(x), share), rtol=0.02)
    positive = percentile(seen, Codes(8, signed=False), 0.9)
    np.testing.assert_allclose(float(positive) * 255, np.quantile(np.maximum(x, 0), 0.9), rtol=0.02)
    np.testing.assert_allclose(percentile(seen, Codes(8), 1.0), min_max(seen, Codes(8)), rtol=1e-2)


@pytest.mark.parametrize("codes", [Codes(2), Codes(4), Codes(3, signed=False)])
def test_least_error_is_that_of_a_fine_grid_and_beats_the_other_rules(codes):
    x, _ = stream(1)
    seen = observe(jnp.asarray(x))
    step = float(least_error(seen, codes))
    grid = min(error(x, s, codes) for s in np.geomspace(0.02, 40.0, 2000))
    assert error(x, step, codes) <= grid * 1.002
    assert error(x, step, codes) < error(x, float(min_max(seen, codes)), codes)
    assert error(x, step, codes) <= error(x, float(percentile(seen, codes, 0.99)), codes) * 1.002


def test_zeros_have_the_step_one():
    seen = observe(jnp.zeros(5))
    assert [float(rule(seen, Codes(4))) for rule in (min_max, percentile, least_error)] == [1.0, 1.0, 1.0]
    assert float(min_max(observe(jnp.array([-3.0])), Codes(4, signed=False))) == 1.0
    assert float(min_max(observe(jnp.zeros(0)), Codes(4))) == 1.0


@pytest.mark.parametrize("fault", [np.nan, np.inf, -np.inf])
def test_a_bad_batch_is_named(fault):
    batches = [jnp.ones(3), jnp.array([1.0, fault, 2.0])]
    with pytest.raises(ValueError, match=r"'fc1' held NaN or infinity in batch 1"):
        calibrate(lambda x: {"fc1": x}, batches)


def test_no_batch_and_no_share_are_refused():
    with pytest.raises(ValueError, match="at least one batch"):
        calibrate(lambda x: {"fc1": x}, [])
    with pytest.raises(ValueError, match=r"share=0.0 must lie in \(0, 1\]"):
        percentile(observe(jnp.ones(3)), Codes(4), 0.0)
