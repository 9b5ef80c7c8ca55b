"""The MAP-Elites archive against a loop over candidates, and what may not enter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax.search import FAILED, elites_add, elites_start

EDGES = ([0.0, 1.0, 2.0, 4.0, 8.0], [0.0, 10.0, 20.0])


def loop(batches):
    """The archive by the definition: one candidate after the other."""
    out = {}
    for genomes, fitness, kinds in batches:
        for genome, value, (a, b) in zip(genomes, fitness, kinds, strict=True):
            if not (0 <= a <= 8 and 0 <= b <= 20 and np.isfinite(value) and value < FAILED):
                continue
            cell = (max(i for i in range(4) if EDGES[0][i] <= a), max(i for i in range(2) if EDGES[1][i] <= b))
            if cell not in out or value < out[cell][0]:
                out[cell] = (value, genome, (a, b))
    return out


def test_batches_are_as_one_candidate_after_the_other():
    rng = np.random.default_rng(0)
    batches = []
    for size in (1, 20, 20, 50):
        fitness = rng.integers(0, 6, size).astype(np.float32)  # with ties
        fitness[rng.random(size) < 0.2] = np.nan
        kinds = np.stack([rng.uniform(-1, 9, size), rng.uniform(-2, 22, size)], axis=1).astype(np.float32)
        batches.append((rng.normal(size=(size, 3)).astype(np.float32), fitness, kinds))
    elites = elites_start(3, EDGES)
    for i, batch in enumerate(batches):
        elites = elites_add(elites, *map(jnp.asarray, batch))
        expected = loop(batches[: i + 1])
        assert int(np.isfinite(elites.fitness).sum()) == len(expected)
        for (a, b), (value, genome, kind) in expected.items():
            cell = 2 * a + b
            assert float(elites.fitness[cell]) == value
            assert np.array_equal(elites.genomes[cell], genome)
            assert np.array_equal(elites.descriptors[cell], np.float32(kind))
    assert len(loop(batches)) >= 6


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, FAILED, 2 * FAILED])
def test_failures_never_enter(value):
    elites = elites_start(1, [[0.0, 1.0]])
    found = elites_add(elites, jnp.ones((1, 1)), jnp.array([value]), jnp.array([[0.5]]))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(elites), strict=True):
        assert np.array_equal(one, other, equal_nan=True)


@pytest.mark.parametrize("kind", [-0.1, 1.1, np.nan, np.inf])
def test_what_lies_outside_the_grid_does_not_enter(kind):
    found = elites_add(elites_start(1, [[0.0, 1.0]]), jnp.ones((1, 1)), jnp.zeros(1), jnp.array([[kind]]))
    assert np.isinf(found.fitness[0])


def test_the_ends_of_the_grid_belong_to_it():
    kinds = jnp.array([[0.0], [1.0], [2.0]])
    found = elites_add(elites_start(1, [[0.0, 1.0, 2.0]]), jnp.arange(3.0)[:, None], jnp.array([3.0, 2.0, 1.0]), kinds)
    assert found.fitness.tolist() == [3.0, 1.0]


@pytest.mark.parametrize("edges", [[], [[0.0]], [[1.0, 0.0]], [[0.0, np.inf]], [[[0.0, 1.0]]], [[1.0, 1 + 1e-12]]])
def test_bad_edges_are_refused(edges):
    with pytest.raises(ValueError, match="edges"):
        elites_start(2, edges)


@pytest.mark.parametrize("size, kinds", [(2, 1), (2, 3), (5, 2)])
def test_a_batch_that_does_not_fit_is_refused(size, kinds):
    with pytest.raises(ValueError, match=r"to this archive \(3, 2\), \(3,\) and \(3, 2\) can be added"):
        elites_add(elites_start(2, EDGES), jnp.zeros((3, size)), jnp.zeros(3), jnp.zeros((3, kinds)))


def test_nothing_may_be_added():
    elites = elites_start(2, EDGES)
    found = elites_add(elites, jnp.zeros((0, 2)), jnp.zeros(0), jnp.zeros((0, 2)))
    assert jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b, equal_nan=True), found, elites))
