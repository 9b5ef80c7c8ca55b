"""Convolutions with packed kernels equal XLA's convolution with the unpacked ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import pallas_kernels as pk
from tests.pallas_kernels.cases import block_mask, error

CASES = {
    "same": dict(window=(3, 3)),
    "valid": dict(window=(3, 2), padding="VALID"),
    "strided": dict(window=(2, 3), strides=(2, 1), padding=((1, 0), (0, 2))),
    "dilated": dict(window=(3, 3), dilation=(2, 2)),
    "pointwise": dict(window=(1, 1)),
    "pointwise, strided": dict(window=(1, 1), strides=(2, 2)),
}


@pytest.mark.parametrize("case", CASES)
def test_convolution(case):
    how = CASES[case]
    height, width = how["window"]
    random = np.random.default_rng(0)
    kernel = random.normal(size=(height * width * 4, 6)).astype(np.float32)
    kernel *= block_mask(*kernel.shape, (2, 3), 0.5)
    x = jnp.asarray(random.normal(size=(2, 7, 6, 4)), jnp.float32)
    w = pk.BlockSparse.from_dense(kernel, (2, 3))
    bias = jnp.arange(6.0)

    def dense(x):
        y = lax.conv_general_dilated(
            x,
            jnp.asarray(kernel).reshape(height, width, 4, 6),
            how.get("strides", (1, 1)),
            how.get("padding", "SAME"),
            rhs_dilation=how.get("dilation", (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return jax.nn.relu(y + bias[None, None, None])

    def packed(x):
        return pk.conv(x, w, bias, jax.nn.relu, **how)

    assert error(packed(x), dense(x)) < 1e-6
    assert error(pk.conv(x, pk.Dense(w.todense()), bias, jax.nn.relu, **how), dense(x)) < 1e-6
    got, want = (jax.grad(lambda x, f=f: (f(x) ** 2).sum())(x) for f in (packed, dense))
    assert error(got, want) < 1e-5


def test_bad_input():
    w = pk.Dense(jnp.ones((9, 1)))
    with pytest.raises(ValueError, match="3x3 over 2 channels has 18 inputs; these weights have 9"):
        pk.conv(jnp.ones((1, 4, 4, 2)), w, window=(3, 3))
    with pytest.raises(ValueError, match="does not fit images"):
        pk.conv(jnp.ones((1, 2, 2, 1)), w, window=(3, 3), padding="VALID")
