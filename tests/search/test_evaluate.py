"""Evaluators: failures, the cache, keys, and batches of other sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax.search import FAILED, Evaluator
from compressjax.search._evaluate import rows, seeds_of

SEEDS = np.tile(np.asarray(jax.random.key_data(jax.random.key(3)))[None], (6, 1))
X = {"x": np.array([1.0, -2.0, 3.0, 1.0, 0.0, 3.0], np.float32)}


def counted(function):
    calls = []

    def host(design, key):
        calls.append(float(design["x"]))
        return function(design["x"])

    return host, calls


def test_failures_of_batches():
    values = jnp.array([1.0, jnp.nan, jnp.inf, -jnp.inf, 2e30, 3.0])
    found = Evaluator(lambda designs, key: values).run(X, SEEDS)
    assert found.failed.tolist() == [False, True, True, True, True, False]
    assert found.fitness[:, 0].tolist() == [1.0, *[float(np.float32(FAILED))] * 4, 3.0]
    assert np.isfinite(found.fitness.sum())


def test_listed_exceptions_are_failures_and_others_are_not():
    def host(design, key):
        if design["x"] == 3:
            raise MemoryError("too large")
        return design["x"]

    found = Evaluator(host, host=True, failures=(MemoryError,)).run(X, SEEDS)
    assert found.failed.tolist() == [False, False, True, False, False, True]
    with pytest.raises(MemoryError, match="too large"):
        Evaluator(host, host=True, failures=(ValueError,)).run(X, SEEDS)


def test_equal_designs_are_evaluated_once():
    host, calls = counted(lambda x: x * x)
    found = Evaluator(host, host=True).run(X, SEEDS)
    assert calls == [1.0, -2.0, 3.0, 0.0]
    assert found.cached.tolist() == [False, False, False, True, False, True]
    assert found.fitness[:, 0].tolist() == [1.0, 4.0, 9.0, 1.0, 0.0, 9.0]


@pytest.mark.parametrize("host", [True, False])
def test_the_cache_is_used_only_where_it_is_allowed(host):
    known = {(0, name): np.array([7.0], np.float32) for name in rows({"x": X["x"][:2]})}
    plain = (lambda d, key: d["x"] ** 2) if host else (lambda d, key: jnp.square(d["x"]))
    with_cache = Evaluator(plain, host=host, cache=True).run(X, SEEDS, known=known)
    assert with_cache.fitness[:, 0].tolist() == [7.0, 7.0, 9.0, 7.0, 0.0, 9.0]
    assert with_cache.cached.tolist() == [True, True, False, True, False, True]
    without = Evaluator(plain, host=host).run(X, SEEDS, known=known)
    assert without.fitness[:, 0].tolist() == [1.0, 4.0, 9.0, 1.0, 0.0, 9.0]
    other = Evaluator(plain, host=host, cache=True).run(X, SEEDS, known=known, fidelity=1)
    assert other.fitness[0] == 1.0


def test_batches_are_filled_up_so_that_few_sizes_are_compiled():
    sizes = []

    def batch(designs, key):
        sizes.append(len(designs["x"]))
        return designs["x"]

    evaluator = Evaluator(batch, cache=True)
    for count in range(1, 7):
        found = evaluator.run({"x": np.arange(count, dtype=np.float32)}, SEEDS[:count], size=6)
        assert found.fitness[:, 0].tolist() == list(range(count))
    assert set(sizes) == {6}
    known = {(0, name): np.array([0.0], np.float32) for name in rows({"x": X["x"][:1]})}
    evaluator.run({"x": X["x"][[0, 1, 2, 4]]}, SEEDS[:4], size=8, known=known)
    assert sizes[-1] == 4  # three misses


def test_keys_are_common_or_follow_the_design():
    def noise(designs, key):
        return jax.random.normal(key) + 0 * designs["x"] if key.ndim == 0 else jax.vmap(jax.random.normal)(key)

    key = jax.random.key(5)
    names = rows(X)
    common = Evaluator(noise).run(X, seeds_of(key, names, True)).fitness[:, 0]
    assert len(set(common.tolist())) == 1
    single = Evaluator(noise, common=False).run(X, seeds_of(key, names, False)).fitness[:, 0]
    assert single[0] == single[3]
    assert single[2] == single[5]
    assert len(set(single.tolist())) == 4
    order = [3, 1, 5, 4, 0, 2]
    shuffled = {"x": X["x"][order]}
    again = Evaluator(noise, common=False).run(shuffled, seeds_of(key, rows(shuffled), False)).fitness[:, 0]
    assert np.array_equal(again, single[order])
    host = Evaluator(lambda d, key: float(jax.random.normal(key)), host=True, common=False)
    np.testing.assert_allclose(host.run(X, seeds_of(key, names, False)).fitness[:, 0], single, rtol=1e-6)


def test_several_objectives():
    found = Evaluator(lambda d, key: jnp.stack([d["x"], jnp.where(d["x"] == 0, jnp.nan, 1.0)], axis=1)).run(
        X, SEEDS, objectives=2
    )
    assert found.fitness.shape == (6, 2)
    assert found.failed.tolist() == [False, False, False, False, True, False]
    assert np.all(found.fitness[4] == np.float32(FAILED))


@pytest.mark.parametrize(
    ("evaluator", "match"),
    [
        (Evaluator(lambda d, key: jnp.zeros(3)), r"shape \(3,\) for 6 designs: it must be one number per design"),
        (Evaluator(lambda d, key: jnp.zeros((6, 2))), "one number per design"),
        (Evaluator(lambda d, key: np.zeros(2), host=True), r"shape \(2,\) for one design"),
    ],
)
def test_wrong_shapes_are_refused(evaluator, match):
    with pytest.raises(ValueError, match=match):
        evaluator.run(X, SEEDS)
