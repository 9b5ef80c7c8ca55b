"""Masked training: bad input, faults that must stay visible, composition."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compressjax.training import masked

PARAMS = {"fc": {"kernel": jnp.array([1.0, 2.0, 3.0]), "bias": jnp.array([4.0])}}
MASKS = {"fc/kernel": jnp.array([True, False, True])}
ONES = {"fc": {"kernel": jnp.ones(3), "bias": jnp.ones(1)}}


def test_hand_case():
    transform = masked(optax.sgd(0.5), MASKS)
    updates, _ = transform.update(ONES, transform.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates["fc"]["kernel"], [-0.5, -2.0, -0.5])
    np.testing.assert_array_equal(updates["fc"]["bias"], [-0.5])


def test_a_mask_of_another_shape_is_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"'fc/kernel' has shape \(2,\), the leaf has \(3,\)"):
        masked(optax.sgd(0.1), {"fc/kernel": jnp.ones(2, bool)}).init(PARAMS)


def test_a_mask_for_no_leaf_is_refused():
    with pytest.raises(ValueError, match="No leaf has the path 'fc/weight'"):
        masked(optax.sgd(0.1), {"fc/weight": jnp.ones(3, bool)}).init(PARAMS)


def test_update_needs_the_parameters():
    transform = masked(optax.sgd(0.1), MASKS)
    with pytest.raises(ValueError, match="masked reads the parameters"):
        transform.update(ONES, transform.init(PARAMS))


@pytest.mark.parametrize("fault", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_a_broken_gradient_is_not_hidden(fault, place):
    gradients = {"fc": {"kernel": jnp.ones(3).at[place].set(fault), "bias": jnp.ones(1)}}
    transform = masked(optax.sgd(0.1), MASKS)
    updates, _ = transform.update(gradients, transform.init(PARAMS), PARAMS)
    assert not np.isfinite(updates["fc"]["kernel"][place])


def test_a_bfloat16_update_still_cancels_a_float32_weight_exactly():
    halve = optax.stateless(lambda updates, params: jax.tree.map(lambda g: g.astype(jnp.bfloat16), updates))
    params = {"w": jnp.array([0.1234567, 1.0])}
    transform = masked(halve, {"w": jnp.array([False, True])})
    updates, _ = transform.update({"w": jnp.ones(2)}, transform.init(params), params)
    assert optax.apply_updates(params, updates)["w"][0] == 0.0


def test_the_state_does_not_share_buffers_with_the_masks():
    masks = {"fc/kernel": jnp.array([True, False, True])}
    transform = masked(optax.adam(0.1), masks)
    step = jax.jit(lambda s: transform.update(ONES, s, PARAMS), donate_argnums=0)
    step(transform.init(PARAMS))
    assert masks["fc/kernel"].tolist() == [True, False, True]


def test_extra_arguments_reach_the_inner_optimizer():
    seen = []

    def update(updates, state, params=None, *, value, **extra):
        seen.append(value)
        return updates, state

    inner = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    transform = masked(inner, MASKS)
    transform.update(ONES, transform.init(PARAMS), PARAMS, value=3.0)
    assert seen == [3.0]
