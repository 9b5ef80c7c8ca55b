"""The driver: every strategy improves, resumes bit for bit, keeps failures out, halves, repairs, shares its noise."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from evosax.algorithms import CMA_ES, SNES, DifferentialEvolution, Open_ES, SimpleGA

from compressjax.search import (
    FAILED,
    NSGA2,
    Category,
    Driver,
    Evaluator,
    Float,
    Int,
    Mask,
    Space,
    from_json,
    minimize,
    strategy,
    to_budget,
    to_json,
)
from tests.search.searches import MIXED, PLACES, SPHERE, STRATEGIES, mixed, places, plain, run, sphere

SLOW = ("Open_ES", "PSO", "DifferentialEvolution", "random")  # `make slow` has all


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in STRATEGIES]
)
def test_every_strategy_improves_and_resumes_bit_for_bit(name, tmp_path):
    """One registry for both laws: what is saved after a generation and restored continues as if uninterrupted."""
    others = {"PBIL": (PLACES, places), "Greedy": (MIXED, mixed), "PSO": (MIXED, mixed)}
    space, loss = others.get(name, (SPHERE, sphere))
    make = STRATEGIES[name]
    algorithm = make(space, 12)
    driver = Driver(space, algorithm, loss)
    end, records = run(driver, driver.start(jax.random.key(4)), 10)
    assert [(r.generation, r.index) for r in records] == [(g, i) for g in range(10) for i in range(12)]
    first = min(r.fitness for r in records[:12])[0]
    assert float(end.best_fitness) == min(r.fitness for r in records)[0] <= first
    if name not in ("random", "Open_ES"):  # which promise progress of the mean, or none, and not within ten generations
        assert float(end.best_fitness) < 0.5 * first

    half, _ = run(driver, driver.start(jax.random.key(4)), 5)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", half)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state", jax.eval_shape(lambda: half))
    again = Driver(space, algorithm, loss)
    state, rest = run(again, restored, 5)
    assert plain(rest) == plain(records[60:])
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(end), strict=True):
        assert np.array_equal(one, other, equal_nan=True)


def test_the_same_key_gives_the_same_search_and_another_key_another():
    found = [
        plain(run(driver, driver.start(jax.random.key(seed)), 3)[1])
        for driver in [Driver(SPHERE, STRATEGIES["SNES"](SPHERE, 8), sphere)]
        for seed in (0, 0, 1)
    ]
    assert found[0] == found[1] != found[2]


def test_a_resumed_search_knows_what_was_cached():
    calls = []

    def host(design, key):
        calls.append(design["keep"].tobytes())
        return float(design["keep"].sum())

    space = Space({"keep": Mask(4)})
    driver = Driver(space, STRATEGIES["PBIL"](space, 8), Evaluator(host, host=True, cache=True))
    start = driver.start(jax.random.key(0))
    end, records = run(driver, start, 6)
    assert len(calls) == len(set(calls)) == int(end.evaluations) == sum(not r.cached for r in records) <= 16
    half, before = run(driver, start, 3)
    history = [from_json(to_json(record), space) for record in before]
    state, rest = run(driver, half, 3, history)
    assert plain(rest) == plain(records[24:])
    assert int(state.evaluations) == int(end.evaluations)
    # Without history the same is found, only computed again.
    _, blind = run(driver, half, 3)
    assert [r.fitness for r in blind] == [r.fitness for r in rest]
    assert sum(r.cached for r in blind) < sum(r.cached for r in rest)


@pytest.mark.parametrize("name", STRATEGIES)
def test_failures_never_enter_an_archive(name):
    """What fails looks best: not-a-number, minus infinity and an error, each where the loss would be smallest."""

    def loss(designs, key):
        x = designs["x"][:, 0]
        return jnp.select([x < -1.5, x < -1.0, x < -0.5], [jnp.nan, -jnp.inf, jnp.inf], x)

    driver = Driver(SPHERE, STRATEGIES[name](SPHERE, 12), loss)
    state, records = run(driver, driver.start(jax.random.key(1)), 8)
    assert any(record.failed for record in records)
    for record in records:
        assert record.failed == bool(record.design["x"][0] < -0.5)
        assert (record.fitness[0] >= FAILED * 0.999) == record.failed
    assert -0.5 <= float(state.best_fitness) <= 1.0
    assert float(driver.design(state.best_genome)["x"][0]) == float(state.best_fitness)
    assert float(state.algorithm.best_fitness) >= -0.5
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state.algorithm))


def test_a_search_in_which_all_fail_says_so_and_keeps_nothing():
    driver = Driver(SPHERE, STRATEGIES["SNES"](SPHERE, 6), lambda d, key: d["x"][:, 0] * jnp.nan)
    state, _ = run(driver, driver.start(jax.random.key(0)), 2)
    assert np.isinf(state.best_fitness)
    assert np.isinf(state.algorithm.best_fitness)
    assert np.all(np.isnan(state.algorithm.best_solution))
    with pytest.raises(ValueError, match="All 12 candidates failed"):
        minimize(driver, jax.random.key(0), 2)


def test_noise_is_common_within_a_generation_only():
    def noise(designs, key):
        return jax.random.normal(key) + 0 * designs["x"][:, 0]

    driver = Driver(SPHERE, STRATEGIES["SNES"](SPHERE, 6), noise)
    _, records = run(driver, driver.start(jax.random.key(0)), 3)
    values = [{r.fitness for r in records if r.generation == g} for g in range(3)]
    assert [len(found) for found in values] == [1, 1, 1]
    assert len(set.union(*values)) == 3
    key = jax.random.wrap_key_data(jnp.array(records[7].seed, jnp.uint32))
    np.testing.assert_allclose(float(jax.random.normal(key)), records[7].fitness[0], rtol=1e-6)


class TestFidelities:
    def driver(self, **kwargs):
        cheap = Evaluator(lambda d, key: jnp.abs(d["x"][:, 0] + 0.5))
        dear = Evaluator(lambda d, key: 10 + sphere(d, key))
        return Driver(
            SPHERE, STRATEGIES["DifferentialEvolution"](SPHERE, 8), [cheap, cheap, dear], survivors=(4, 2), **kwargs
        )

    def test_halving(self):
        driver = self.driver()
        state, records = run(driver, driver.start(jax.random.key(0)), 4)
        assert int(state.evaluations) == 4 * (8 + 4 + 2)
        for g in range(4):
            members = [r for r in records if r.generation == g]
            assert sorted(r.fidelity for r in members) == [0, 0, 0, 0, 1, 1, 2, 2]
            order = sorted(members, key=lambda r: r.trail[0])
            assert {r.index for r in order[:4]} == {r.index for r in members if r.fidelity >= 1}
            assert {r.index for r in order[:2]} == {r.index for r in members if r.fidelity == 2}
            told = sorted(members, key=lambda r: (r.told, -r.fidelity))
            assert [r.fidelity for r in told][:2] == [2, 2]
            assert max(r.told for r in members if r.fidelity == 2) <= min(r.told for r in members if r.fidelity < 2)
            assert max(r.told for r in members if r.fidelity == 1) <= min(r.told for r in members if r.fidelity < 1)
        assert float(state.best_fitness) == min(r.fitness for r in records if r.fidelity == 2)[0] >= 10

    def test_failures_do_not_go_on_and_do_not_drag_others_down(self):
        first = Evaluator(lambda d, key: jnp.where(jnp.arange(8) < 5, jnp.nan, d["x"][:, 0]))
        second = Evaluator(lambda d, key: jnp.where(jnp.arange(len(d["x"])) == 0, jnp.nan, d["x"][:, 0]))
        driver = Driver(SPHERE, STRATEGIES["SNES"](SPHERE, 8), [first, second], survivors=(4,))
        _, records = run(driver, driver.start(jax.random.key(0)), 1)
        assert [r.fidelity for r in records] == [0] * 5 + [1] * 3
        assert [r.failed for r in records] == [True] * 6 + [False] * 2

    def test_a_penalty_does_not_put_a_dropped_candidate_before_one_that_went_on(self):
        driver = Driver(
            SPHERE,
            STRATEGIES["SNES"](SPHERE, 8),
            [lambda d, key: jnp.sum(d["x"], axis=1), sphere],
            repair=lambda d: {"x": jnp.minimum(d["x"], 0.0)},
            penalty=10.0,
            survivors=(4,),
        )
        _, records = run(driver, driver.start(jax.random.key(0)), 4)
        for members in (records[i : i + 8] for i in range(0, 32, 8)):
            assert max(r.told for r in members if r.fidelity == 1) <= min(r.told for r in members if r.fidelity == 0)

    def test_a_dropped_candidate_never_becomes_the_best(self):
        cheap = Evaluator(lambda d, key: -100 + sphere(d, key))
        driver = Driver(SPHERE, STRATEGIES["SNES"](SPHERE, 8), [cheap, Evaluator(sphere)], survivors=(2,))
        assert minimize(driver, jax.random.key(0), 3).fitness >= 0


class TestRepair:
    def cost(self, design):
        return jnp.sum(design["x"])

    def driver(self, algorithm="CMA_ES", **kwargs):
        space = Space({"x": Float(0.0, 1.0, size=4)})
        repair = to_budget(space, self.cost, 1.0)
        return Driver(
            space,
            STRATEGIES[algorithm](space, 10),
            lambda d, key: jnp.sum(jnp.square(d["x"] - jnp.array([[0.9, 0.0, 0.0, 0.6]])), axis=1),
            repair=repair,
            cost=self.cost,
            **kwargs,
        )

    @pytest.mark.parametrize("lamarckian", [False, True])
    @pytest.mark.parametrize("name", ["CMA_ES", "DifferentialEvolution"])
    def test_designs_fit_the_budget_and_the_optimum_on_it_is_found(self, name, lamarckian):
        driver = self.driver(name, lamarckian=lamarckian)
        state, records = run(driver, driver.start(jax.random.key(0)), 40)
        assert max(r.cost for r in records) <= 1.0 + 1e-5
        # The optimum is the projection onto sum = 1, (0.65, 0, 0, 0.35).  What is written back is not what the
        # covariance asked for, so that CMA-ES comes less near.
        slack = 0.2 if lamarckian and name == "CMA_ES" else 0.05
        assert 0.125 - 1e-5 <= float(state.best_fitness) < 0.125 * (1 + slack)

    def test_baldwinian_tells_a_penalty_and_lamarckian_none(self):
        for lamarckian in (False, True):
            driver = self.driver(lamarckian=lamarckian, penalty=0.5)
            _, records = run(driver, driver.start(jax.random.key(0)), 1)
            for r in records:
                decoded = driver.space.decode(jnp.asarray(r.genome))
                gap = driver.space.encode(decoded) - driver.space.encode(r.design)
                expected = 0.0 if lamarckian else 0.5 * float(jnp.mean(jnp.square(gap)))
                np.testing.assert_allclose(r.told[0] - r.fitness[0], expected, atol=1e-6)

    def test_lamarckian_writes_back_what_was_repaired_only(self):
        driver = self.driver("DifferentialEvolution", lamarckian=True)
        state, records = run(driver, driver.start(jax.random.key(0)), 1)
        population = np.asarray(state.algorithm.population)
        repaired = 0
        for i, r in enumerate(records):
            decoded = driver.space.decode(jnp.asarray(r.genome))
            if float(self.cost(decoded)) <= 1.0:
                assert np.array_equal(population[i], r.genome)
            else:
                repaired += 1
                np.testing.assert_allclose(
                    driver.space.decode(jnp.asarray(population[i]))["x"], r.design["x"], atol=1e-6
                )
                assert not np.array_equal(population[i], r.genome)
        assert repaired


def test_an_initial_design_is_the_mean_or_the_first_member():
    design = {"x": jnp.array([-1.0, 0.5, 0.0, -2.0])}
    for name in ("SNES", "DifferentialEvolution"):
        driver = Driver(SPHERE, STRATEGIES[name](SPHERE, 6), sphere)
        state = driver.start(jax.random.key(0), design)
        genome = state.algorithm.mean if name == "SNES" else state.algorithm.population[0]
        np.testing.assert_allclose(SPHERE.decode(genome)["x"], design["x"], atol=1e-6)


def test_a_strategy_that_diverges_is_reported():
    algorithm = STRATEGIES["SNES"](SPHERE, 6)
    driver = Driver(SPHERE, algorithm, sphere, params=algorithm.default_params.replace(std_init=jnp.inf))
    with pytest.raises(ValueError, match="not finite in generation 0"):
        run(driver, driver.start(jax.random.key(0)), 1)


def test_a_strategy_is_compiled_once():
    algorithm = STRATEGIES["SNES"](SPHERE, 6)
    driver = Driver(SPHERE, algorithm, sphere)
    traced = []
    ask = algorithm._ask
    algorithm._ask = lambda *args: traced.append(1) or ask(*args)
    run(driver, driver.start(jax.random.key(0)), 5)
    assert len(traced) <= 2  # the first state may have weaker types than the next


def make(space=SPHERE, kind=SNES, size=6, evaluate=sphere, **kwargs):
    return Driver(space, strategy(kind, space, size), evaluate, **kwargs)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda: strategy(SNES, SPHERE, 1), "SNES needs a whole number of at least 2"),
        (
            lambda: strategy(DifferentialEvolution, SPHERE, 3),
            "DifferentialEvolution needs a whole number of at least 4",
        ),
        (lambda: strategy(Open_ES, SPHERE, 5), "Open_ES does not take population=5: Population size must be even"),
        (lambda: strategy(CMA_ES, SPHERE, 2.5), "population=2.5"),
        (lambda: strategy(CMA_ES, SPHERE, 8.0), "population=8.0: CMA_ES needs a whole number"),
        (lambda: Driver(SPHERE, SimpleGA(1, jnp.zeros(4)), sphere), "SimpleGA needs a whole number of at least 2"),
        (lambda: Driver(SPHERE, SNES(8, jnp.zeros(3)), sphere), "over 3 numbers and the space has 4"),
        (lambda: Driver(SPHERE, SNES(8, {"x": jnp.zeros(4)}), sphere), "from a vector of that length"),
        (lambda: make(survivors=(2,)), "give 0 falling numbers"),
        (lambda: make(evaluate=[sphere, sphere, sphere], survivors=(2, 3)), "give 2 falling numbers"),
        (lambda: make(evaluate=[sphere, sphere], survivors=(7,)), r"must lie in 1\.\.6"),
        (lambda: make(evaluate=[]), "needs at least one evaluator"),
        (lambda: make(penalty=-1.0), "penalty=-1.0"),
        (lambda: make(kind=NSGA2, evaluate=[sphere, sphere], survivors=(2,)), "halve by one objective"),
        (lambda: minimize(make(kind=NSGA2), jax.random.key(0), 1), "use Driver.run and front"),
        (lambda: minimize(make(), jax.random.key(0), 0), "generations=0"),
        (lambda: make().start(jax.random.key(0, impl="rbg")), "default kind"),
        (lambda: from_json({"generation": 0}, SPHERE), "no field 'index'"),
    ],
)
def test_what_is_refused(wrong, match, unchecked):
    with pytest.raises(ValueError, match=match):
        wrong()


def test_the_driver_takes_few_arguments():
    assert len(inspect.signature(Driver).parameters) <= 9


@pytest.mark.parametrize(
    "changes, rule",
    [
        ({"ratio": 1.5}, r"'ratio' of the design is 1.5: it must lie in \[0.3, 0.7\]"),
        ({"ratio": np.nan}, "'ratio' of the design is nan"),
        ({"ratio": np.array([0.5, 0.6])}, r"'ratio' of the design has the shape \(2,\): it must be \(\)"),
        ({"bits": 9}, r"'bits' of the design is 9: it must be a whole number in 2\.\.8"),
        ({"op": 2}, r"'op' of the design is 2: it must be a whole number in 0\.\.1"),
        ({"keep": np.array([0.5, 1.0])}, "'keep' of the design .* it must be True or False"),
    ],
)
def test_a_start_outside_of_the_space_is_refused(changes, rule):
    space = Space({"ratio": Float(0.3, 0.7), "bits": Int(2, 8), "op": Category(("a", "b")), "keep": Mask(2)})
    driver = Driver(space, strategy(CMA_ES, space, 8), lambda designs, key: designs["ratio"])
    fits = {"ratio": np.float32(0.7), "bits": 8, "op": 1, "keep": np.array([True, False])}
    driver.start(jax.random.key(0), fits)
    driver.start(jax.random.key(0), fits | {"ratio": np.float32(0.3)})
    with pytest.raises(ValueError, match=rule):
        driver.start(jax.random.key(0), fits | changes)
