"""Straight-through training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax.projections import project
from compressjax.quantizers import Levels
from compressjax.training import straight_through


def test_the_loss_sees_levels_and_the_gradient_passes():
    rules = {"w": Levels(2)}
    params = {"w": jnp.array([0.3, -1.0, 0.0, 2.2]), "b": jnp.array([0.7])}
    x = jnp.array([1.0, 2.0, 3.0, 4.0])

    def loss(params, x, power=1):
        return jnp.sum(params["w"] * x) ** power + jnp.sum(params["b"])

    quantized = straight_through(loss, rules)
    value, gradient = jax.jit(jax.value_and_grad(lambda p: quantized(p, x, power=2)))(params)
    expected, expected_gradient = jax.value_and_grad(lambda p: loss(p, x, power=2))(project(rules, params))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient["w"], expected_gradient["w"], rtol=1e-6)
    np.testing.assert_array_equal(gradient["b"], [1.0])


def test_a_rule_without_a_leaf_is_refused_at_the_call():
    with pytest.raises(ValueError, match="matches no leaf"):
        straight_through(lambda params: 0.0, {"v": Levels(2)})({"w": jnp.ones(2)})
