"""ADMM: the algebra by hand, convergence, the dual's rescaling, and that it beats one-shot pruning."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compressjax.projections import Cardinality, Joint, project
from compressjax.quantizers import Levels
from compressjax.training import AdmmState, admm, half_cosine, masked, staged


def start(transform, params):
    """State and compiled update."""
    return jax.jit(transform.init)(params), jax.jit(transform.update)


def train(transform, params, gradient, steps):
    state = jax.jit(transform.init)(params)

    @jax.jit
    def step(params, state):
        updates, state = transform.update(gradient(params), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
    return params, state


def test_one_refresh_by_hand():
    params = {"w": jnp.array([1.0, 4.0]), "b": jnp.array([2.0])}
    transform = admm(optax.sgd(0.5), {"w": Cardinality(1)}, rho=1.0, every=1)
    state, update = start(transform, params)
    assert isinstance(state, AdmmState)
    np.testing.assert_array_equal(state.z["w"], [0.0, 4.0])
    np.testing.assert_array_equal(state.u["w"], [0.0, 0.0])
    np.testing.assert_allclose(state.primal["w"], 1 / np.sqrt(17), rtol=1e-6)
    updates, state = update({"w": jnp.array([1.0, -2.0]), "b": jnp.array([1.0])}, state, params)
    # g + rho (W - Z + U) = (1 + 1, -2 + 0), so W1 = (1 - 1, 4 + 1) = (0, 5)
    np.testing.assert_array_equal(updates["w"], [-1.0, 1.0])
    np.testing.assert_array_equal(updates["b"], [-0.5])
    np.testing.assert_array_equal(state.z["w"], [0.0, 5.0])
    np.testing.assert_array_equal(state.u["w"], [0.0, 0.0])
    assert state.primal["w"] == 0.0
    assert state.dual["w"] == np.inf  # Z moved, and no dual to compare with
    assert set(state.z) == {"w"}


def test_dual_accumulates_by_hand():
    params = {"w": jnp.array([3.0, 4.0])}
    transform = admm(optax.sgd(0.0), {"w": Cardinality(1)}, rho=1.0, every=1)
    state, update = start(transform, params)
    _, state = update({"w": jnp.zeros(2)}, state, params)
    np.testing.assert_array_equal(state.u["w"], [3.0, 0.0])
    assert state.dual["w"] == 0.0
    _, state = update({"w": jnp.zeros(2)}, state, params)
    # V = (6, 4): now the other weight is the largest, and Z jumps by (6, -4) against a dual of (0, 4)
    np.testing.assert_array_equal(state.z["w"], [6.0, 0.0])
    np.testing.assert_array_equal(state.u["w"], [0.0, 4.0])
    np.testing.assert_allclose(state.dual["w"], np.sqrt(36 + 16) / 4, rtol=1e-6)


def test_refresh_only_every_so_many_steps():
    params = {"w": jnp.array([3.0, 4.0])}
    transform = admm(optax.sgd(0.0), {"w": Cardinality(1)}, rho=1.0, every=3)
    state, update = start(transform, params)
    duals = []
    for _ in range(7):
        _, state = update({"w": jnp.zeros(2)}, state, params)
        duals.append(float(jnp.sum(state.u["w"])))
    assert duals == [0.0, 0.0, 3.0, 3.0, 3.0, 4.0, 4.0]


@pytest.mark.parametrize("optimizer", [lambda: optax.sgd(0.1), lambda: optax.sgd(0.02, momentum=0.8)])
def test_converges_to_the_constrained_optimum_of_a_diagonal_quadratic(optimizer):
    # f(w) = sum h (w - a)^2 / 2 with three entries: dropping entry i costs h a^2 / 2, so those of largest h a^2 stay.
    # By magnitude alone 1.1 would stay instead of 1.0.
    a = jnp.array([2.0, 1.1, -1.5, 1.0, 0.3])
    h = jnp.array([1.0, 0.1, 2.0, 3.0, 0.5])
    rules = {"w": Cardinality(3)}
    params, state = train(admm(optimizer(), rules, rho=1.0, every=10), {"w": a}, lambda p: {"w": h * (p["w"] - a)}, 500)
    expected = np.array([2.0, 0.0, -1.5, 1.0, 0.0])
    np.testing.assert_allclose(project(rules, params)["w"], expected, atol=1e-4)
    np.testing.assert_allclose(params["w"], expected, atol=1e-3)
    assert state.primal["w"] < 1e-3


def test_the_multiplier_is_the_optimality_condition():
    # At a fixed point grad f(W) + rho U = 0 with W = Z; here grad f = h (0 - a) at a dropped entry.
    a, h = jnp.array([2.0, 0.5]), jnp.array([1.0, 1.0])
    params, state = train(
        admm(optax.sgd(0.2), {"w": Cardinality(1)}, rho=2.0, every=10), {"w": a}, lambda p: {"w": h * (p["w"] - a)}, 600
    )
    np.testing.assert_allclose(state.rho * state.u["w"], [0.0, 0.5], atol=1e-4)
    np.testing.assert_allclose(params["w"], [2.0, 0.0], atol=1e-4)


@pytest.mark.parametrize(("rescale", "factor"), [(True, 1.0), (False, 10.0)])
def test_the_multiplier_survives_a_change_of_rho_only_with_rescaling(rescale, factor):
    params = {"w": jnp.array([3.0, 4.0, 1.0])}
    still = {"w": jnp.zeros(3)}
    make = lambda rho: admm(optax.sgd(0.0), {"w": Cardinality(1)}, rho=rho, every=2, rescale_dual=rescale)  # noqa: E731
    changing, constant = make(staged([0.1, 1.0], [2])), make(0.1)
    (one, update_one), (two, update_two) = start(changing, params), start(constant, params)
    for _ in range(2):
        _, one = update_one(still, one, params)
        _, two = update_two(still, two, params)
    np.testing.assert_allclose(one.rho, 1.0)
    np.testing.assert_allclose(one.rho * one.u["w"], factor * two.rho * two.u["w"], rtol=1e-6)
    assert np.any(two.u["w"] != 0)


def test_rho_is_a_schedule_of_the_step_count_read_at_refreshes():
    params = {"w": jnp.array([3.0, 4.0])}
    transform = admm(optax.sgd(0.0), {"w": Cardinality(1)}, rho=lambda count: 1.0 + count, every=3)
    state, update = start(transform, params)
    seen = [float(state.rho)]
    for _ in range(6):
        _, state = update({"w": jnp.zeros(2)}, state, params)
        seen.append(float(state.rho))
    assert seen == [1.0, 1.0, 1.0, 4.0, 4.0, 4.0, 7.0]


def test_a_ramp_from_zero_forgets_the_dual_it_could_not_feel():
    params = {"w": jnp.array([3.0, 4.0])}
    transform = admm(optax.sgd(0.0), {"w": Cardinality(1)}, rho=half_cosine(0.0, 1.0, 4), every=1)
    state, update = start(transform, params)
    _, state = update({"w": jnp.zeros(2)}, state, params)
    np.testing.assert_array_equal(state.u["w"], [0.0, 0.0])
    back = admm(optax.sgd(0.0), {"w": Cardinality(1)}, rho=staged([1.0, 0.0], [1]), every=1)
    state, update = start(back, params)
    _, state = update({"w": jnp.zeros(2)}, state, params)
    assert np.all(np.isfinite(state.u["w"]))


def correlated_least_squares():
    rng = np.random.default_rng(3)
    mixing = rng.normal(size=(30, 30)) * 0.4 + np.eye(30)
    x = (rng.normal(size=(200, 30)) @ mixing).astype(np.float32)
    y = (x @ rng.normal(size=30) + 0.1 * rng.normal(size=200)).astype(np.float32)
    gram, cross = jnp.asarray(x.T @ x / 200), jnp.asarray(x.T @ y / 200)
    dense = {"w": jnp.linalg.solve(gram, cross)}
    return dense, lambda p: {"w": gram @ p["w"] - cross}, lambda p: float(jnp.mean((x @ p["w"] - y) ** 2))


def test_projected_loss_is_below_one_shot_magnitude_with_correlated_features():
    dense, gradient, loss = correlated_least_squares()
    rules = {"w": Cardinality(8)}
    transform = admm(optax.sgd(0.03), rules, rho=half_cosine(0.01, 5.0, 800), every=8)
    params, state = train(transform, dense, gradient, 900)
    assert loss(project(rules, params)) < 0.7 * loss(project(rules, dense))
    assert state.primal["w"] < 0.05


def test_residuals_shrink():
    dense, gradient, _ = correlated_least_squares()
    transform = admm(optax.sgd(0.03), {"w": Cardinality(8)}, rho=half_cosine(0.01, 5.0, 600), every=8)
    _, early = train(transform, dense, gradient, 100)
    _, late = train(transform, dense, gradient, 700)
    assert late.primal["w"] < 0.3 * early.primal["w"]
    assert late.dual["w"] < early.dual["w"]


def test_rescaling_closes_the_residual_under_a_coarse_ramp():
    dense, gradient, _ = correlated_least_squares()
    residual = {}
    for rescale in (True, False):
        rho = staged([0.05, 0.15, 0.5, 1.5], [200, 400, 600])
        transform = admm(optax.sgd(0.02), {"w": Cardinality(8)}, rho=rho, every=200, rescale_dual=rescale)
        residual[rescale] = float(train(transform, dense, gradient, 800)[1].primal["w"])
    assert residual[True] < residual[False]


def test_a_joint_rule_shares_its_budget():
    params = {"a": jnp.array([5.0, 4.0]), "b": jnp.array([1.0, 2.0])}
    transform = admm(optax.sgd(0.0), {"*": Joint(Cardinality(2))}, rho=1.0, every=1)
    state, update = start(transform, params)
    np.testing.assert_array_equal(state.z["a"], [5.0, 4.0])
    np.testing.assert_array_equal(state.z["b"], [0.0, 0.0])
    zero = jax.tree.map(jnp.zeros_like, params)
    _, state = update(zero, state, params)
    np.testing.assert_array_equal(state.u["b"], [1.0, 2.0])


def test_scale_multiplies_the_pull_of_one_leaf():
    params = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([1.0, 2.0])}
    transform = admm(optax.sgd(1.0), {"*": Cardinality(1)}, rho=0.1, every=5, scale={"b": 10.0})
    zero = jax.tree.map(jnp.zeros_like, params)
    state, update = start(transform, params)
    updates, _ = update(zero, state, params)
    np.testing.assert_allclose(updates["a"], [-0.1, 0.0], rtol=1e-6)
    np.testing.assert_allclose(updates["b"], [-1.0, 0.0], rtol=1e-6)


def test_reset_inner_restarts_the_optimizer_at_refreshes():
    params = {"w": jnp.array([3.0, 4.0])}
    transform = admm(optax.adam(0.1), {"w": Cardinality(1)}, rho=1.0, every=3, reset_inner=True)
    state, update = start(transform, params)
    counts = []
    for _ in range(4):
        _, state = update({"w": jnp.ones(2)}, state, params)
        counts.append(int(state.inner[0].count))
    assert counts == [1, 2, 0, 1]
    assert int(state.count) == 4


def test_inside_a_mask_z_and_u_stay_inside_the_mask():
    params = {"w": jnp.array([3.0, 4.0, 1.0, 2.0, -5.0])}
    mask = jnp.array([True, False, True, True, True])
    transform = masked(admm(optax.adamw(0.1), {"w": Levels(2)}, rho=1.0, every=2), {"w": mask})
    params, state = train(transform, params, lambda p: {"w": p["w"] - 7.0}, 5)
    assert params["w"][1] == 0.0
    assert state.inner.z["w"][1] == 0.0
    assert state.inner.u["w"][1] == 0.0
    assert np.all(np.asarray(state.inner.z["w"])[mask] != 0.0)


def test_a_nan_gradient_reaches_weights_and_residuals():
    params = {"w": jnp.array([3.0, 4.0])}
    transform = admm(optax.sgd(0.1), {"w": Cardinality(1)}, rho=1.0, every=1)
    state, update = start(transform, params)
    updates, state = update({"w": jnp.array([jnp.nan, 1.0])}, state, params)
    assert np.isnan(updates["w"][0])
    assert np.isnan(state.primal["w"])


@pytest.mark.parametrize("every", [0, -1, True])
def test_every_must_be_a_count(every):
    with pytest.raises(ValueError, match=r"every=.* must be a whole number of steps"):
        admm(optax.sgd(0.1), {"w": Cardinality(1)}, rho=1.0, every=every)


def test_bad_rules_and_missing_parameters():
    params = {"w": jnp.ones(2)}
    with pytest.raises(ValueError, match="matches no leaf"):
        admm(optax.sgd(0.1), {"v": Cardinality(1)}, rho=1.0, every=1).init(params)
    with pytest.raises(ValueError, match="w: keep=3"):
        admm(optax.sgd(0.1), {"w": Cardinality(3)}, rho=1.0, every=1).init(params)
    with pytest.raises(ValueError, match="no rule constrains"):
        admm(optax.sgd(0.1), {"w": Cardinality(1), "v": None}, rho=1.0, every=1, scale={"v": 2.0}).init(
            {"w": jnp.ones(2), "v": jnp.ones(1)}
        )
    with pytest.raises(ValueError, match="must be positive"):
        admm(optax.sgd(0.1), {"w": Cardinality(1)}, rho=1.0, every=1, scale={"w": 0.0}).init(params)
    transform = admm(optax.sgd(0.1), {"w": Cardinality(1)}, rho=1.0, every=1)
    with pytest.raises(ValueError, match="admm reads the parameters"):
        transform.update(params, transform.init(params))


@pytest.mark.parametrize("rho", [-0.1, float("nan")])
def test_a_negative_penalty_is_refused(rho):
    with pytest.raises(ValueError, match=f"rho={rho} must not be negative"):
        admm(optax.sgd(0.1), {"w": Cardinality(1)}, rho=rho, every=1)
