"""Law 5: every implementation agrees with a dense float64 reference, forward and both gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import pallas_kernels as pk
from tests.pallas_kernels.cases import FORMATS, cast, error

TOLERANCE = {"float32": 1e-6, "bfloat16": 1e-2, "float16": 2e-3}


def operands(w, lead=(5,), seed=3):
    random = np.random.default_rng(seed)
    return tuple(jnp.asarray(random.normal(size=(*lead, size)), jnp.float32) for size in w.shape)


@pytest.mark.parametrize("implementation", ["xla", "reference", "auto"])
@pytest.mark.parametrize("name", FORMATS)
def test_products(name, implementation):
    w = FORMATS[name]()
    x, g = operands(w, (2, 3))
    dense = np.asarray(w.todense(), np.float64)
    assert error(pk.matmul(x, w, implementation=implementation), np.asarray(x, np.float64) @ dense) < 1e-6
    assert error(pk.matmul_transposed(g, w, implementation=implementation), np.asarray(g, np.float64) @ dense.T) < 1e-6
    outer = pk.outer(x, g, w, implementation=implementation)
    full = np.einsum("abk,abn->kn", np.asarray(x, np.float64), g)
    pattern = w.dequantize()
    # The values of a pattern that holds the full gradient there are what `outer` gives.
    assert outer.shape == pattern.values.shape
    ones = jnp.ones_like(pattern.values)
    if isinstance(pattern, pk.BlockSparse):
        ones *= pattern.live[:, None, None]
    on_pattern = np.asarray(pattern.with_values(ones).todense()) > 0
    assert error(np.asarray(pattern.with_values(outer).todense()), full * on_pattern) < 1e-6


@pytest.mark.parametrize("name", FORMATS)
def test_gradients_are_those_of_the_dense_product(name):
    w = FORMATS[name]()
    x, _ = operands(w)
    bias = jnp.linspace(-1, 1, w.shape[1])

    def packed(x, w, bias):
        return (pk.matmul(x, w, bias, jnp.tanh) ** 2).sum()

    def dense(x, w, bias):
        if isinstance(w, pk.BlockSparse):
            # Blocks that only complete the list are zero, and stay so.
            w = w.with_values(jnp.where(w.live[:, None, None], w.dequantize().values, 0))
        return (jnp.tanh(jnp.matmul(x, w.todense()) + bias[None]) ** 2).sum()

    got = jax.jit(jax.grad(packed, (0, 1, 2), allow_int=True))(x, w, bias)
    want = jax.grad(dense, (0, 1, 2), allow_int=True)(x, w, bias)
    floats = [(a, b) for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True) if a.dtype == np.float32]
    assert len(floats) == 2 + sum(leaf.dtype == np.float32 for leaf in jax.tree.leaves(w))
    assert all(error(a, b) < 1e-5 for a, b in floats)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["blocks", "2:4", "channels", "int8", "int4 blocks"])
def test_low_precision_rounds_once(name, dtype):
    w = cast(FORMATS[name](), dtype)
    x, _ = operands(w)
    x = x.astype(dtype)
    got = pk.matmul(x, w)
    assert got.dtype == dtype
    want = np.asarray(x, np.float64) @ np.asarray(w.todense(), np.float64)
    assert error(got.astype(jnp.float32), want) < TOLERANCE[dtype]
    assert error(pk.matmul(x, w, out_dtype=jnp.float32), want) < (1e-6 if "int" not in name else TOLERANCE[dtype])


def test_vmap_over_inputs_and_over_values():
    w = FORMATS["blocks"]()
    x, _ = operands(w, (3, 5))
    dense = np.asarray(w.todense(), np.float64)
    assert error(jax.vmap(pk.matmul, (0, None))(x, w), np.asarray(x, np.float64) @ dense) < 1e-6
    values = jnp.stack([w.values, 2 * w.values, -w.values])
    got = jax.vmap(lambda x, values: pk.matmul(x, w.with_values(values)))(x, values)
    assert error(got, (np.asarray(x, np.float64) @ dense) * np.array([1, 2, -1])[:, None, None]) < 1e-6


def test_numerical_gradient_of_the_input():
    w = FORMATS["blocks"]()
    x, _ = operands(w)
    check_grads(lambda x: pk.matmul(jnp.asarray(x), w, implementation="xla"), (x,), order=1, modes=["rev"], atol=1e-2)
