"""The search: what survives, what breeds, that it finds formulas, and that a resumed run is the same run."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax.search import expressions as ex
from compressjax.search.expressions import PAPER, ExpressionGP

LENGTH = 12
LANGUAGE = PAPER.only(["gP", "gQ", "vP"])


def started(gp, fitness, seed=0):
    first = ex.random_programs(jax.random.key(seed), gp.population_size, gp.length, gp.language)
    return first, gp.init(jax.random.key(seed + 1), first, jnp.asarray(fitness, jnp.float32), gp.default_params)


def target():
    """Symbolic regression: gP^2 vP + gQ vP - gQ, one value per channel."""
    rng = np.random.default_rng(0)
    t = {name: jnp.asarray(rng.uniform(0.2, 2, (40, 1, 1)), jnp.float32) for name in LANGUAGE.terminals}
    wanted = ex.to_function(ex.parse("gP * gP * vP + gQ * vP - gQ", LANGUAGE), LANGUAGE)(t)
    wanted = np.asarray(wanted)

    def loss(programs):
        found = ex.shared(programs, t, LANGUAGE)
        return np.mean(np.abs(found - wanted), axis=1) / np.mean(np.abs(wanted - wanted.mean()))

    return loss


def run(gp, loss, generations, seed, params=None):
    params = gp.default_params if params is None else params
    first = ex.random_programs(jax.random.key(seed), gp.population_size, gp.length, gp.language)
    state = gp.init(jax.random.key(seed), first, loss(first), params)
    best = [float(state.best_fitness)]
    for generation in range(generations):
        key = jax.random.fold_in(jax.random.key(seed), generation)
        children, state = gp.ask(key, state, params)
        state, _ = gp.tell(key, children, loss(children), state, params)
        best.append(float(state.best_fitness))
    return state, best


@pytest.mark.parametrize(
    "options",
    [{}, pytest.param({"num_parents": 20, "tournament": 5}, marks=pytest.mark.slow)],
    ids=["best", "tournament"],
)
def test_it_beats_random_programs_at_equal_evaluations(options):
    loss = target()
    gp = ExpressionGP(200, 16, LANGUAGE, **options)
    evolved, random = [], []
    for seed in range(3):
        state, best = run(gp, loss, 20, seed)
        assert all(after <= before for before, after in itertools.pairwise(best))
        assert bool(ex.valid(gp.get_population(state).tokens, LANGUAGE).all())
        evolved.append(best[-1])
        many = ex.random_programs(jax.random.key(100 + seed), 200 * 21, 16, LANGUAGE)
        random.append(float(np.nanmin(loss(many))))
    assert np.median(evolved) < 0.7 * np.median(random)


def test_parents_survive_and_keep_their_fitness():
    gp = ExpressionGP(40, LENGTH)
    first, state = started(gp, np.arange(40.0))
    children, state = gp.ask(jax.random.key(5), state, gp.default_params)
    state, metrics = gp.tell(jax.random.key(6), children, jnp.full(40, 100.0), state, gp.default_params)
    np.testing.assert_array_equal(state.fitness[:6], range(6))
    np.testing.assert_array_equal(gp.get_population(state).tokens[:6], first.tokens[:6])
    np.testing.assert_array_equal(gp.get_best_solution(state).tokens, first.tokens[0])
    assert float(metrics["best_fitness"]) == 0
    assert children.tokens.dtype == jnp.int32


def test_only_the_best_breed():
    """Without variation children are copies, of the best `num_parents` and of all of them."""
    gp = ExpressionGP(40, LENGTH)
    params = gp.default_params._replace(crossover_rate=0.0, mutation_rate=0.0)
    fitness = np.random.default_rng(0).permutation(40).astype(float)
    first, state = started(gp, fitness)
    children, _ = gp.ask(jax.random.key(5), state, params)
    best = {tuple(np.asarray(first.tokens)[np.argmax(fitness == rank)].tolist()) for rank in range(6)}
    assert {tuple(tokens.tolist()) for tokens in np.asarray(children.tokens)} == best


@pytest.mark.parametrize("tournament", [None, 3])
def test_failed_programs_never_become_parents(tournament):
    gp = ExpressionGP(40, LENGTH, tournament=tournament)
    params = gp.default_params._replace(crossover_rate=0.0, mutation_rate=0.0)
    fitness = np.resize([np.nan, np.inf, -np.inf], 40)
    fitness[[7, 11]] = [3.0, 2.0]
    first, state = started(gp, fitness)
    assert float(state.best_fitness) == 2
    children, state = gp.ask(jax.random.key(5), state, params)
    alive = {tuple(np.asarray(first.tokens)[i].tolist()) for i in (7, 11)}
    assert {tuple(tokens.tolist()) for tokens in np.asarray(children.tokens)} <= alive
    state, _ = gp.tell(
        jax.random.key(6), children, jnp.asarray(np.resize([-np.inf, np.nan, np.inf], 40), jnp.float32), state, params
    )
    np.testing.assert_array_equal(jnp.sort(state.fitness)[:3], [2, 3, np.inf])
    assert float(state.best_fitness) == 2


def test_if_all_failed_the_children_are_new_trees():
    gp = ExpressionGP(40, LENGTH)
    first, state = started(gp, np.full(40, np.nan))
    children, _ = gp.ask(jax.random.key(5), state, gp.default_params)
    assert bool(ex.valid(children.tokens).all())
    assert len(np.unique(children.tokens, axis=0)) > 20
    assert not np.array_equal(children.tokens, first.tokens)


def test_of_equally_fit_programs_the_shorter_breeds_and_parsimony_charges_length():
    gp = ExpressionGP(2, LENGTH, LANGUAGE, num_parents=1)
    still = gp.default_params._replace(crossover_rate=0.0, mutation_rate=0.0)
    pair = ex.stacked([ex.parse(text, LANGUAGE) for text in ("gP + gQ + vP", "gP + gQ")], LENGTH)
    for fitness, parsimony, wanted in (
        ([1.0, 1.0], 0.0, "gP + gQ"),
        ([1.0, 1.001], 0.0, "gP + gQ + vP"),
        ([1.0, 1.001], 1e-3, "gP + gQ"),
    ):
        params = still._replace(parsimony=parsimony)
        state = gp.init(jax.random.key(0), pair, jnp.array(fitness), params)
        children, _ = gp.ask(jax.random.key(1), state, params)
        assert {ex.unparse(ex.single(children, i), LANGUAGE) for i in range(2)} == {wanted}


@pytest.mark.parametrize("distinct, breeding", [(True, {"gP", "gQ"}), (False, {"gP", "gP + 0.5 - 0.5"})])
def test_of_programs_with_the_same_fitness_one_breeds(distinct, breeding):
    gp = ExpressionGP(4, LENGTH, LANGUAGE, num_parents=2, distinct=distinct)
    params = gp.default_params._replace(crossover_rate=0.0, mutation_rate=0.0)
    texts = ["gP + 0.5 - 0.5", "gP", "gQ", "vP"]
    four = ex.stacked([ex.parse(text, LANGUAGE) for text in texts], LENGTH)
    state = gp.init(jax.random.key(0), four, jnp.array([1.0, 1.0, 2.0, jnp.nan]), params)
    met = set()
    for seed in range(8):
        children, _ = gp.ask(jax.random.key(seed), state, params)
        met |= {ex.unparse(ex.single(children, i), LANGUAGE) for i in range(4)}
    assert met == breeding


def test_constants_move_if_they_are_let():
    gp = ExpressionGP(2, LENGTH, LANGUAGE, num_parents=1)
    params = gp.default_params._replace(crossover_rate=0.0, mutation_rate=0.0, constant_rate=1.0)
    pair = ex.stacked([ex.parse("gP * 2", LANGUAGE)] * 2, LENGTH)
    children, _ = gp.ask(jax.random.key(1), gp.init(jax.random.key(0), pair, jnp.ones(2), params), params)
    assert np.all(np.asarray(children.consts[:, 1]) != 2)
    assert np.all(np.abs(np.log(np.asarray(children.consts[:, 1]) / 2)) < 1)


def test_an_odd_population_and_a_scan_work():
    gp = ExpressionGP(7, LENGTH)
    _, state = started(gp, np.arange(7.0))
    params = gp.default_params

    def step(state, key):
        children, state = gp.ask(key, state, params)
        state, _ = gp.tell(key, children, ex.lengths(children.tokens).astype(jnp.float32), state, params)
        return state, state.best_fitness

    state, best = jax.lax.scan(step, state, jax.random.split(jax.random.key(0), 5))
    assert int(state.generation_counter) == 5
    assert np.all(np.diff(np.asarray(best)) <= 0)


def test_a_resumed_run_is_the_same_run(tmp_path):
    import orbax.checkpoint as ocp

    loss, params = target(), None
    gp = ExpressionGP(40, LENGTH, LANGUAGE)
    params = gp.default_params._replace(constant_rate=0.5)

    def go(gp, state, begin, end):
        for generation in range(begin, end):
            key = jax.random.fold_in(jax.random.key(9), generation)
            children, state = gp.ask(key, state, params)
            state, _ = gp.tell(key, children, loss(children), state, params)
        return state

    first, _ = started(gp, np.zeros(40))
    state = gp.init(jax.random.key(0), first, loss(first), params)
    whole = go(gp, state, 0, 4)
    half = go(gp, state, 0, 2)
    with ocp.StandardCheckpointer() as saver:
        saver.save(tmp_path / "state", half)
        saver.wait_until_finished()
        back = saver.restore(tmp_path / "state", jax.tree.map(jnp.zeros_like, half))
    resumed = go(ExpressionGP(40, LENGTH, LANGUAGE), back, 2, 4)
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)


@pytest.mark.parametrize(
    "size, options, rule",
    [
        (1, {"num_parents": 1}, "population_size=1 must be at least 2"),
        (4, {}, "at least num_parents=6"),
        (4, {"num_parents": 0}, "num_parents=0"),
        (8, {"length": 0}, "length=0"),
        (8, {"tournament": 9}, r"tournament=9 must lie in 1\.\.8"),
    ],
)
def test_bad_sizes_are_refused(size, options, rule):
    with pytest.raises(ValueError, match=rule):
        ExpressionGP(size, **options)


def test_populations_that_do_not_fit_are_refused():
    gp = ExpressionGP(8, LENGTH)
    params = gp.default_params
    first, state = started(gp, np.zeros(8))
    with pytest.raises(ValueError, match=r"needs \(8, 12\) and \(8,\)"):
        gp.init(jax.random.key(0), first, jnp.zeros(7), params)
    with pytest.raises(ValueError, match=r"needs \(8, 12\)"):
        gp.tell(jax.random.key(0), ex.random_programs(jax.random.key(0), 8, 16), jnp.zeros(8), state, params)
    with pytest.raises(ValueError, match=r"Token 0 \(add\) of program 0"):
        gp.init(jax.random.key(0), first._replace(tokens=first.tokens.at[0, 0].set(1)), jnp.zeros(8), params)


def test_searches_of_the_same_form_are_equal_and_compile_once():
    assert ExpressionGP(8, 4) == ExpressionGP(8, 4)
    assert len({ExpressionGP(8, 4), ExpressionGP(8, 4), ExpressionGP(8, 5), ExpressionGP(8, 4, distinct=False)}) == 3


def test_a_search_runs_in_double_precision_too():
    with jax.enable_x64(True):
        gp = ExpressionGP(8, LENGTH)
        params = gp.default_params._replace(constant_rate=1.0)
        _, state = started(gp, np.arange(8.0))
        children, state = gp.ask(jax.random.key(2), state, params)
        ex.check(children)
        state, _ = gp.tell(jax.random.key(3), children, jnp.arange(8.0), state, params)
        assert [leaf.dtype for leaf in children] == [jnp.int32, jnp.float32]
