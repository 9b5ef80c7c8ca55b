"""PBIL, the elitist wrapper and greedy search: each against what it claims to beat."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from evosax.algorithms import MR15_GA, PSO, SimpleGA
from evosax.core.fitness_shaping import centered_rank_fitness_shaping_fn

from compressjax.search import (
    PBIL,
    Category,
    Driver,
    Elitist,
    Float,
    Greedy,
    Int,
    Mask,
    Space,
    minimize,
    random_search,
    strategy,
)
from tests.search.searches import MIXED, SPHERE, mixed, run, sphere

PLACES = Space({"keep": Mask(10)})


def table(seed):
    """A loss for each of 2^10 masks: what each place is worth, what pairs share, and noise."""
    rng = np.random.default_rng(seed)
    masks = (np.arange(1024)[:, None] >> np.arange(10) & 1).astype(float)
    pairs = np.triu(rng.normal(scale=0.3, size=(10, 10)), 1)
    return masks @ rng.normal(size=10) + np.sum(masks @ pairs * masks, axis=1) + rng.normal(scale=0.1, size=1024)


def queries_to_the_top(algorithm, losses, seeds, generations):
    """Different masks looked up until one of the ten best of 1,024 is met, per seed."""
    values, threshold = jnp.asarray(losses, jnp.float32), np.sort(losses)[9]
    driver = Driver(PLACES, algorithm, lambda d, key: values[d["keep"] @ (1 << jnp.arange(10))])

    def once(seed):
        seen = set()
        for _, records in driver.run(driver.start(jax.random.key(seed)), generations):
            for record in records:
                seen.add(record.design["keep"].tobytes())
                if record.fitness[0] <= np.float32(threshold):
                    return len(seen)
        return 1024

    return [once(seed) for seed in seeds]


def test_pbil_finds_the_top_of_a_table_in_fewer_than_a_hundred_queries():
    pbil, random = strategy(PBIL, PLACES, 10), random_search(PLACES, 10)
    counts = {
        name: [n for i in range(3) for n in queries_to_the_top(algorithm, table(i), range(5), 40)]
        for name, algorithm in (("pbil", pbil), ("random", random))
    }
    assert np.median(counts["pbil"]) < 100
    assert np.mean(counts["pbil"]) < np.mean(counts["random"])


class TestPBIL:
    def test_one_step_by_hand(self):
        pbil = strategy(PBIL, Space({"keep": Mask(3)}), 4, elites=2)
        params = pbil.default_params._replace(rate=jnp.float32(0.5), negative=jnp.float32(0.2))
        state = pbil.init(jax.random.key(0), jnp.zeros(3), params)
        masks = jnp.array([[1.0, 1, -1], [-1, 1, -1], [1, 1, 1], [1, -1, 1]])
        state, _ = pbil.tell(jax.random.key(0), masks, jnp.array([3.0, 1.0, 0.0, 4.0]), state, params)
        # The elites are (1, 1, 1) and (-1, 1, -1), their mean (0, 1, 0); the worst differs from the best in place 1.
        np.testing.assert_allclose(state.mean, [0.0, 0.5 * 0.8 + 0.2, 0.0], atol=1e-6)
        assert np.array_equal(state.best_solution, [1, 1, 1])

    def test_failures_teach_nothing(self):
        pbil = strategy(PBIL, PLACES, 4, elites=4)
        state = pbil.init(jax.random.key(0), jnp.zeros(10), pbil.default_params)
        masks = jnp.concatenate([jnp.ones((1, 10)), -jnp.ones((3, 10))])
        fitness = jnp.array([0.0, jnp.nan, 1e30, jnp.inf])
        after, _ = pbil.tell(jax.random.key(0), masks, fitness, state, pbil.default_params)
        np.testing.assert_allclose(after.mean, 0.25, rtol=1e-6)
        none, _ = pbil.tell(jax.random.key(0), masks, jnp.full(4, 1e30), state, pbil.default_params)
        assert np.array_equal(none.mean, jnp.zeros(10))

    def test_no_place_is_decided_for_good(self):
        pbil = strategy(PBIL, PLACES, 64)
        driver = Driver(PLACES, pbil, lambda d, key: jnp.sum(d["keep"], axis=1) * 1.0)
        state, _ = run(driver, driver.start(jax.random.key(0)), 30)
        np.testing.assert_allclose(state.algorithm.mean, -0.96, atol=1e-6)

    def test_elites_must_be_members(self):
        with pytest.raises(ValueError, match=r"elites=9 must lie in 1\.\.8"):
            strategy(PBIL, PLACES, 8, elites=9)


class TestElitist:
    def small(self, wrap):
        ga = strategy(SimpleGA, SPHERE, 10, std_schedule=optax.constant_schedule(0.5))
        driver = Driver(SPHERE, wrap(ga), sphere)
        return run(driver, driver.start(jax.random.key(0)), 25)

    def test_the_population_never_gets_worse_and_beats_the_plain_one(self):
        state, records = self.small(Elitist)
        plain_state, plain_records = self.small(lambda ga: ga)
        best = np.minimum.accumulate([min(r.fitness[0] for r in records[10 * g : 10 * g + 10]) for g in range(25)])
        np.testing.assert_allclose(np.sort(state.algorithm.fitness)[0], best[-1], rtol=1e-6)
        worst = np.sort([r.fitness[0] for r in records])[9]
        np.testing.assert_allclose(np.max(state.algorithm.fitness), worst, rtol=1e-6)  # the ten best ever seen
        assert np.mean(state.algorithm.fitness) < np.mean(plain_state.algorithm.fitness)
        # The plain one did lose its best, so the wrapper is needed.
        assert np.min(plain_state.algorithm.fitness) > min(r.fitness[0] for r in plain_records)

    def test_what_cannot_be_wrapped(self):
        with pytest.raises(ValueError, match=r"PSO keeps population_best of the shape \(10, 4\)"):
            Elitist(strategy(PSO, SPHERE, 10))
        shaped = strategy(SimpleGA, SPHERE, 8, fitness_shaping_fn=centered_rank_fitness_shaping_fn)
        with pytest.raises(ValueError, match="shapes fitness"):
            Elitist(shaped)

    def test_other_strategies_keep_what_they_adapt(self):
        driver = Driver(SPHERE, Elitist(strategy(MR15_GA, SPHERE, 10)), sphere)
        state, _ = run(driver, driver.start(jax.random.key(0)), 5)
        assert float(state.algorithm.std) != 1.0


class TestGreedy:
    def test_every_move_of_a_mixed_space(self):
        space = Space({"x": Float(0.0, 1.0), "bits": Int(1, 4), "op": Category(("a", "b", "c")), "keep": Mask(2)})
        start = {"x": jnp.float32(0.5), "bits": jnp.int32(4), "op": jnp.int32(1), "keep": jnp.array([True, False])}
        greedy = Greedy(9, space)
        state = greedy.init(jax.random.key(0), space.encode(start), greedy.default_params)
        state = state.replace(fitness=jnp.float32(0.0))  # the start is known
        genomes, _ = greedy.ask(jax.random.key(0), state, greedy.default_params)
        found = space.decode(genomes)
        np.testing.assert_allclose(found["x"], [0.75, 0.25, *[0.5] * 7], atol=1e-6)
        assert found["bits"].tolist() == [4, 4, 4, 3, 4, 4, 4, 4, 4]
        assert found["op"].tolist() == [1, 1, 1, 1, 0, 1, 2, 1, 1]
        assert found["keep"].astype(int).tolist() == [[1, 0]] * 7 + [[0, 0], [1, 1]]

    def test_it_beats_random_search_on_a_smooth_loss(self):
        results = [
            minimize(Driver(MIXED, algorithm, mixed), jax.random.key(0), 12).fitness
            for algorithm in (Greedy(9, MIXED), random_search(MIXED, 9))
        ]
        assert results[0] < 0.5 * results[1]

    def test_steps_shrink_only_after_a_round_without_gain(self):
        driver = Driver(SPHERE, Greedy(8, SPHERE), sphere)
        state = driver.start(jax.random.key(0), {"x": jnp.zeros(4)})  # the optimum
        steps = []
        for after, _ in driver.run(state, 5):
            steps.append(float(after.algorithm.step))
        assert steps == [0.5, 0.25, 0.125, 0.0625, 0.03125]
        np.testing.assert_allclose(after.best_fitness, 0.0, atol=1e-12)
