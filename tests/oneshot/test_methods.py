"""One-shot methods: small cases by hand, known optima, the order among them, and what they refuse."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import oneshot
from compressjax.oneshot._sweep import sweep
from compressjax.projections import NM, Block, Both, Cardinality, Joint, LowRank
from compressjax.quantizers import Levels, PerOutput
from tests.oneshot.problems import exact_error, layer

METHODS = {name: getattr(oneshot, name) for name in ("magnitude", "wanda", "sparsegpt", "alps")}
# One shape and few sets throughout, because a solver is compiled for each.
INPUTS, OUTPUTS = 24, 16
SOME, PAIRS = Cardinality(187), NM(2, 4)  # 187 divides into no equal parts
COARSE = Both(SOME, Levels(3))
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


@every_method
@pytest.mark.parametrize(
    "constraint",
    [SOME, PAIRS, COARSE, pytest.param(Both(PAIRS, PerOutput(Levels(2), 8)), marks=pytest.mark.slow)],
    ids=str,
)
def test_the_result_lies_in_the_set(method, constraint):
    w, seen, _ = layer(INPUTS, OUTPUTS)
    for dtype in (jnp.float32, jnp.bfloat16):
        found = method(w.astype(dtype), seen, constraint)
        assert found.dtype == dtype
        assert found.shape == w.shape
        assert bool(constraint.contains(found))
        if constraint == SOME:
            assert int(jnp.sum(found != 0)) == 187


@pytest.mark.slow
@every_method
def test_under_jit_and_vmap(method):
    solve = partial(method, constraint=SOME)
    pairs = [layer(INPUTS, OUTPUTS, seed=seed)[:2] for seed in (0, 1)]
    w, seen = jax.tree.map(lambda *parts: jnp.stack(parts), *pairs)
    together = jax.jit(jax.vmap(solve))(w, seen)
    for one, (w0, seen0) in zip(together, pairs, strict=True):
        alone = solve(w0, seen0)
        # Rounding may exchange a weight or two of nearly equal worth.
        assert int(jnp.sum((one != 0) != (alone != 0))) <= 4
        assert abs(oneshot.output_error(one, w0, seen0) - oneshot.output_error(alone, w0, seen0)) < 1e-3


@pytest.mark.parametrize("constraint", [SOME, PAIRS, pytest.param(Cardinality(0.3), marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_the_better_method_has_the_smaller_output_error(constraint, seed):
    w, seen, x = layer(INPUTS, OUTPUTS, seed=seed)
    errors = {name: exact_error(method(w, seen, constraint), w, x) for name, method in METHODS.items()}
    assert errors["alps"] < errors["sparsegpt"] < errors["wanda"] < errors["magnitude"], errors


own_grids = [pytest.param(PerOutput(Levels(3), inputs), marks=pytest.mark.slow) for inputs in (None, 8)]


@pytest.mark.parametrize("levels", [Levels(3), *own_grids], ids=str)
def test_rounding_with_compensation_beats_rounding(levels):
    w, seen, x = layer(INPUTS, OUTPUTS)
    plain, compensated = (exact_error(METHODS[name](w, seen, levels), w, x) for name in ("magnitude", "sparsegpt"))
    assert compensated < 0.7 * plain
    both = Both(SOME, levels)
    errors = {name: exact_error(method(w, seen, both), w, x) for name, method in METHODS.items()}
    assert errors["alps"] < errors["sparsegpt"] < errors["wanda"], errors


@pytest.mark.slow
def test_own_grids_serve_outputs_of_unequal_size():
    w, seen, x = layer(32, 8)
    w = w * jnp.exp(jnp.arange(8.0))[None]
    shared, own, groups = (
        np.mean([exact_error(found[:, [j]], w[:, [j]], x) for j in range(8)])
        for found in (
            oneshot.sparsegpt(w, seen, levels) for levels in (Levels(3), PerOutput(Levels(3)), PerOutput(Levels(3), 8))
        )
    )
    assert own < 0.5 * shared
    assert groups < own


def test_wanda_compares_within_each_output():
    w = jnp.array([[1.0, 9.0], [2.0, 8.0], [3.0, 7.0]])
    seen = oneshot.add(oneshot.start(3), jnp.diag(jnp.array([10.0, 1.0, 1.0])))
    np.testing.assert_array_equal(oneshot.wanda(w, seen, Cardinality(3)), [[1.0, 9.0], [0.0, 0.0], [3.0, 0.0]])


def greedy_surgeon(w, hessian, mask):
    """Optimal brain surgery in float64 with a fresh inverse for every input."""
    w, hessian = np.array(w, np.float64), np.array(hessian, np.float64)
    for i in range(len(w)):
        inverse = np.linalg.inv(hessian[i:, i:])
        error = np.where(mask[i], 0.0, w[i]) / inverse[0, 0]
        w[i:] -= np.outer(inverse[:, 0], error)
    return w


@pytest.mark.parametrize("block", [1, 5, 16])
def test_the_sweep_is_optimal_brain_surgery_whatever_the_block(block):
    w, seen, _ = layer(13, 6)
    hessian = seen.hessian + 5.0 * jnp.eye(13)
    mask = np.random.default_rng(0).random((13, 6)) < 0.5
    found = sweep(w, hessian, jnp.asarray(mask), block=block)
    np.testing.assert_allclose(found, greedy_surgeon(w, hessian, mask), rtol=2e-3, atol=2e-4)
    np.testing.assert_array_equal(np.asarray(found) != 0, mask)


def test_a_block_keeps_its_share():
    w, seen, _ = layer(10, 6)
    found = oneshot.sparsegpt(w, seen, Cardinality(31), block=4)
    assert [int(jnp.sum(found[i : i + 4] != 0)) for i in (0, 4, 8)] == [12, 12, 7]


def best_subset(w, hessian, keep):
    """Every support of one output: the smallest objective in float64, and the weights that reach it."""
    w, hessian = np.asarray(w[:, 0], np.float64), np.asarray(hessian, np.float64)
    best = (np.inf, w)
    for chosen in map(list, itertools.combinations(range(len(w)), keep)):
        v = np.zeros_like(w)
        v[chosen] = np.linalg.solve(hessian[np.ix_(chosen, chosen)], (hessian @ w)[chosen])
        best = min(best, ((v - w) @ hessian @ (v - w), v), key=lambda pair: pair[0])
    return best


def test_alps_is_near_the_best_of_all_supports():
    ratios = []
    for seed in range(5):
        w, seen, _ = layer(8, 1, seed=seed)
        hessian = np.asarray(seen.hessian, np.float64)
        least, _ = best_subset(w, hessian, 4)
        wrong = np.asarray(oneshot.alps(w, seen, Cardinality(4), damping=1e-4) - w, np.float64)[:, 0]
        ratios.append(wrong @ hessian @ wrong / least)
    assert min(ratios) > 0.999
    assert np.median(ratios) < 1.05


def test_the_weights_of_alps_are_least_squares_on_their_support():
    w, seen, _ = layer(INPUTS, OUTPUTS)
    found = np.asarray(oneshot.alps(w, seen, SOME, refinements=40), np.float64)
    hessian = np.asarray(seen.hessian, np.float64)
    hessian += 0.01 * np.mean(np.diag(hessian)) * np.eye(INPUTS)
    for j in range(OUTPUTS):
        (chosen,) = np.nonzero(found[:, j])
        exact = np.linalg.solve(hessian[np.ix_(chosen, chosen)], (hessian @ np.asarray(w))[chosen, j])
        np.testing.assert_allclose(found[chosen, j], exact, rtol=1e-3, atol=1e-3)


def test_without_correlation_the_known_optimum_is_found():
    # X^T X is diagonal: the optimum keeps the largest w^2 h at their values.
    w, _, _ = layer(INPUTS, OUTPUTS)
    scales = np.random.default_rng(1).uniform(1, 3, INPUTS).astype(np.float32)
    seen = oneshot.add(oneshot.start(INPUTS), jnp.diag(jnp.asarray(scales)))
    optimum = SOME.project(w * scales[:, None]) / scales[:, None]
    np.testing.assert_allclose(oneshot.sparsegpt(w, seen, SOME, damping=1e-6), optimum, rtol=1e-3, atol=1e-6)
    # ADMM may exchange weights of nearly equal worth; what they cost is little.
    near = exact_error(oneshot.alps(w, seen, SOME, damping=1e-6), w, np.diag(scales))
    assert near < 1.05 * exact_error(optimum, w, np.diag(scales))


@pytest.mark.slow
def test_alps_takes_any_set_that_selects_entries():
    w, seen, x = layer(16, 12)
    set_ = Block((4, 3), 6)
    found = oneshot.alps(w, seen, set_)
    assert bool(set_.contains(found))
    assert exact_error(found, w, x) < exact_error(oneshot.wanda(w, seen, set_), w, x)


@every_method
@pytest.mark.parametrize("rows", [1, 7])
def test_too_few_rows_are_survived(method, rows):
    w, seen, x = layer(INPUTS, OUTPUTS, rows=rows)
    found = method(w, seen, SOME)
    assert int(jnp.sum(found != 0)) == 187
    assert exact_error(found, w, x) < 1.0


@every_method
@pytest.mark.parametrize("alive", [np.arange(INPUTS) % 4 != 0, np.zeros(INPUTS, bool)], ids=["some dead", "all dead"])
def test_dead_inputs_are_survived(method, alive):
    w, _, x = layer(INPUTS, OUTPUTS)
    seen = oneshot.add(oneshot.start(INPUTS), jnp.asarray(x * alive))
    found = method(w, seen, SOME)
    assert bool(jnp.all(jnp.isfinite(found)))
    assert int(jnp.sum(found != 0)) == 187


@pytest.mark.parametrize(("name", "share"), [("wanda", 0.0), ("sparsegpt", 0.25), ("alps", 0.25)])
def test_weights_of_dead_inputs_go_first(name, share):
    w, _, x = layer(INPUTS, OUTPUTS)
    alive = np.arange(INPUTS) % 4 != 0
    seen = oneshot.add(oneshot.start(INPUTS), jnp.asarray(x * alive))
    blind = np.count_nonzero(SOME.project(w)[~alive])
    assert np.count_nonzero(METHODS[name](w, seen, SOME)[~alive]) <= share * blind


@pytest.mark.slow
@every_method
def test_a_full_budget_changes_nothing(method):
    w, seen, _ = layer(INPUTS, OUTPUTS)
    np.testing.assert_allclose(method(w, seen, Cardinality(1.0)), w, rtol=1e-5, atol=1e-5)


@every_method
def test_bad_problems(method, unchecked):
    w, seen, x = layer(6, 4)
    nan = oneshot.add(oneshot.start(6), jnp.asarray(x).at[3, 2].set(jnp.nan))
    for weights, statistics, words in [
        (w, nan, "calibration activations are not finite"),
        (w, oneshot.start(6), "of no rows"),
        (w.at[0, 0].set(jnp.inf), seen, "kernel is not finite"),
        (w[:5], seen, r"statistics of 6 inputs do not fit a kernel of shape \(5, 4\)"),
        (w[:, :0], seen, "no matrix"),
        (w[0], seen, "no matrix"),
    ]:
        with pytest.raises(ValueError, match=words):
            method(weights, statistics, Cardinality(2))
    with pytest.raises(ValueError, match="m=4 does not divide"):
        method(w, seen, NM(2, 4))
    with pytest.raises(ValueError, match="exceeds the 24"):
        method(w, seen, Cardinality(25))


@pytest.mark.parametrize("name", ["wanda", "sparsegpt", "alps"])
@pytest.mark.parametrize("constraint", [LowRank(2), Joint(Cardinality(3))], ids=str)
def test_sets_that_select_nothing_in_one_layer_are_refused(name, constraint):
    w, seen, _ = layer(6, 4)
    with pytest.raises(ValueError, match="does not select entries of one layer"):
        METHODS[name](w, seen, constraint)


def test_bad_settings():
    w, seen, _ = layer(8, 4)
    half = Cardinality(0.5)
    for solve in (oneshot.sparsegpt, oneshot.alps):
        with pytest.raises(ValueError, match=r"damping=0.0 must be positive"):
            solve(w, seen, half, damping=0.0)
    with pytest.raises(ValueError, match="block=0"):
        oneshot.sparsegpt(w, seen, half, block=0)
    with pytest.raises(ValueError, match="must run along the inputs"):
        oneshot.sparsegpt(w, seen, NM(2, 4, axis=1))
    with pytest.raises(ValueError, match="use alps or wanda"):
        oneshot.sparsegpt(w, seen, Block((4, 2), 2))
    with pytest.raises(ValueError, match="rho=0"):
        oneshot.alps(w, seen, half, rho=0.0)
    for bits in (0, 17):
        with pytest.raises(ValueError, match=f"bits={bits}"):
            Both(half, Levels(bits))


def test_a_broken_factorization_is_reported():
    w, seen, _ = layer(8, 4, rows=2)
    with pytest.raises(ValueError, match="raise the damping"):
        oneshot.sparsegpt(w, seen, Cardinality(0.5), damping=1e-12)
