"""Law 5 on networks: packed layers compute what the dense masked ones do, forward and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from compressjax import runtime, trees
from compressjax.runtime import As
from tests.runtime.nets import FORMS, params, weights


def error(got, want):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    return np.linalg.norm(got - want) / np.linalg.norm(want)


@pytest.mark.parametrize("form", FORMS)
def test_linear(form):
    w = np.where(np.arange(24)[:, None] % 4 < 2, weights(24, 10), np.float32(0))
    x, bias = weights(2, 3, 24, seed=1), weights(10, seed=2)
    packed = runtime.pack({"w": w}, {"w": FORMS[form]})["w"]
    want = np.maximum(x.astype(np.float64) @ w + bias, 0)
    for leaf in (packed, w):
        assert error(runtime.linear(jnp.asarray(x), leaf, jnp.asarray(bias), jax.nn.relu), want) < 1e-6


def reference_conv(x, w, strides, padding, dilation):
    return lax.conv_general_dilated(
        x, w, strides, padding, rhs_dilation=dilation, dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )


@pytest.mark.parametrize(
    ("window", "strides", "padding", "dilation"),
    [
        ((3, 3), (1, 1), "SAME", (1, 1)),
        ((3, 2), (2, 1), "SAME", (1, 1)),
        ((2, 3), (1, 2), "VALID", (1, 2)),
        ((1, 1), (2, 2), "VALID", (1, 1)),
        ((3, 3), (2, 2), ((1, 0), (2, 1)), (2, 1)),
    ],
)
def test_conv(window, strides, padding, dilation):
    w = jnp.asarray(np.where(np.arange(4)[:, None] < 2, weights(*window, 4, 6), np.float32(0)))
    x, bias = jnp.asarray(weights(2, 7, 6, 4, seed=1)), jnp.asarray(weights(6, seed=2))
    want = reference_conv(x, w, strides, padding, dilation) + bias.reshape(1, 1, 1, 6)
    packed = runtime.pack({"w": w}, {"w": As(block=(2, 3))})["w"]
    for leaf in (packed, w):
        got = runtime.conv(x, leaf, bias, strides=strides, padding=padding, dilation=dilation)
        assert error(got, want) < 1e-5


def network(p, x):
    """A plain function, written once for dense and for packed parameters."""
    x = runtime.conv(x, p["conv"]["kernel"], p["conv"]["bias"], jax.nn.relu, strides=2)
    x = x.reshape(x.shape[0], -1, 24).sum(1)
    return runtime.linear(x, p["fc"]["kernel"], p["fc"]["bias"])


RULES = {"conv/kernel": As(block=(2, 8)), "fc/kernel": As(nm=(2, 4))}


def test_a_network_and_its_gradients():
    dense = jax.tree.map(jnp.asarray, params())
    packed = runtime.pack(dense, RULES)
    x = jnp.asarray(weights(2, 6, 6, 4, seed=3))

    def loss(p, x):
        return jnp.sum(jnp.square(network(p, x)))  # terms of one sign: rounding is not magnified

    value, (dp, dx) = jax.jit(jax.value_and_grad(loss, (0, 1)))(dense, x)

    # Packed parameters hold integers too; float leaves are trained by path.
    leaves = trees.leaves(packed)
    floats = {path: leaf for path, leaf in leaves.items() if jnp.issubdtype(leaf.dtype, jnp.floating)}
    got, (df, dx2) = jax.jit(jax.value_and_grad(lambda f, x: loss(trees.update(packed, f), x), (0, 1)))(floats, x)
    assert error(got, value) < 1e-5
    assert error(dx2, dx) < 1e-5
    back = runtime.unpack(trees.update(packed, df))
    for path, gradient in trees.leaves(back).items():
        kept = trees.leaves(dense)[path] != 0 if "kernel" in path else True
        assert error(gradient * kept, trees.leaves(dp)[path] * kept) < 1e-5
    # Here every stored block is whole, and a block that only completes the list has no gradient.
    assert not (trees.leaves(back)["conv/kernel"] * (dense["conv"]["kernel"] == 0)).any()
    assert set(floats) == {"conv/kernel/matrix/values", "fc/kernel/matrix/values", "conv/bias", "fc/bias"}


def test_low_precision_goes_in_and_comes_out():
    w = jnp.asarray(weights(8, 4), jnp.bfloat16)
    x = jnp.ones((3, 8), jnp.bfloat16)
    packed = runtime.pack({"w": w}, {"w": As(block=(2, 2))})["w"]
    assert packed.dtype == runtime.linear(x, packed).dtype == runtime.linear(x, w).dtype == jnp.bfloat16
    assert error(runtime.linear(x, packed), np.asarray(x, np.float64) @ np.asarray(w, np.float64)) < 1e-2


@pytest.mark.parametrize("pair", [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_a_dense_kernel_of_another_dtype_is_what_its_packed_form_is(pair):
    x, w = jnp.asarray(weights(1, 5, 5, 2), pair[0]), jnp.asarray(weights(3, 3, 2, 4, seed=1), pair[1])
    packed = runtime.pack({"w": w}, {"w": As(block=(1, 1))})["w"]
    dense = runtime.conv(x, w)
    assert dense.dtype == x.dtype
    assert error(dense, runtime.conv(x, packed)) < 1e-2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w, k: runtime.linear(jnp.ones((2, 5)), w), r"linear: inputs of shape \(2, 5\) do not fit weights"),
        (lambda w, k: runtime.linear(jnp.ones((2, 4)), k), "linear: weights of shape .* 2 axes are needed"),
        (lambda w, k: runtime.conv(jnp.ones((2, 5, 5, 3)), k), r"conv: inputs of shape \(2, 5, 5, 3\)"),
        (lambda w, k: runtime.linear(jnp.ones((2, 4)), w, jnp.ones(1)), r"linear: a bias of shape \(1,\) does not fit"),
        (lambda w, k: runtime.conv(jnp.ones((2, 5, 5, 4)), k, jnp.ones(3)), r"conv: a bias of shape \(3,\)"),
        (lambda w, k: runtime.conv(jnp.ones((2, 5, 5, 4)), k, strides=0), "strides=0 must be one or two whole"),
        (lambda w, k: runtime.conv(jnp.ones((2, 5, 5, 4)), k, dilation=(1, 2, 1)), r"dilation=\(1, 2, 1\) must be"),
        (lambda w, k: runtime.conv(jnp.ones((2, 5, 5, 4)), k, padding="FULL"), "padding='FULL' must be 'SAME'"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_refused(call, message):
    tree = {"w": np.ones((4, 4), np.float32), "k": np.ones((3, 3, 4, 2), np.float32)}
    packed = runtime.pack(tree, {"*": As(block=(2, 2))})
    for form in (packed, tree):
        with pytest.raises(ValueError, match=message):
            call(form["w"], form["k"])


def test_what_packed_forms_alone_know_is_refused():
    packed = runtime.pack({"k": np.ones((3, 3, 4, 2), np.float32)}, {"*": As(block=(2, 2))})["k"]
    with pytest.raises(ValueError, match=r"a window of .* does not fit"):
        runtime.conv(jnp.ones((2, 2, 2, 4)), packed, padding="VALID")
    with pytest.raises(ValueError, match="no implementation 'fast'"):
        runtime.conv(jnp.ones((2, 5, 5, 4)), packed, implementation="fast")
