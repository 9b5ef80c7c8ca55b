"""Tied weights: levels move together, zeros and codes stay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compressjax.quantizers import Codebook, Levels, PowerOfTwo
from compressjax.training import tied

SPARSE = jnp.array([[0.5, 0.5, 0.0], [-1.0, 0.0, 2.0]])


def step(transform, params, gradients):
    state = transform.init(params)
    updates, state = jax.jit(transform.update)(gradients, state, params)
    return optax.apply_updates(params, updates), state


def test_codebook_levels_get_summed_gradients():
    gradients = {"w": jnp.array([[1.0, 3.0, 9.0], [2.0, 9.0, 0.0]])}
    params, _ = step(tied(optax.sgd(0.125), {"w": Codebook(2)}), {"w": SPARSE}, gradients)
    assert params["w"].tolist() == [[0.0, 0.0, 0.0], [-1.25, 0.0, 2.0]]


def test_levels_stay_equally_spaced():
    w = jnp.array([0.5, -0.5, 1.0, 0.0])
    params, _ = step(tied(optax.sgd(0.125), {"w": Levels(2)}), {"w": w}, {"w": jnp.array([1.0, 0.0, 1.0, 7.0])})
    assert params["w"].tolist() == [0.125, -0.125, 0.25, 0.0]  # q: 0.5 - 0.125 * (1 + 2)


def test_leaves_without_a_rule_train_as_usual():
    params, _ = step(
        tied(optax.sgd(0.5), {"w": Codebook(2)}),
        {"w": SPARSE, "b": jnp.ones(2)},
        {"w": jnp.zeros_like(SPARSE), "b": jnp.ones(2)},
    )
    assert params["b"].tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    "inner", [optax.sgd(1e-3, momentum=0.9), optax.adam(1e-2), optax.adamw(1e-2, weight_decay=0.1)]
)
@pytest.mark.parametrize("quantizer", [Codebook(2), Levels(3)])
def test_zeros_and_codes_survive_many_steps(inner, quantizer):
    key = jax.random.key(0)
    w = jnp.where(jax.random.uniform(key, (20, 10)) < 0.3, jax.random.normal(key, (20, 10)), 0.0)
    params = {"w": quantizer.project(w)}
    zeros = params["w"] == 0
    transform = tied(inner, {"w": quantizer})
    state, codes = transform.init(params), transform.init(params).codes["w"]
    target = jax.random.normal(jax.random.key(1), w.shape)
    update = jax.jit(transform.update)
    before = float(jnp.sum(jnp.where(zeros, 0.0, params["w"] - target) ** 2))
    for _ in range(50):
        updates, state = update({"w": params["w"] - target}, state, params)
        params = optax.apply_updates(params, updates)
    assert not np.asarray(params["w"])[np.asarray(zeros)].any()
    assert (state.codes["w"] == codes).all()
    assert len(np.unique(params["w"])) <= 2**quantizer.bits + 1
    assert float(jnp.sum(jnp.where(zeros, 0.0, params["w"] - target) ** 2)) < before


def test_needs_params_and_a_trainable_quantizer():
    transform = tied(optax.sgd(0.1), {"w": Codebook(2)})
    with pytest.raises(ValueError, match="reads the parameters"):
        transform.update({"w": SPARSE}, transform.init({"w": SPARSE}))
    with pytest.raises(ValueError, match="no levels to train"):
        tied(optax.sgd(0.1), {"w": PowerOfTwo(2)}).init({"w": SPARSE})


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_levels_with_many_entries_stay_where_they_are(dtype):
    level = jnp.asarray([0.3, 1.3, -0.7], dtype)
    params = {"w": level[jnp.arange(6000) % 3]}
    transform = tied(optax.sgd(1.0), {"w": Codebook(2)})
    state = transform.init(params)
    updates, state = transform.update({"w": jnp.zeros(6000, dtype)}, state, params)
    np.testing.assert_array_equal(optax.apply_updates(params, updates)["w"], params["w"])
    updates, _ = transform.update({"w": jnp.full(6000, 2.0**-10, dtype)}, state, params)
    np.testing.assert_allclose(updates["w"].astype(jnp.float32), -2000 / 1024, rtol=0.01)


def test_whole_numbers_are_refused():
    with pytest.raises(ValueError, match="tied: n holds int32, no floating-point numbers"):
        tied(optax.sgd(0.1), {"n": Codebook(2)}).init({"n": jnp.arange(3)})
