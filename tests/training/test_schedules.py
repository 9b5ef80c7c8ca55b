"""Schedules: the values at the corners, under jit, and inside optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compressjax.training import coarse, geometric, half_cosine, staged


def test_half_cosine():
    rho = half_cosine(0.1, 0.3, 8)
    np.testing.assert_allclose(
        [rho(t) for t in (0, 2, 4, 8, 9)], [0.1, 0.1 + 0.2 * (1 - 0.5**0.5) / 2, 0.2, 0.3, 0.3], rtol=1e-6
    )


def test_geometric_is_the_multi_rho_of_the_public_code():
    rho = geometric(1e-3, 1.3, 100, last=2e-3)
    np.testing.assert_allclose([rho(t) for t in (0, 99, 100, 299, 300)], [1e-3, 1e-3, 1.3e-3, 1.69e-3, 2e-3], rtol=1e-6)


def test_staged():
    rho = staged([1.0, 3.0, 10.0], [5, 7])
    assert [float(rho(t)) for t in (0, 4, 5, 6, 7, 100)] == [1.0, 1.0, 3.0, 3.0, 10.0, 10.0]
    assert float(staged([2.0], [])(3)) == 2.0


def test_the_published_defaults():
    settings = coarse()
    assert (settings.every, settings.steps) == (8000, 160_000)
    np.testing.assert_allclose(settings.rho(100_000), 7e-3)
    rates = [settings.learning_rate(t) for t in (0, 1999, 2000, 7999, 8000, 10_000)]
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 1e-4, 1e-4, 1e-3, 1e-4], rtol=1e-6)


def test_a_drop_at_each_third():
    rate = coarse(steps_per_iteration=9, decay_at=(1 / 3, 2 / 3), learning_rate=1.0).learning_rate
    np.testing.assert_allclose([rate(t) for t in range(10)], [1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 1], rtol=1e-6)


@pytest.mark.parametrize(
    "schedule", [half_cosine(0.0, 1.0, 5), geometric(1.0, 2.0, 2), staged([1.0, 2.0], [3]), coarse().learning_rate]
)
def test_traced_counts_and_vmap(schedule):
    counts = jnp.arange(8)
    expected = [schedule(int(t)) for t in counts]
    np.testing.assert_allclose(jax.jit(jax.vmap(schedule))(counts), expected, rtol=1e-6)
    optax.sgd(schedule).init({"w": jnp.ones(1)})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: half_cosine(0.0, 1.0, 0), "steps=0"),
        (lambda: geometric(0.0, 1.3, 1), "must be positive"),
        (lambda: geometric(1.0, 1.3, 0), "every=0"),
        (lambda: staged([1.0], [3]), "1 values need 0 boundaries"),
        (lambda: staged([1.0, 2.0, 3.0], [4, 4]), "must grow"),
        (lambda: coarse(iterations=0), "iterations=0"),
        (lambda: coarse(decay_at=(2000.0,)), "fractions of an iteration"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()
