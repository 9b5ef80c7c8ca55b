"""Every Hopper kernel is lowered for CUDA, here, where there is none: shared memory and layouts are checked then."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pallas_kernels as pk
from pallas_kernels import mosaic_gpu
from pallas_kernels._interface import Epilogue
from pallas_kernels.mosaic_gpu import _epilogue, blocks
from tests.pallas_kernels import cases

TARGET = "@mosaic_gpu_v2"


def half(block=(64, 64), k=256, n=192, dtype=jnp.bfloat16):
    return cases.cast(cases.blocks(k, n, block), dtype)


def codes(bits, group=None, k=256, n=192):
    return cases.cast(pk.Quantized.from_dense(cases.weights(k, n), bits, group), jnp.bfloat16)


def code_blocks(bits):
    w = half((128, 128), 256, 256)
    return w.with_values(pk.Quantized.from_dense(w.values, bits))


# Rows, weights, and the kernels of the product with its gradients: codes have the product, and their pattern its own.
CASES = {
    "64x64, few rows": (5, half, 3),
    "128x64, two warpgroups": (100, lambda: half((128, 64)), 3),
    "64x128, large tiles": (1000, lambda: half((64, 128)), 3),
    "128x128, ragged": (600, lambda: half((128, 128), 200, 100), 3),
    "float16": (5, lambda: half(dtype=jnp.float16), 3),
    "int8": (1, lambda: codes(8), 1),
    "int8, many rows": (200, lambda: codes(8, 64), 1),
    "int4": (20, lambda: codes(4), 1),
    "int4 in groups": (20, lambda: codes(4, 128), 1),
    "int8 blocks": (5, lambda: code_blocks(8), 2),
    "int4 blocks": (5, lambda: code_blocks(4), 2),
}


def product(x, w, *bias, activation=None):
    return pk.matmul(x, w, *bias, activation=activation, implementation="mosaic_gpu", platform="gpu")


def lowered(function, *operands):
    return jax.jit(function).trace(*operands).lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("case", CASES)
def test_product_and_gradients_are_kernels(case):
    rows, make, kernels = CASES[case]
    w = make()
    x = jax.ShapeDtypeStruct((rows, w.shape[0]), w.dtype)
    bias = jax.ShapeDtypeStruct((w.shape[1],), jnp.float32)

    def gradients(x, w, bias):
        y, pull = jax.vjp(product, x, w, bias)
        return [leaf for leaf in jax.tree.leaves(pull(y)) if leaf.dtype != jax.dtypes.float0], y

    assert lowered(gradients, x, w, bias).count(TARGET) == kernels


def test_auto_takes_the_kernels_on_gpus():
    w = half()
    x = jax.ShapeDtypeStruct((5, 256), jnp.bfloat16)
    assert lowered(lambda x, w: pk.matmul(x, w, platform="gpu"), x, w).count(TARGET) == 1
    f32 = jax.ShapeDtypeStruct((5, 256), jnp.float32)
    assert TARGET not in lowered(lambda x, w: pk.matmul(x, w, platform="gpu"), f32, cases.cast(w, jnp.float32))


ACTIVATIONS = {name: getattr(jax.nn, name) for name in ("relu", "gelu", "silu", "tanh", "leaky_relu")}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_is_fused(name):
    inside, outside = _epilogue.split(Epilogue(ACTIVATIONS[name], jnp.dtype(jnp.bfloat16)))
    assert inside.activation is not None
    assert outside.activation is None
    z = jnp.linspace(-3, 3, 128, dtype=jnp.float32).reshape(8, 16)
    np.testing.assert_allclose(inside.activation(z), ACTIVATIONS[name](z), rtol=1e-6)
    w, x, bias = half(), jax.ShapeDtypeStruct((64, 256), jnp.bfloat16), jax.ShapeDtypeStruct((192,), jnp.float32)
    text = lowered(functools.partial(product, activation=ACTIVATIONS[name]), x, w, bias)
    assert text.count(TARGET) == 1
    for operation in ("maximum", "tanh", "logistic", "exponential"):
        assert f"stablehlo.{operation}" not in text


def test_other_activations_follow_the_kernel():
    shift = jnp.asarray(0.5)
    for activation in (jax.nn.softplus, jax.nn.elu, jax.nn.softmax, lambda z: z + shift):
        inside, outside = _epilogue.split(Epilogue(activation, jnp.dtype(jnp.bfloat16)))
        assert inside == Epilogue(None, jnp.float32)
        assert outside.activation is activation


X = jax.ShapeDtypeStruct((8, 256), jnp.bfloat16)
BAD = {
    "float32": ("matmul", jax.ShapeDtypeStruct((8, 256), jnp.float32), half, "bfloat16 and float16, not float32"),
    "blocks": ("matmul", X, lambda: half((32, 64)), "blocks of 64 or 128 inputs by 64 or 128 outputs, not 32 x 64"),
    "other dtype": ("matmul", X, lambda: half(dtype=jnp.float32), "x is bfloat16 and the weights are float32"),
    "no rows": ("matmul", jax.ShapeDtypeStruct((0, 256), jnp.bfloat16), half, "no rows"),
    "2:4": ("matmul", X, cases.FORMATS["2:4"], "no kernel for NM"),
    "codebook": ("matmul", X, cases.codebook, "no kernel for codebooks"),
    "int8 inputs": ("matmul", X, lambda: codes(8, k=96), "multiples of 64 and outputs of 64, not 96 x 192"),
    "int4 inputs": ("matmul", X, lambda: codes(4, k=192), "inputs come in multiples of 128"),
    "int8 outputs": ("matmul", X, lambda: codes(8, n=100), "outputs of 64, not 256 x 100"),
    "groups": ("matmul", X, lambda: codes(8, 32), "multiples of 64 inputs, not for 32"),
    "codes backwards": ("transposed", X, lambda: codes(8), "forward direction only"),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals(case):
    operation, x, make, message = BAD[case]
    assert message in mosaic_gpu.refuse(operation, x, make())


def test_explicit_choice_says_why():
    with pytest.raises(ValueError, match=r"cannot compute matmul of \(8, 256\) by \(256, 192\): it takes blocks of"):
        pk.matmul(jnp.ones((8, 256), jnp.bfloat16), half((32, 64)), implementation="mosaic_gpu", platform="gpu")


def test_tiles_grow_with_the_rows():
    assert [blocks.tiling(rows).total for rows in (1, 64, 65, 512, 513)] == [64, 64, 128, 128, 256]
