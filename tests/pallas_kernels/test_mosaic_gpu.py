"""Hopper kernels, interpreted: shared memory, copies and warpgroups are simulated on the host (law 5)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pallas_kernels as pk
from pallas_kernels import _compat
from pallas_kernels._interface import Epilogue
from pallas_kernels.mosaic_gpu import blocks
from tests.pallas_kernels import cases
from tests.pallas_kernels.test_lowering_gpu import code_blocks, codes, half

pytestmark = pytest.mark.skipif(
    not _compat.interprets_mosaic_gpu(), reason="the interpreter of Mosaic GPU kernels is public from JAX 0.11 on"
)
EPSILON = {jnp.dtype(jnp.bfloat16): 2**-8, jnp.dtype(jnp.float16): 2**-11}


def normal(shape, dtype, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def dense(array):
    return np.asarray(array, np.float64)


# Rows, weights, activation.
GRADIENTS = {
    "64x64, few rows": (5, half, None),
    "128x64, two warpgroups, ragged": (70, lambda: half((128, 64), 200, 100), jax.nn.relu),
    "no blocks, float16": (5, lambda: cases.cast(cases.blocks(128, 64, (64, 64), 0.0), jnp.float16), None),
}


@pytest.mark.parametrize("case", GRADIENTS)
def test_product_and_gradients(case):
    rows, make, activation = GRADIENTS[case]
    w = make()
    x, bias = normal((rows, w.shape[0]), w.dtype), normal(w.shape[1:], jnp.float32, 2)
    g = normal((rows, w.shape[1]), w.dtype, 3)

    @jax.jit
    def call(x, w, bias, g):
        def product(x, values, bias):
            w_of = w.with_values(values)
            return pk.matmul(x, w_of, bias, activation, implementation="mosaic_gpu", interpret=True)

        y, pull = jax.vjp(product, x, w.values, bias)
        return y, *pull(g)

    y, dx, dvalues, dbias = call(x, w, bias, g)
    before = dense(x) @ dense(w.todense()) + dense(bias)
    passes = np.ones_like(before) if activation is None else np.asarray(before > 0, np.float64)
    back = dense(g) * passes
    limit = EPSILON[jnp.dtype(w.dtype)]
    assert y.dtype == dx.dtype == dvalues.dtype == w.dtype
    assert cases.error(y, before * passes) < limit
    assert cases.error(dx, back @ dense(w.todense()).T) < limit
    # Blocks that only complete the list have no gradient.
    blocks_of_gradient = dense(w.gather(jnp.asarray(dense(x).T @ back, jnp.float32)))
    assert cases.error(dvalues, blocks_of_gradient * np.asarray(w.live)[:, None, None]) < limit
    assert cases.error(dbias, back.sum(0)) < limit


# Rows, weights, activation.
FORWARD = {
    "int8, one row": (1, lambda: codes(8), None),
    "int8 in groups, gelu": (70, lambda: codes(8, 64), jax.nn.gelu),
    "int4": (9, lambda: codes(4), None),
    "int8 blocks": (5, lambda: code_blocks(8), None),
    "int4 blocks": (5, lambda: code_blocks(4), jax.nn.relu),
}


@pytest.mark.parametrize("case", FORWARD)
def test_product_with_codes(case):
    rows, make, activation = FORWARD[case]
    w = make()
    x, bias = normal((rows, w.shape[0]), jnp.bfloat16), normal(w.shape[1:], jnp.float32, 2)
    y = jax.jit(lambda *a: pk.matmul(*a, activation, implementation="mosaic_gpu", interpret=True))(x, w, bias)
    # The codes and scales are what is exact: dequantizing to bfloat16 would round their product.
    want = dense(x) @ dense(cases.cast(w, jnp.float32).todense()) + dense(bias)
    want = want if activation is None else activation(want)
    assert cases.error(y, want) < EPSILON[jnp.dtype(jnp.bfloat16)]


def test_by_hand():
    """Two blocks, the lower one with half of the sign turned: sums of ones are exact."""
    matrix = np.zeros((128, 64), np.float32)
    matrix[:64], matrix[64:, :32] = 1, -1
    w = cases.cast(pk.BlockSparse.from_dense(matrix, (64, 64)), jnp.bfloat16)
    x = jnp.ones((2, 128), jnp.bfloat16).at[1].set(2)
    y = jax.jit(lambda x, w: pk.matmul(x, w, implementation="mosaic_gpu", interpret=True))(x, w)
    assert np.array_equal(np.asarray(y, np.float32), np.repeat([[0, 64], [0, 128]], 32, 1))


@pytest.mark.parametrize("cut", [blocks.Tiling(128, 1), blocks.Tiling(128, 2)])
def test_every_cut_is_the_same_product(cut):
    w = half((128, 128), 256, 256)
    x = normal((140, 256), jnp.bfloat16)
    epilogue = Epilogue(None, jnp.dtype(jnp.float32))
    y = jax.jit(lambda x, w: blocks.product(x, w, None, epilogue, cut=cut, interpret=True))(x, w)
    assert cases.error(y, dense(x) @ dense(w.todense())) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("group", [None, 128, 64])
@pytest.mark.parametrize("rows", [3, 20, 130])
@pytest.mark.parametrize("bits", [8, 4])
def test_codes_of_all_sizes(bits, rows, group):
    w = codes(bits, group)
    x = normal((rows, 256), jnp.bfloat16)
    y = jax.jit(lambda x, w: pk.matmul(x, w, implementation="mosaic_gpu", interpret=True))(x, w)
    want = dense(x) @ dense(cases.cast(w, jnp.float32).todense())
    assert cases.error(y, want) < EPSILON[jnp.dtype(jnp.bfloat16)]
