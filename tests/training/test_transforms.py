"""What every transform of the room must do: jit, vmap, dtypes, checkpoints, guests.  One row per transform."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.core import FrozenDict

from compressjax import trees
from compressjax.projections import BlockRows, Cardinality, Filters, Joint, whole
from compressjax.quantizers import Codebook, Coded, Levels
from compressjax.training import (
    LogSumL2,
    PNorm,
    RandomProjection,
    Reweight,
    SoftProjection,
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

SPARSE = {"*kernel": Cardinality(4)}
KERNEL = [whole("kernel", {"fc": {"kernel": jax.ShapeDtypeStruct((3, 4), jnp.float32)}}, "*")]
SOME = (jnp.arange(12) % 2 == 0).reshape(3, 4)
TRANSFORMS = {
    "acdc": lambda inner: acdc(inner, SPARSE, boundaries=(1, 2, 3)),
    "admm": lambda inner: admm(inner, SPARSE, rho=lambda t: 0.1 + 0.1 * t, every=2),
    "admm, joint": lambda inner: admm(inner, {"*kernel": Joint(Cardinality(4))}, rho=0.1, every=2),
    "admm, resetting": lambda inner: admm(inner, SPARSE, rho=0.1, every=2, reset_inner=True),
    "admm, levels": lambda inner: admm(inner, {"*kernel": Levels(1)}, rho=0.1, every=2),
    "admm, soft": lambda inner: admm(inner, {"*kernel": Levels(1)}, rho=0.1, every=2, approach=SoftProjection(0.05)),
    "admm, random": lambda inner: admm(inner, {"*kernel": Levels(1)}, rho=0.1, every=2, approach=RandomProjection(0.5)),
    "masked": lambda inner: masked(inner, {"fc/kernel": SOME}),
    "gradual_magnitude": lambda inner: gradual_magnitude(inner, SPARSE, begin=1, end=3, every=1),
    "gradual_freeze": lambda inner: gradual_freeze(inner, {"*kernel": Levels(1)}, fractions=(0.5, 1.0), every=2),
    "group_lasso": lambda inner: group_lasso(inner, {"*kernel": Filters()}, lambda t: 0.1 * t, step_size=0.1),
    "group_lasso, coupled": lambda inner: group_lasso(inner, KERNEL, 0.2, step_size=0.1),
    "group_lasso, reweighted": lambda inner: group_lasso(
        inner, {"*kernel": BlockRows(2)}, 0.2, step_size=0.1, reweight=Reweight(every=2)
    ),
    "rigl": lambda inner: rigl(inner, {"fc/kernel": SOME}, every=2, end=9),
    "set": lambda inner: set_(inner, {"fc/kernel": SOME}, jax.random.key(0), every=2, end=9),
    "latent": lambda inner: latent(inner, {"*kernel": Levels(1)}, pull=0.1),
    "rate_penalty": lambda inner: rate_penalty(inner, {"*kernel": Coded(99.0)}, lambda t: 0.1 * t),
    "slimming": lambda inner: slimming(inner, 0.5, step_size=0.1, scales=("*kernel",)),
    "ternary_gradients": lambda inner: ternary_gradients(inner, jax.random.key(0), {"*kernel": 2.5}),
    "powerprop": lambda inner: powerprop(inner, {"*kernel": 2.0}),
    "ssgd": lambda inner: ssgd(inner, {"*kernel": PNorm(1.0)}),
    "ssgd, updates": lambda inner: ssgd(inner, {"*kernel": LogSumL2(0.1)}, scale="updates", clip=2.0),
    "tied, codebook": lambda inner: tied(inner, {"*kernel": Codebook(2)}),
    "tied, levels": lambda inner: tied(inner, {"*kernel": Levels(2)}),
}
ADAM = optax.adam(0.1)
INNERS = {
    "adam": lambda: ADAM,
    "momentum": lambda: optax.sgd(0.1, momentum=0.9),
    "adafactor": lambda: optax.adafactor(0.1, min_dim_size_to_factor=2, momentum=0.9),
}
# The scope keeps the tests of one transform together, which share its compiled functions.
every_transform = pytest.mark.parametrize("transform", TRANSFORMS, scope="module")


def make_params(dtype=jnp.float32, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "fc": {"bias": jnp.asarray(rng.normal(size=4), dtype), "kernel": jnp.asarray(rng.normal(size=(3, 4)), dtype)}
    }


def gradients_of(params):
    return jax.tree.map(lambda w: w - jnp.ones_like(w), params)


@cache
def make(transform, inner="adam"):
    return TRANSFORMS[transform](INNERS[inner]())


@cache
def compiled(made):
    """The two functions of a transform; whatever shares the transform shares their compilations."""

    @jax.jit
    def step(params, state):
        updates, state = made.update(gradients_of(params), state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(made.init), step


def start(made, params):
    return compiled(made)[0](params)


def steps(made, params, state, number):
    for _ in range(number):
        params, state = compiled(made)[1](params, state)
    return params, state


def signature(tree):
    return jax.tree.map(lambda x: (jnp.shape(x), jnp.asarray(x).dtype), tree)


@every_transform
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("inner", INNERS)
def test_shapes_and_dtypes_do_not_change(transform, inner, dtype):
    params = make_params(dtype)
    init, step = compiled(make(transform, inner))
    state = jax.eval_shape(init, params)
    assert jax.eval_shape(step, params, state) == (jax.eval_shape(lambda: params), state)


@every_transform
@pytest.mark.parametrize(("inner", "dtype"), [("adam", jnp.float32), ("adafactor", jnp.bfloat16)])
def test_all_numbers_stay_finite(transform, inner, dtype):
    made = make(transform, inner)
    params = make_params(dtype)
    state = start(made, params)
    after, state_after = steps(made, params, state, 3)
    assert signature(after) == signature(params)
    assert signature(state_after) == signature(state)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(after))


@every_transform
def test_a_population_is_one_vmap(transform):
    made = make(transform)
    members = [make_params(seed=seed) for seed in (0, 1)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)

    @jax.jit
    @jax.vmap
    def run(params):
        step = compiled(made)[1]
        return jax.lax.scan(lambda carry, _: (step(*carry), None), (params, made.init(params)), length=3)[0][0]

    together = run(stacked)
    for index, member in enumerate(members):
        alone, _ = steps(made, member, start(made, member), 3)
        np.testing.assert_allclose(together["fc"]["kernel"][index], alone["fc"]["kernel"], rtol=1e-5, atol=1e-6)


@every_transform
def test_a_state_taken_apart_and_put_together_continues_exactly(transform):
    made = make(transform)
    params = make_params()
    middle, state = steps(made, params, start(made, params), 1)
    flat, structure = jax.tree.flatten(state)
    assert structure == jax.tree.structure(jax.eval_shape(made.init, params))
    restored = jax.tree.unflatten(structure, [jnp.asarray(np.array(leaf)) for leaf in flat])
    one, _ = steps(made, middle, state, 2)
    two, _ = steps(made, middle, restored, 2)
    jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.slow
@every_transform
def test_the_state_can_be_donated_with_the_parameters(transform):
    made = make(transform)
    params = make_params()
    state = made.init(params)

    def step(params, state):
        updates, state = made.update(gradients_of(params), state, params)
        return optax.apply_updates(params, updates), state

    jax.block_until_ready(jax.jit(step, donate_argnums=(0, 1))(params, state))


@every_transform
def test_guests_train_like_a_plain_dict(transform):
    # Not only the same numbers: the same programs, and so nothing needs to be compiled.
    init, step = compiled(make(transform))
    params = make_params()

    def programs(params):
        first, state = jax.make_jaxpr(init, return_shape=True)(params)
        later, after = jax.make_jaxpr(step, return_shape=True)(params, state)
        assert jax.tree.structure(after) == jax.tree.structure((params, state))
        return str(first), str(later)

    frozen = FrozenDict(params)
    state = nnx.State({"fc": {name: nnx.Param(leaf) for name, leaf in params["fc"].items()}})
    for guest in (frozen, state):
        assert list(trees.leaves(guest)) == list(trees.leaves(params))
        assert programs(guest) == programs(params)


@every_transform
def test_unconstrained_leaves_are_trained_by_the_inner_optimizer_alone(transform):
    if transform == "admm, resetting":
        pytest.skip("it starts its inner optimizer again")
    made, inner = make(transform), ADAM
    params = make_params()
    ours, _ = steps(made, params, start(made, params), 3)
    plain, _ = steps(inner, params, start(inner, params), 3)
    np.testing.assert_array_equal(ours["fc"]["bias"], plain["fc"]["bias"])


def test_stages_compose():
    # Prune to six, keep the zeros, prune to three within them, quantize what is left.
    params = make_params()
    first = gradual_magnitude(optax.adam(0.01), {"*kernel": Cardinality(6)}, begin=0, end=2, every=1)
    params, _ = steps(first, params, start(first, params), 2)
    masks = {"fc/kernel": params["fc"]["kernel"] != 0}
    second = masked(gradual_magnitude(optax.adam(0.01), {"*kernel": Cardinality(3)}, begin=0, end=2, every=1), masks)
    params, _ = steps(second, params, start(second, params), 2)
    third = gradual_freeze(optax.adam(0.01), {"*kernel": Levels(1)}, fractions=(0.5, 1.0), every=1)
    params, _ = steps(third, params, start(third, params), 2)
    kernel = np.asarray(params["fc"]["kernel"])
    assert np.sum(kernel != 0) == 3
    assert np.all(kernel[~np.asarray(masks["fc/kernel"])] == 0)
    assert len(np.unique(np.abs(kernel[kernel != 0]))) == 1
