"""Law 6: a pruned weight is exactly 0.0 after any number of steps, with any optimizer, weight decay and momentum.

A new optimizer or a new transform is tested by adding one row.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compressjax.projections import Cardinality
from compressjax.quantizers import Levels
from compressjax.training import admm, gradual_freeze, gradual_magnitude, masked

DECAY = 0.1
OPTIMIZERS = {
    "sgd": lambda: optax.sgd(0.1),
    "sgd with momentum and decay": lambda: optax.chain(optax.add_decayed_weights(DECAY), optax.sgd(0.1, momentum=0.9)),
    "nesterov": lambda: optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: optax.adam(0.1),
    "adam without epsilon": lambda: optax.adam(0.1, eps=0.0),
    "adamw": lambda: optax.adamw(0.1, weight_decay=DECAY),
    "nadamw": lambda: optax.nadamw(0.1, weight_decay=DECAY),
    "lamb": lambda: optax.lamb(0.1, weight_decay=DECAY),
    "lars": lambda: optax.lars(0.1, weight_decay=DECAY),
    "rmsprop with momentum": lambda: optax.chain(optax.add_decayed_weights(DECAY), optax.rmsprop(0.1, momentum=0.9)),
    "lion": lambda: optax.lion(0.1, weight_decay=DECAY),
    "adafactor": lambda: optax.adafactor(0.1, min_dim_size_to_factor=2, weight_decay_rate=DECAY),
    "adagrad": lambda: optax.adagrad(0.1),
    "radam": lambda: optax.radam(0.1),
    "yogi": lambda: optax.yogi(0.1),
    "novograd": lambda: optax.novograd(0.1, weight_decay=DECAY),
    "noisy sgd": lambda: optax.noisy_sgd(0.1, key=jax.random.key(0)),
    "clipped": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1, weight_decay=DECAY)),
}
RULES = {"kernel": Cardinality(5)}
MASKS = {"kernel": jnp.arange(24).reshape(4, 6) % 3 == 0}
PRUNED = ~np.asarray(MASKS["kernel"])
TRANSFORMS = {
    "masked": lambda inner: masked(inner, MASKS),
    "masked admm": lambda inner: masked(admm(inner, RULES, rho=0.5, every=2), MASKS),
    "admm of masked, masked": lambda inner: masked(admm(masked(inner, MASKS), RULES, rho=0.5, every=2), MASKS),
    "masked gradual magnitude": lambda inner: masked(gradual_magnitude(inner, RULES, begin=1, end=4, every=1), MASKS),
    "masked gradual freeze": lambda inner: masked(gradual_freeze(inner, {"kernel": Levels(2)}, every=2), MASKS),
}


def params_and_target(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    params = {
        "kernel": jnp.asarray(rng.normal(size=(4, 6)), dtype),
        "bias": jnp.asarray(rng.normal(size=6), dtype),
    }
    return params, jnp.asarray(rng.normal(size=(4, 6)), dtype)


def run(transform, params, target, steps=6):
    """Trains on a quadratic whose optimum is dense; yields the parameters after each step."""
    state = transform.init(params)

    @jax.jit
    def step(params, state):
        gradients = {"kernel": params["kernel"] - target, "bias": params["bias"]}
        updates, state = transform.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
        yield params, state


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_masked_keeps_zeros_under_every_optimizer(optimizer, dtype):
    params, target = params_and_target(dtype)
    start = np.asarray(params["kernel"], np.float32)
    for params, _ in run(masked(OPTIMIZERS[optimizer](), MASKS), params, target):
        kernel = np.asarray(params["kernel"], np.float32)
        assert np.all(kernel[PRUNED] == 0.0)
        assert params["kernel"].dtype == dtype
    if optimizer != "adam without epsilon":  # 0 / 0 in the pruned places must not reach the others; checked below
        assert np.all(np.isfinite(kernel))
    assert np.any(kernel[~PRUNED] != start[~PRUNED])


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "lion"])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_every_transform_keeps_the_zeros_of_a_mask(transform, optimizer):
    params, target = params_and_target()
    for params, _ in run(TRANSFORMS[transform](OPTIMIZERS[optimizer]()), params, target):
        assert np.all(np.asarray(params["kernel"])[PRUNED] == 0.0)
    assert np.all(np.isfinite(params["kernel"]))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_gradual_magnitude_never_revives_a_weight(optimizer):
    params, target = params_and_target()
    dead = np.zeros((4, 6), bool)
    for params, state in run(
        gradual_magnitude(OPTIMIZERS[optimizer](), RULES, begin=0, end=4, every=1), params, target
    ):
        zeros = np.asarray(params["kernel"]) == 0.0
        assert np.all(zeros[dead])
        assert np.array_equal(zeros, ~np.asarray(state.masks["kernel"]))
        dead = zeros
    assert np.sum(~dead) == 5


def test_an_optimizer_that_divides_zero_by_zero_at_pruned_weights_is_harmless():
    params, target = params_and_target()
    *_, (params, _) = run(masked(optax.adam(0.1, eps=0.0), MASKS), params, target)
    assert np.all(np.isfinite(params["kernel"]))


def test_pruned_moments_stay_zero():
    params, target = params_and_target()
    *_, (_, state) = run(masked(optax.adam(0.1), MASKS), params, target)
    moments = state.inner[0]
    assert np.all(np.asarray(moments.mu["kernel"])[PRUNED] == 0.0)
    assert np.all(np.asarray(moments.nu["kernel"])[PRUNED] == 0.0)
    assert np.all(np.asarray(moments.mu["bias"]) != 0.0)
