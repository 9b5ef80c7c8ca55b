"""Streamed statistics: against float64, and what they say about data that are too few."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import oneshot
from tests.oneshot.problems import correlated, exact_error, layer


def test_batches_add_up_to_the_whole_in_float64():
    x = correlated(4096, 24)
    seen = oneshot.start(24)
    for part in np.split(x, 64):
        seen = oneshot.add(seen, jnp.asarray(part).reshape(8, 8, 24))
    exact = x.astype(np.float64).T @ x
    assert int(seen.rows) == 4096
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    assert np.max(np.abs(seen.hessian - exact) / scale) < 1e-6


def test_narrow_activations_are_widened_before_they_are_squared():
    x = jnp.asarray(correlated(64, 4), jnp.bfloat16)
    seen = oneshot.add(oneshot.start(4), x)
    np.testing.assert_allclose(seen.hessian, np.asarray(x, np.float64).T @ np.asarray(x, np.float64), rtol=1e-5)
    assert seen.hessian.dtype == jnp.float32


def test_adding_runs_inside_other_programs():
    x = jnp.asarray(correlated(12, 3)).reshape(4, 3, 3)
    seen, _ = jax.lax.scan(lambda seen, part: (oneshot.add(seen, part), None), oneshot.start(3), x)
    np.testing.assert_allclose(seen.hessian, oneshot.add(oneshot.start(3), x).hessian, rtol=1e-5)
    assert int(seen.rows) == 12


def test_the_output_error_is_that_of_the_outputs():
    w, seen, x = layer(10, 4)
    found = w.at[3].set(0.0)
    np.testing.assert_allclose(oneshot.output_error(found, w, seen), exact_error(found, w, x), rtol=1e-5)
    assert float(oneshot.output_error(w, w, seen)) == 0.0
    nothing = jnp.zeros_like(w)
    assert float(oneshot.output_error(nothing, nothing, seen)) == 0.0
    assert float(oneshot.output_error(w, nothing, seen)) == np.inf


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (correlated(64, 6), ""),
        (correlated(5, 6), "only 5 rows for 6 inputs"),
        (correlated(64, 6) * np.array([1, 0, 1, 1, 0, 1]), "2 of 6 inputs are always zero"),
        (correlated(64, 6)[:, [0, 1, 2, 3, 4, 0]], "some inputs are linear combinations"),
    ],
)
def test_what_the_data_leave_open_is_said(x, words):
    seen = oneshot.add(oneshot.start(6), jnp.asarray(x, jnp.float32))
    assert oneshot.shortage(seen).startswith(words)
    assert bool(oneshot.shortage(seen)) == bool(words)


def test_bad_input():
    with pytest.raises(ValueError, match="without inputs"):
        oneshot.start(0)
    with pytest.raises(ValueError, match=r"shape \(2, 4\) do not fit a layer of 3 inputs"):
        oneshot.add(oneshot.start(3), jnp.ones((2, 4)))
