"""Convolutions in the form that XLA:CPU runs fast have the values and gradients of the plain one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import zoo
from compressjax.zoo import _layers

# Image side, kernel, channels: smaller than the kernel, wide enough for taps in training, and neither.
SHAPES = [(1, 3, 4), (2, 3, 5), (4, 5, 3), (32, 3, 32), (6, 3, 4)]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("side", "size", "depth"), SHAPES)
def test_forms_agree(side, size, depth, training):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, side, side, depth)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((size, size, depth, 3)), jnp.float32)
    padding = ((size // 2, size // 2),) * 2
    layout = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, **layout)

    def fast(x, kernel):
        return _layers._convolve(x, kernel, (1, 1), padding, training=training, **layout)

    def all_of(f):
        return f(x, kernel), *jax.grad(lambda *args: jnp.sum(jnp.sin(f(*args))), (0, 1))(x, kernel)

    for got, want in zip(all_of(fast), all_of(plain), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other devices take the plain form")
def test_no_image_smaller_than_its_kernel_in_vgg():
    model = zoo.build("vgg16", widths=(4,) * 13)
    params = jax.eval_shape(model.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    convolutions = [
        equation
        for equation in jax.make_jaxpr(model.apply)(params, x).eqns
        if equation.primitive.name == "conv_general_dilated"
    ]
    assert len(convolutions) == 13
    for equation in convolutions:
        image, kernel = (var.aval.shape for var in equation.invars)
        assert min(image[1:3]) >= kernel[0]
    trained = str(jax.make_jaxpr(model.apply_train)(params, x))
    assert trained.count(" conv_general_dilated[") == 10  # the last three, on 2x2 pixels, are sums over taps
