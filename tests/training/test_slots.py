"""Slots of optimizers: found by structure in any state, reset for some weights only.  One row per optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compressjax import trees
from compressjax.training import reset_slots, rigl

SHAPE = (3, 5)  # of no other leaf and no shared statistic, so that slots can be told by their shape
REVIVED = jnp.arange(15).reshape(SHAPE) % 4 == 1
ONLY_KERNEL = {"fc": {"bias": False, "kernel": True}, "head": False}
OPTIMIZERS = {
    "sgd with momentum": lambda: optax.sgd(0.1, momentum=0.9),
    "nesterov": lambda: optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: optax.adam(0.1),
    "adam, narrow": lambda: optax.adam(0.1, mu_dtype=jnp.bfloat16),
    "adamw": lambda: optax.adamw(0.1),
    "nadam": lambda: optax.nadam(0.1),
    "adamax": lambda: optax.adamax(0.1),
    "adabelief": lambda: optax.adabelief(0.1),
    "adadelta": lambda: optax.adadelta(0.1),
    "adafactor with momentum": lambda: optax.adafactor(0.1, min_dim_size_to_factor=2, momentum=0.9),
    "adafactor, not factored": lambda: optax.adafactor(0.1),
    "adagrad": lambda: optax.adagrad(0.1),
    "adan": lambda: optax.adan(0.1),
    "amsgrad": lambda: optax.amsgrad(0.1),
    "lamb": lambda: optax.lamb(0.1),
    "lars": lambda: optax.lars(0.1),
    "l-bfgs": lambda: optax.lbfgs(0.1, linesearch=None),
    "lion": lambda: optax.lion(0.1),
    "novograd": lambda: optax.novograd(0.1),
    "optimistic": lambda: optax.optimistic_gradient_descent(0.1),
    "radam": lambda: optax.radam(0.1),
    "rmsprop, centred": lambda: optax.rmsprop(0.1, centered=True, momentum=0.9),
    "rprop": lambda: optax.rprop(0.1),
    "signum": lambda: optax.signum(0.1),
    "sm3": lambda: optax.sm3(0.1),
    "yogi": lambda: optax.yogi(0.1),
    "ademamix": lambda: optax.contrib.ademamix(0.1),
    "adopt": lambda: optax.contrib.adopt(0.1),
    "cocob": lambda: optax.contrib.cocob(),
    "d-adaptation": lambda: optax.contrib.dadapt_adamw(),
    "madgrad": lambda: optax.contrib.madgrad(0.1),
    "mechanic": lambda: optax.contrib.mechanize(optax.adam(0.1)),
    "muon": lambda: optax.contrib.muon(0.1),
    "prodigy": lambda: optax.contrib.prodigy(),
    "schedule-free": lambda: optax.contrib.schedule_free_adamw(0.1),
    "chained": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.trace(0.9), optax.adam(0.1)),
    "masked": lambda: optax.masked(optax.adam(0.1), ONLY_KERNEL),
    "masked by branches": lambda: optax.masked(optax.adam(0.1), {"fc": True, "head": False}),
    "partitioned": lambda: optax.partition(
        {"a": optax.adam(0.1), "b": optax.sgd(0.1, momentum=0.9)}, {"fc": {"bias": "b", "kernel": "a"}, "head": "b"}
    ),
    "injected": lambda: optax.inject_hyperparams(optax.adamw)(learning_rate=0.1),
    "accumulated": lambda: optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation(),
    "if finite": lambda: optax.apply_if_finite(optax.adam(0.1), 3),
    "all at once": lambda: optax.chain(
        optax.masked(optax.inject_hyperparams(optax.adam)(learning_rate=0.1), ONLY_KERNEL),
        optax.MultiSteps(optax.sgd(0.1, momentum=0.9), 2).gradient_transformation(),
    ),
}


# What the others share with these is the kind of state: one, two or three trees, scalars beside them, factors, history.
QUICK = {
    "sgd with momentum",
    "adam",
    "adam, narrow",
    "adafactor with momentum",
    "adan",
    "l-bfgs",
    "lion",
    "sm3",
    "rprop",
    "muon",
    "schedule-free",
    "masked by branches",
    "partitioned",
    "all at once",
}


def make_params():
    rng = np.random.default_rng(0)
    make = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    return {"fc": {"bias": make(7), "kernel": make(*SHAPE)}, "head": make(4, 2)}


def is_slot(leaf):
    return np.shape(leaf)[-2:] == SHAPE


@pytest.mark.parametrize(
    "optimizer", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in OPTIMIZERS]
)
def test_slots_of_revived_weights_equal_those_of_a_fresh_start(optimizer):
    made, params = OPTIMIZERS[optimizer](), make_params()
    state, update = made.init(params), jax.jit(made.update)
    for _ in range(3):
        updates, state = update(jax.tree.map(lambda w: w - 1.0, params), state, params)
        params = optax.apply_updates(params, updates)
    fresh = made.init(params)
    after = reset_slots(state, fresh, params, {"fc/kernel": REVIVED})
    assert jax.tree.structure(after) == jax.tree.structure(state)
    differing = 0
    for old, new, now in zip(*(jax.tree.leaves(tree) for tree in (state, fresh, after)), strict=True):
        assert (jnp.shape(now), jnp.asarray(now).dtype) == (jnp.shape(old), jnp.asarray(old).dtype)
        if not is_slot(old):
            np.testing.assert_array_equal(now, old)
            continue
        old, new, now, revived = (np.asarray(x) for x in (old, new, now, jnp.broadcast_to(REVIVED, old.shape)))
        np.testing.assert_array_equal(now[revived], new[revived])
        np.testing.assert_array_equal(now[~revived], old[~revived])
        differing += bool(np.any(old[revived] != new[revived]))
    assert differing, "the optimizer has no slots: this row tests nothing"


def test_parameters_of_any_build_are_recognized():
    where = jnp.array([True, False])
    for params in (jnp.ones(2), [jnp.ones(2)], (jnp.ones(2), jnp.ones(3)), {"w": (jnp.ones(2), jnp.ones(2))}):
        path = next(iter(trees.leaves(params)))
        optimizer = optax.chain(optax.trace(0.9), optax.adam(0.1))
        _, state = optimizer.update(params, optimizer.init(params))
        after = reset_slots(state, optimizer.init(params), params, {path: where})
        for tree in (after[0].trace, after[1][0].mu, after[1][0].nu):
            first, *others = jax.tree.leaves(tree)
            assert first[0] == 0.0
            assert first[1] > 0.0
            assert all(np.all(other > 0.0) for other in others)
        assert after[1][0].count == 1


def test_a_grown_weight_meets_no_old_momentum():
    params = {"w": jnp.array([4.0, 0.5, 0.0])}
    inner = optax.inject_hyperparams(optax.adam)(learning_rate=0.125)
    optimizer = rigl(inner, {"w": params["w"] != 0}, every=2, end=100, drop=0.75)
    state = optimizer.init(params)
    # The second weight is dropped for the third, then grown again: its moments were not zero in between.
    for gradient in ([0.0, 1.0, 0.0], [0.0, 0.0, 2.0], [0.0, 0.0, 0.0], [0.0, 2.0, 0.0]):
        updates, state = optimizer.update({"w": jnp.array(gradient)}, state, params)
        params = optax.apply_updates(params, updates)
        if state.count == 3:
            assert state.inner.inner_state[0].mu["w"][1] > 0.0
    assert state.masks["w"].tolist() == [True, True, False]
    assert params["w"].tolist() == [4.0, 0.0, 0.0]
    moments = state.inner.inner_state[0]
    assert moments.mu["w"][1] == moments.nu["w"][1] == 0.0


def test_entries_must_fit():
    params, state = make_params(), optax.adam(0.1).init(make_params())
    with pytest.raises(ValueError, match=r"'fc/kernel' have shape \(5,\); the leaf has \(3, 5\)"):
        reset_slots(state, state, params, {"fc/kernel": jnp.ones(5, bool)})
    with pytest.raises(ValueError, match="there is no such leaf"):
        reset_slots(state, state, params, {"fc": jnp.ones(5, bool)})
