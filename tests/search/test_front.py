"""Fronts: sorting and crowding against brute force, hypervolume by hand, NSGA-II against random search."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax.search import (
    FAILED,
    NSGA2,
    Driver,
    Float,
    Space,
    crowding_distances,
    front,
    hypervolume,
    non_dominated_ranks,
    random_search,
    strategy,
)
from tests.search.searches import plain, run


def brute_ranks(points):
    """Fronts peeled off one by one, straight from the definition."""
    left, ranks, number = set(range(len(points))), np.full(len(points), -1), 0
    while left:
        free = {
            j
            for j in left
            if not any(np.all(points[i] <= points[j]) and np.any(points[i] < points[j]) for i in left if i != j)
        }
        for j in free:
            ranks[j] = number
        left, number = left - free, number + 1
    return ranks


def brute_crowding(points, ranks):
    out = np.zeros(len(points))
    for rank in set(ranks.tolist()):
        members = np.flatnonzero(ranks == rank)
        for column in points.T:
            order = members[np.argsort(column[members], kind="stable")]
            extent = column[order[-1]] - column[order[0]]
            out[order[0]] = out[order[-1]] = np.inf
            for before, i, after in zip(order, order[1:], order[2:], strict=False):
                out[i] += (column[after] - column[before]) / (extent or 1.0)
    return out


@pytest.mark.parametrize(("count", "objectives", "levels"), [(30, 2, 5), (40, 3, 0), (25, 4, 3), (1, 2, 0)])
def test_sorting_and_crowding_are_those_of_the_definition(count, objectives, levels):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        points = rng.integers(0, levels, (count, objectives)) if levels else rng.normal(size=(count, objectives))
        points = points.astype(np.float32)
        ranks = non_dominated_ranks(jnp.asarray(points))
        assert np.array_equal(ranks, brute_ranks(points))
        assert np.array_equal(front(jnp.asarray(points)), brute_ranks(points) == 0)
        if not levels:  # among equal points the order, and with it the distance, is a matter of taste
            crowding = crowding_distances(jnp.asarray(points), ranks)
            np.testing.assert_allclose(crowding, brute_crowding(points, np.asarray(ranks)), rtol=1e-5)


def test_failures_are_last_and_never_on_the_front():
    points = jnp.array([[jnp.nan, -5.0], [3.0, 3.0], [-jnp.inf, 0.0], [FAILED, FAILED], [4.0, 4.0]])
    ranks = non_dominated_ranks(points)
    assert ranks.tolist() == [2, 0, 2, 2, 1]
    assert front(points).tolist() == [False, True, False, False, False]
    assert not front(points[:1]).any()
    assert not np.isnan(crowding_distances(points, ranks)).any()
    assert crowding_distances(points, ranks)[0] == 0


def test_hypervolume_is_the_area_of_the_union():
    rng = np.random.default_rng(1)
    points = rng.integers(0, 10, (12, 2)).astype(float)
    cells = itertools.product(range(10), range(10))
    area = sum(any(p[0] <= x and p[1] <= y for p in points) for x, y in cells)
    assert hypervolume(points, (10.0, 10.0)) == area
    assert hypervolume(np.vstack([points, [[np.nan, 0.0], [-np.inf, 0.0], [11.0, -1.0]]]), (10.0, 10.0)) == area
    assert hypervolume(np.zeros((0, 2)), (1.0, 1.0)) == 0.0
    with pytest.raises(ValueError, match="must be \\(members, 2\\)"):
        hypervolume(np.zeros((3, 3)), (1.0, 1.0))


ZDT = Space({"x": Float(0.0, 1.0, size=10)})


def zdt1(designs, key):
    x = designs["x"]
    g = 1 + jnp.mean(x[:, 1:], axis=1) * 9
    return jnp.stack([x[:, 0], g * (1 - jnp.sqrt(x[:, 0] / g))], axis=1)


def test_nsga2_beats_random_search_on_zdt1_at_equal_evaluations():
    """Exact front: f2 = 1 - sqrt(f1), of hypervolume 1.1^2 - 1/3 below (1.1, 1.1)."""
    driver = Driver(ZDT, strategy(NSGA2, ZDT, 40), zdt1)
    state, records = run(driver, driver.start(jax.random.key(0)), 60)
    found = hypervolume(state.algorithm.fitness, (1.1, 1.1))
    designs = ZDT.decode(ZDT.sample(jax.random.key(1), len(records)))
    random = hypervolume(zdt1(designs, None), (1.1, 1.1))
    assert len(records) == 2400
    assert random < 0.3
    assert 0.75 < found <= 1.21 - 1 / 3
    # Elitist: a point that was ever on the front is still there, or dominated, or crowded out by as many others.
    assert front(state.algorithm.fitness).all()
    assert np.isinf(state.best_fitness)


def test_nsga2_resumes_and_keeps_failures_out():
    def loss(designs, key):
        values = zdt1(designs, key)
        return jnp.where(values[:, :1] < 0.3, jnp.nan, values)

    driver = Driver(ZDT, strategy(NSGA2, ZDT, 9), loss)  # an odd population
    end, records = run(driver, driver.start(jax.random.key(0)), 8)
    half, _ = run(driver, driver.start(jax.random.key(0)), 4)
    assert plain(run(driver, half, 4)[1]) == plain(records[36:])
    assert any(r.failed for r in records)
    assert float(end.algorithm.fitness[:, 0].min()) >= 0.3
    assert float(end.algorithm.fitness.max()) < FAILED


def test_one_objective_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        strategy(NSGA2, ZDT, 8, objectives=1)


def test_random_search_cannot_take_two_objectives():
    driver = Driver(ZDT, random_search(ZDT, 8), zdt1)
    with pytest.raises(ValueError, match="one number per design"):
        run(driver, driver.start(jax.random.key(0)), 1)
