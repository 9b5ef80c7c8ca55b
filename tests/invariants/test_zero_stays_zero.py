"""Law 6: a pruned weight is exactly 0.0 after any number of steps, with any optimizer, weight decay and momentum.

A new optimizer or a new transform is tested by adding one row.
"""

from itertools import pairwise, product

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compressjax.projections import Cardinality, Channels, Filters
from compressjax.quantizers import Codebook, Coded, Levels
from compressjax.training import (
    PNorm,
    Reweight,
    acdc,
    admm,
    gradual_freeze,
    gradual_magnitude,
    group_lasso,
    latent,
    masked,
    powerprop,
    rate_penalty,
    rigl,
    set_,
    slimming,
    ssgd,
    ternary_gradients,
    tied,
)

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
    "lars": lambda: optax.lars(0.1, weight_decay=DECAY, trust_coefficient=0.5),
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
RULES = {"*kernel": Cardinality(5)}
MASK = jnp.arange(24).reshape(4, 6) % 3 == 0
MASKS = {"kernel": MASK, "half/kernel": MASK}
PRUNED = ~np.asarray(MASK)
TRANSFORMS = {
    "masked": lambda inner: masked(inner, MASKS),
    "masked admm": lambda inner: masked(admm(inner, RULES, rho=0.5, every=2), MASKS),
    "admm of masked, masked": lambda inner: masked(admm(masked(inner, MASKS), RULES, rho=0.5, every=2), MASKS),
    "masked gradual magnitude": lambda inner: masked(gradual_magnitude(inner, RULES, begin=1, end=4, every=1), MASKS),
    "masked gradual freeze": lambda inner: masked(gradual_freeze(inner, {"*kernel": Levels(2)}, every=2), MASKS),
    "masked group lasso": lambda inner: masked(
        group_lasso(inner, {"*kernel": Filters()}, 0.1, step_size=0.1, reweight=Reweight(every=2)), MASKS
    ),
    "masked latent": lambda inner: masked(latent(inner, {"*kernel": Levels(2)}), MASKS),
    "masked rate penalty": lambda inner: masked(rate_penalty(inner, {"*kernel": Coded(99.0)}, 0.1), MASKS),
    "masked slimming": lambda inner: masked(slimming(inner, 0.1, step_size=0.1, scales=("*kernel",)), MASKS),
    "masked ternary": lambda inner: masked(ternary_gradients(inner, jax.random.key(0)), MASKS),
    "ternary masked": lambda inner: ternary_gradients(masked(inner, MASKS), jax.random.key(0)),
    "masked powerprop": lambda inner: masked(powerprop(inner, {"*kernel": 2.0}), MASKS),
    "masked ssgd": lambda inner: masked(ssgd(inner, {"*kernel": PNorm(1.0)}), MASKS),
    "masked ssgd of updates": lambda inner: masked(ssgd(inner, {"*kernel": PNorm(0.5)}, scale="updates"), MASKS),
    "masked tied levels": lambda inner: masked(tied(inner, {"*kernel": Codebook(2)}), MASKS),
}


MOVING = {
    "rigl": lambda inner: rigl(inner, MASKS, every=2, end=9),
    "set": lambda inner: set_(inner, MASKS, jax.random.key(0), every=1, end=9),
    "acdc": lambda inner: acdc(inner, RULES, boundaries=(1, 3, 4)),
}
QUICK = [
    ("rigl", "sgd with momentum and decay"),
    ("rigl", "adam without epsilon"),
    ("set", "lion"),
    ("acdc", "adafactor"),
]


def start_and_target():
    """A float32 and a bfloat16 leaf under the rules, and one leaf without."""
    rng = np.random.default_rng(0)
    make = lambda: {  # noqa: E731
        "kernel": jnp.asarray(rng.normal(size=(4, 6)), jnp.float32),
        "half/kernel": jnp.asarray(rng.normal(size=(4, 6)), jnp.bfloat16),
        "bias": jnp.asarray(rng.normal(size=6), jnp.float32),
    }
    return make(), make()


def run(transform, params, target, steps=5):
    """Trains on a quadratic whose optimum is dense; yields the parameters and the state after each step."""
    state = jax.jit(transform.init)(params)

    @jax.jit
    def step(params, state):
        gradients = jax.tree.map(lambda w, t: w - t, params, target)
        updates, state = transform.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
        yield params, state


def kernels(params):
    return [np.asarray(params[path], np.float32) for path in MASKS]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_masked_keeps_zeros_under_every_optimizer(optimizer):
    start, target = start_and_target()
    for params, _ in run(masked(OPTIMIZERS[optimizer](), MASKS), start, target):
        assert jax.tree.map(lambda x: x.dtype, params) == jax.tree.map(lambda x: x.dtype, start)
        for kernel in kernels(params):
            assert np.all(kernel[PRUNED] == 0.0)
            # Adam without epsilon computes 0 / 0 in the pruned places: that must not get out.
            assert np.all(np.isfinite(kernel))
    for before, after in zip(kernels(start), kernels(params), strict=True):
        assert np.any(before[~PRUNED] != after[~PRUNED])


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("lion", marks=pytest.mark.slow)])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_every_transform_keeps_the_zeros_of_a_mask(transform, optimizer):
    start, target = start_and_target()
    for params, _ in run(TRANSFORMS[transform](OPTIMIZERS[optimizer]()), start, target):
        for kernel in kernels(params):
            assert np.all(kernel[PRUNED] == 0.0)
            assert np.all(np.isfinite(kernel))


@pytest.mark.parametrize(
    ("transform", "optimizer"),
    [pytest.param(*pair, marks=[] if pair in QUICK else pytest.mark.slow) for pair in product(MOVING, OPTIMIZERS)],
)
def test_what_no_mask_keeps_is_zero_while_masks_move(transform, optimizer):
    start, target = start_and_target()
    seen = []
    for params, state in run(MOVING[transform](OPTIMIZERS[optimizer]()), start, target):
        for path, kernel in zip(MASKS, kernels(params), strict=True):
            mask = np.asarray(state.masks[path])
            assert np.all(kernel[~mask] == 0.0)
            assert np.all(np.isfinite(kernel))
            assert mask.sum() in ((5, 24) if transform == "acdc" else (8,))
        seen.append(mask)
    assert any(np.any(after & ~before) for before, after in pairwise(seen)), "nothing was revived"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_gradual_magnitude_never_revives_a_weight(optimizer):
    start, target = start_and_target()
    dead = [np.zeros((4, 6), bool)] * len(MASKS)
    transform = gradual_magnitude(OPTIMIZERS[optimizer](), RULES, begin=0, end=4, every=1)
    for params, state in run(transform, start, target):
        zeros = [kernel == 0.0 for kernel in kernels(params)]
        for path, now, before in zip(MASKS, zeros, dead, strict=True):
            assert np.all(now[before])
            assert np.array_equal(now, ~np.asarray(state.masks[path]))
        dead = zeros
    assert [np.sum(~zero) for zero in dead] == [5, 5]


@pytest.mark.parametrize("optimizer", ["sgd with momentum and decay", "adamw", "lion", "adafactor"])
def test_group_lasso_holds_zeros_while_its_penalty_outweighs_the_optimizer(optimizer):
    start, target = start_and_target()
    rules = {"kernel": Filters(), "half/kernel": Channels()}
    for params, _ in run(group_lasso(OPTIMIZERS[optimizer](), rules, 100.0, step_size=0.1), start, target):
        for kernel in kernels(params):
            assert np.all(kernel == 0.0)
    assert np.all(params["bias"] != start["bias"])


def test_pruned_moments_stay_zero():
    start, target = start_and_target()
    *_, (_, state) = run(masked(optax.adam(0.1), MASKS), start, target)
    moments = state.inner[0]
    assert np.all(np.asarray(moments.mu["kernel"])[PRUNED] == 0.0)
    assert np.all(np.asarray(moments.nu["kernel"])[PRUNED] == 0.0)
    assert np.all(np.asarray(moments.mu["bias"]) != 0.0)
