import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import zoo
from compressjax.zoo import _mobilenet

SHIFT, GROUPED = _mobilenet.depthwise_shift, _mobilenet.depthwise_grouped
TINY = {"widths": (8, 9, 10, 11, 12, 13), "blocks": (1, 2), "strides": (1, 1, 2), "input_shape": (8, 8, 3)}


@pytest.mark.parametrize("stride, side", [(1, (5, 2)), (2, (6, 4)), (2, (5, 7))])
def test_shifted_multiply_adds_are_the_grouped_convolution(stride, side):
    x = jax.random.normal(jax.random.key(0), (2, *side, 5))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 1, 5))

    def both(form, x, kernel):
        out = form(x, kernel, stride)
        return out, jax.grad(lambda x, k: jnp.sin(form(x, k, stride)).sum(), (0, 1))(x, kernel)

    got, want = (jax.jit(both, static_argnums=0)(form, x, kernel) for form in (SHIFT, GROUPED))
    assert got[0].shape[1:3] == tuple((n - 1) // stride + 1 for n in side)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), got, want)


def test_the_form_is_an_explicit_choice():
    def grouped(form):
        model = zoo.build("mobilenet_v2", depthwise=form, **TINY)
        params = jax.eval_shape(model.init, jax.random.key(0))
        x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
        return [f"feature_group_count={n}" in str(jax.make_jaxpr(model.apply)(params, x)) for n in (8, 11, 12)]

    assert grouped("grouped") == [True] * 3
    assert grouped("shift") == [False] * 3
    assert jax.default_backend() == "cpu"
    assert grouped("auto") == [False] * 3


def test_expansions_are_six_times_what_comes_in():
    model = zoo.build("mobilenet_v2")
    assert model.widths[:7] == (32, 16, 24, 96, 144, 32, 144)
    assert model.widths[-3:] == (320, 960, 1280)


@pytest.mark.parametrize(
    "kwargs, match",
    [
        ({"depthwise": "fast"}, "depthwise='fast' must be one of auto, shift, grouped"),
        ({"strides": (1, 2)}, "one for conv0 and one for each stage"),
        ({"blocks": (1,) * 8}, "more than the 7 stages"),
    ],
)
def test_bad_builds(kwargs, match):
    with pytest.raises(ValueError, match=match):
        zoo.build("mobilenet_v2", **kwargs)
