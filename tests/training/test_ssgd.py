"""SSGD: the scales by hand, no bias, its kinship with Powerpropagation, and that it makes weights prunable."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compressjax.projections import Cardinality
from compressjax.training import LogSumL1, LogSumL2, PNorm, powerprop, slimming, ssgd

W = np.array([[0.0, 0.5], [-1.0, 4.0]])


def one_step(transform, params, gradients, state=None):
    state = transform.init(params) if state is None else state
    updates, state = jax.jit(transform.update)(gradients, state, params)
    return updates, state


@pytest.mark.parametrize(
    ("measure", "squared"),
    [
        (LogSumL2(0.25), W**2 + 0.25),
        (LogSumL1(0.5), (np.abs(W) + 0.5) ** 2),
        (PNorm(0.5, eps=0.1), (np.abs(W) + 0.1) ** 1.5),
        (PNorm(0.0, eps=0.1), (np.abs(W) + 0.1) ** 2),
    ],
    ids=str,
)
def test_scales_by_hand(measure, squared) -> None:
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(W, jnp.float32), "b": jnp.ones(2)}
    gradients = {"w": jnp.asarray(rng.normal(size=(2, 2)), jnp.float32), "b": jnp.ones(2)}
    updates, _ = one_step(ssgd(optax.sgd(0.5), {"w": measure}), params, gradients)
    np.testing.assert_allclose(updates["w"], -0.5 * squared / squared.mean() * gradients["w"], rtol=1e-6)
    np.testing.assert_array_equal(updates["b"], -0.5 * np.ones(2))


def test_the_mean_is_one_per_leaf_and_large_scales_are_clipped() -> None:
    w = np.full(100, 0.01, np.float32)
    w[0] = 1.0
    params = {"a": jnp.asarray(w), "b": jnp.asarray(10 * w)}
    ones = jax.tree.map(jnp.ones_like, params)
    free, _ = one_step(ssgd(optax.sgd(1.0), {"*": PNorm(1.0, eps=1e-6)}, clip=np.inf), params, ones)
    for path in params:
        np.testing.assert_allclose(-np.mean(free[path]), 1.0, rtol=1e-5)
    assert -free["a"][0] > 50
    clipped, _ = one_step(ssgd(optax.sgd(1.0), {"*": PNorm(1.0, eps=1e-6)}), params, ones)
    for path in params:
        assert -clipped[path][0] == 10.0
        np.testing.assert_array_equal(clipped[path][1:], free[path][1:])


def test_a_leaf_of_zeros_is_trained_plainly() -> None:
    params = {"w": jnp.zeros(3)}
    for measure in (LogSumL2(), LogSumL1(), PNorm()):
        updates, _ = one_step(ssgd(optax.sgd(1.0), {"w": measure}), params, {"w": jnp.arange(3.0)})
        np.testing.assert_allclose(updates["w"], [0.0, -1.0, -2.0], rtol=1e-6)


@pytest.mark.parametrize("scale", ["gradients", "updates"])
def test_p_of_two_is_the_inner_optimizer(scale) -> None:
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)}
    inner = optax.adam(0.1)
    transform = ssgd(inner, {"w": PNorm(2.0)}, scale=scale)
    state, plain = transform.init(params), inner.init(params)
    for _ in range(2):
        updates, state = one_step(transform, params, params, state)
        expected, plain = inner.update(params, plain, params)
        np.testing.assert_allclose(updates["w"], expected["w"], rtol=1e-6)


def test_momentum_sums_scaled_gradients_and_adam_needs_scaled_updates() -> None:
    params = {"w": jnp.array([0.1, 1.0])}
    rules = {"w": PNorm(1.0, eps=1e-6)}
    ones = {"w": jnp.ones(2)}
    ratio = lambda updates: float(updates["w"][1] / updates["w"][0])  # noqa: E731
    updates, _ = one_step(ssgd(optax.sgd(0.1, momentum=0.9), rules), params, ones)
    assert ratio(updates) == pytest.approx(10.0, rel=1e-4)
    # Adam divides the scale out of the gradient again; after it, it stays.
    updates, _ = one_step(ssgd(optax.adam(0.1), rules), params, ones)
    assert ratio(updates) == pytest.approx(1.0, rel=1e-4)
    updates, _ = one_step(ssgd(optax.adam(0.1), rules, scale="updates"), params, ones)
    assert ratio(updates) == pytest.approx(10.0, rel=1e-4)


@pytest.mark.parametrize("alpha", [1.5, 2.0, 4.0])
def test_to_first_order_the_p_norm_is_powerpropagation(alpha) -> None:
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=50), jnp.float32)}
    gradients = {"w": jnp.asarray(rng.normal(size=50), jnp.float32)}
    p, rate = 2.0 / alpha, 1e-3
    ours, _ = one_step(ssgd(optax.sgd(1.0), {"w": PNorm(p, eps=1e-12)}, clip=np.inf), params, gradients)
    theirs, _ = one_step(powerprop(optax.sgd(rate), {"w": alpha}), params, gradients)
    mean = np.mean(np.abs(np.asarray(params["w"], np.float64)) ** (2.0 - p))
    large = np.abs(params["w"]) > 0.1  # where one step of this rate is infinitesimal
    expected = rate * alpha**2 * mean * np.asarray(ours["w"])
    np.testing.assert_allclose(np.asarray(theirs["w"])[large], expected[large], rtol=0.02, atol=5e-7)


def minimise(transform, start, gradient, steps):
    def step(carry, _):
        params, state = carry
        updates, state = transform.update(gradient(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    run = jax.jit(lambda p: jax.lax.scan(step, (p, transform.init(p)), None, length=steps)[0][0])
    return run({"w": start})["w"]


def test_there_is_no_bias_where_l1_has_one() -> None:
    target = jnp.array([2.0, -1.0, 0.5, 0.02])
    gradient = lambda p: {"w": p["w"] - target}  # noqa: E731
    start = jnp.array([1.0, -0.5, 1.0, 0.5])
    for measure in (LogSumL2(0.01), LogSumL1(0.1), PNorm(1.0, eps=0.01)):
        found = minimise(ssgd(optax.sgd(0.2), {"w": measure}), start, gradient, 6000)
        np.testing.assert_allclose(found, target, atol=1e-4)
    l1 = minimise(slimming(optax.sgd(0.2), 0.1, step_size=0.2, scales=("w",)), start, gradient, 200)
    np.testing.assert_allclose(l1, [1.9, -0.9, 0.4, 0.0], atol=1e-4)


def test_of_all_solutions_it_finds_one_that_survives_pruning() -> None:
    # Fewer observations than weights: every method fits them exactly, with other weights.
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(24, 60)), jnp.float32)
    y = x @ jnp.asarray(np.r_[1.0, 1.5, 2.0, 1.0, np.zeros(56)], jnp.float32)
    start = jnp.asarray(0.1 * np.abs(rng.normal(size=60)), jnp.float32)
    gradient = lambda p: {"w": x.T @ (x @ p["w"] - y) / len(y)}  # noqa: E731
    loss = lambda w: float(jnp.mean(jnp.square(x @ w - y)))  # noqa: E731
    methods = {
        "sgd": optax.sgd(0.05),
        "log-sum l2": ssgd(optax.sgd(0.05), {"w": LogSumL2(1e-3)}),
        "log-sum l1": ssgd(optax.sgd(0.05), {"w": LogSumL1(1e-2)}),
        "p-norm": ssgd(optax.sgd(0.05), {"w": PNorm(0.5, eps=1e-3)}),
    }
    found = {name: minimise(transform, start, gradient, 1000) for name, transform in methods.items()}
    pruned = {name: loss(Cardinality(4).project(w)) for name, w in found.items()}
    for name, w in found.items():
        assert loss(w) < 0.05
        assert name == "sgd" or pruned[name] < 0.2 * pruned["sgd"]


def test_nan_stays_visible() -> None:
    updates, _ = one_step(ssgd(optax.sgd(1.0), {"w": PNorm()}), {"w": jnp.ones(2)}, {"w": jnp.array([jnp.nan, 1.0])})
    assert np.isnan(updates["w"]).tolist() == [True, False]


def test_bad_input() -> None:
    inner, params = optax.sgd(0.1), {"w": jnp.ones(2)}
    for make, message in [
        (lambda: LogSumL2(0.0), r"LogSumL2: eps=0\.0"),
        (lambda: LogSumL1(-1.0), r"LogSumL1: eps=-1\.0"),
        (lambda: PNorm(1.0, eps=float("nan")), "PNorm: eps=nan"),
        (lambda: PNorm(2.5), r"p=2\.5 must lie in \[0, 2\]"),
        (lambda: ssgd(inner, {"w": PNorm()}, clip=0.5), r"clip=0\.5 must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
    transform = ssgd(inner, {"w": PNorm()})
    with pytest.raises(ValueError, match="reads the parameters"):
        transform.update(params, transform.init(params))
    with pytest.raises(ValueError, match="Rule 'v' has no effect"):
        ssgd(inner, {"v": PNorm()}).init(params)
    with pytest.raises(ValueError, match="w holds int32"):
        transform.init({"w": jnp.ones(2, jnp.int32)})


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_place_for_the_scales_is_refused() -> None:
    with pytest.raises(ValueError, match="scale='momentum' must be 'gradients' or 'updates'"):
        ssgd(optax.sgd(0.1), {"w": PNorm()}, scale="momentum")


def test_float64_steps_keep_their_precision():
    with jax.enable_x64(True):
        params, gradients = {"w": jnp.ones(2)}, {"w": jnp.array([1e-60, 1.0 + 1e-12])}
        optimizer = ssgd(optax.sgd(1.0), {"w": PNorm(2.0)})
        updates, _ = optimizer.update(gradients, optimizer.init(params), params)
        np.testing.assert_array_equal(updates["w"], -gradients["w"])
