"""Small functions, one per construct that channels are followed through, with the terms that are to be found."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


class Case(NamedTuple):
    f: Callable[..., Any]
    params: Any
    xs: tuple[Any, ...]
    groups: int
    terms: Mapping[tuple[str, int], str]


CASES: dict[str, Callable[[], Case]] = {}


def case(make):
    CASES[make.__name__] = make
    return make


def weights(**shapes):
    """Random float32 leaves, positive so that a variance may be among them."""
    rng = np.random.default_rng(len(shapes))
    scale = {name: np.sqrt(np.prod(shape[:-1])) for name, shape in shapes.items()}
    return {name: ((rng.random(shape) + 0.1) / scale[name]).astype(np.float32) for name, shape in shapes.items()}


def inputs(*shape):
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def conv(x, w, **settings):
    settings = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": ("NHWC", "HWIO", "NHWC"), **settings}
    return lax.conv_general_dilated(x, w, **settings)


def dense(x, w, b):
    return x @ w + jnp.broadcast_to(b, (*x.shape[:-1], b.shape[0]))


def along(b, x):
    """A vector over the last axis, spread over the others."""
    return jnp.broadcast_to(b, x.shape)


def numbered(module, *xs):
    """Random variables for a Linen module, without running it."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *xs)
    rng = np.random.default_rng(3)
    return jax.tree.map(
        lambda s: ((rng.random(s.shape) + 0.1) / np.sqrt(max(1, np.prod(s.shape[:-1])))).astype(s.dtype), shapes
    )


@case
def two_dense_layers():
    params = weights(a=(4, 6), a_bias=(6,), b=(6, 3))

    def f(p, x):
        return jax.nn.gelu(dense(x, p["a"], p["a_bias"])) @ p["b"]

    return Case(f, params, (inputs(2, 4),), 1, {("a", 1): "g0", ("a_bias", 0): "g0", ("b", 0): "g0", ("b", 1): "3"})


@case
def exponential_before_a_reader():
    def f(p, x):
        return jax.nn.sigmoid(jnp.exp(x @ p["a"])) @ p["b"]

    return Case(f, weights(a=(4, 6), b=(6, 3)), (inputs(2, 4),), 1, {("b", 0): "g0"})


@case
def einsum_kernels():
    def f(p, x):
        h = jnp.einsum("bi,ijk->bjk", x, p["a"])
        return jnp.einsum("bjk,kjo->bo", jnp.tanh(h), p["b"])

    return Case(
        f, weights(a=(4, 3, 5), b=(5, 3, 2)), (inputs(2, 4),), 2, {("a", 1): "g0", ("a", 2): "g1", ("b", 0): "g1"}
    )


@case
def convolution_then_flatten():
    def f(p, x):
        x = jax.nn.relu(conv(x, p["a"]) + p["a_bias"][None, None, None])
        x = lax.reduce_window(x, -np.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return x.reshape(len(x), -1) @ p["b"]

    params = weights(a=(3, 3, 2, 5), a_bias=(5,), b=(20, 3))
    return Case(f, params, (inputs(2, 4, 4, 2),), 1, {("a", 3): "g0", ("a_bias", 0): "g0", ("b", 0): "2*2*g0"})


@case
def channels_first():
    spec = {"dimension_numbers": ("NCHW", "OIHW", "NCHW")}

    def f(p, x):
        return conv(jax.nn.relu(conv(x, p["a"], **spec)), p["b"], **spec).mean((2, 3))

    return Case(f, weights(a=(5, 2, 3, 3), b=(3, 5, 1, 1)), (inputs(2, 2, 4, 4),), 1, {("a", 0): "g0", ("b", 1): "g0"})


@case
def depthwise():
    def f(p, x):
        x = jax.nn.relu(conv(x, p["a"]))
        x = jax.nn.relu(conv(x, p["b"], feature_group_count=5))
        return conv(x, p["c"])

    params = weights(a=(1, 1, 2, 5), b=(3, 3, 1, 10), c=(1, 1, 10, 3))
    return Case(f, params, (inputs(2, 3, 3, 2),), 2, {("a", 3): "g0", ("b", 3): "g0*g1", ("c", 2): "g0*g1"})


@case
def grouped_convolution_and_shuffle():
    def f(p, x):
        x = jax.nn.relu(conv(conv(x, p["a"]), p["b"], feature_group_count=2))
        x = jnp.swapaxes(x.reshape(*x.shape[:-1], 2, 3), -1, -2).reshape(x.shape)
        return conv(x, p["c"])

    params = weights(a=(1, 1, 2, 8), b=(3, 3, 4, 6), c=(1, 1, 6, 3))
    terms = {("a", 3): "g0*g1", ("b", 2): "g1", ("b", 3): "g0*g2", ("c", 2): "g2*g0"}
    return Case(f, params, (inputs(2, 3, 3, 2),), 3, terms)


@case
def dilated_and_transposed():
    def f(p, x):
        x = jax.nn.relu(conv(x, p["a"], rhs_dilation=(2, 2)))
        x = lax.conv_transpose(x, p["b"], (2, 2), "SAME")
        return conv(jax.nn.relu(x), p["c"], window_strides=(2, 2), padding=[(1, 0), (0, 1)])

    params = weights(a=(2, 2, 2, 4), b=(2, 2, 4, 5), c=(2, 2, 5, 3))
    return Case(f, params, (inputs(1, 3, 3, 2),), 2, {("a", 3): "g0", ("b", 2): "g0", ("b", 3): "g1", ("c", 2): "g1"})


@case
def batch_norm_in_eval_mode():
    def f(p, x):
        x = conv(x, p["a"])

        def spread(v):
            return along(v, x)

        x = (x - spread(p["mean"])) * spread(lax.rsqrt(p["var"] + 1e-5) * p["scale"]) + spread(p["bias"])
        return conv(jax.nn.relu(x), p["b"])

    params = weights(a=(3, 3, 2, 5), mean=(5,), var=(5,), scale=(5,), bias=(5,), b=(1, 1, 5, 2))
    return Case(f, params, (inputs(2, 3, 3, 2),), 1, {("mean", 0): "g0", ("var", 0): "g0", ("b", 2): "g0"})


@case
def rms_norm():
    def f(p, x):
        h = x @ p["a"]
        h = h * lax.rsqrt(jnp.mean(h * h, -1, keepdims=True) + 1e-6) * along(p["scale"], h)
        return h @ p["b"]

    return Case(f, weights(a=(4, 6), scale=(6,), b=(6, 3)), (inputs(2, 4),), 1, {("scale", 0): "g0"})


@case
def linen_layer_norm():
    module = nn.Sequential([nn.Dense(6), nn.LayerNorm(), nn.Dense(2)])
    x = inputs(2, 4)
    terms = {
        ("params/layers_0/kernel", 1): "g0",
        ("params/layers_1/scale", 0): "g0",
        ("params/layers_2/kernel", 0): "g0",
    }
    return Case(module.apply, numbered(module, x), (x,), 1, terms)


@case
def two_pass_layer_norm():
    """Refused at the norm: a masked channel adds the square of the mean to the variance."""

    def f(p, x):
        h = x @ p["a"]
        h = h - h.mean(-1, keepdims=True)
        return (h * lax.rsqrt(jnp.mean(h * h, -1, keepdims=True) + 1e-6)) @ p["b"]

    return Case(f, weights(a=(4, 6), b=(6, 3)), (inputs(2, 4),), 0, {("a", 1): "6"})


@case
def linen_group_norm():
    module = nn.Sequential([nn.Conv(6, (1, 1)), nn.GroupNorm(num_groups=3), nn.relu, nn.Conv(2, (1, 1))])
    x = inputs(2, 3, 3, 2)
    return Case(module.apply, numbered(module, x), (x,), 2, {("params/layers_1/scale", 0): "g0*g1"})


@case
def two_pass_group_norm():
    """Only whole groups can go: inside a group the sum of squared differences counts masked channels."""

    def f(p, x):
        h = (x @ p["a"]).reshape(2, 3, 2)
        h = h - h.mean(-1, keepdims=True)
        h = h * lax.rsqrt((h * h).mean(-1, keepdims=True) + 1e-5)
        return h.reshape(2, 6) @ p["b"]

    return Case(f, weights(a=(4, 6), b=(6, 3)), (inputs(2, 4),), 1, {("a", 1): "g0*2", ("b", 0): "g0*2"})


@case
def residual_with_zero_padded_channels():
    def f(p, x):
        x = jax.nn.relu(conv(x, p["a"]))
        y = conv(jax.nn.relu(conv(x, p["b"])), p["c"])
        return conv(jax.nn.relu(y + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (2, 2)))), p["d"])

    params = weights(a=(1, 1, 2, 3), b=(3, 3, 3, 4), c=(3, 3, 4, 7), d=(1, 1, 7, 2))
    terms = {("a", 3): "g0", ("b", 3): "g1", ("c", 3): "g2+g0+g3", ("d", 2): "g2+g0+g3"}
    return Case(f, params, (inputs(1, 3, 3, 2),), 4, terms)


@case
def dense_concatenation():
    def f(p, x):
        a = jnp.tanh(x @ p["a"])
        ab = jnp.concatenate([a, jnp.tanh(a @ p["b"])], -1)
        abc = jnp.concatenate([ab, ab @ p["c"]], -1)
        return jnp.tanh(abc) @ p["d"]

    params = weights(a=(4, 3), b=(3, 2), c=(5, 4), d=(9, 3))
    return Case(f, params, (inputs(2, 4),), 3, {("a", 1): "g0", ("c", 0): "g0+g1", ("d", 0): "g0+g1+g2"})


@case
def split_and_gate():
    def f(p, x):
        a, b = jnp.split(x @ p["a"], 2, -1)
        return (a * jax.nn.silu(b)) @ p["b"]

    return Case(f, weights(a=(4, 10), b=(5, 3)), (inputs(2, 4),), 1, {("a", 1): "g0+g0", ("b", 0): "g0"})


@case
def stride_pairs():
    def f(p, x):
        h = x @ p["a"]
        return jnp.concatenate([h[:, ::2] * h[:, 1::2], h[:, 1::2]], -1) @ p["b"]

    return Case(f, weights(a=(4, 6), b=(6, 3)), (inputs(2, 4),), 1, {("a", 1): "g0*2", ("b", 0): "g0+g0"})


@case
def roll():
    def f(p, x):
        h = jnp.tanh(x @ p["a"])
        return (h + jnp.roll(h, 2, -1)) @ p["b"]

    return Case(f, weights(a=(4, 6), b=(6, 3)), (inputs(2, 4),), 1, {("a", 1): "g0+g0+g0"})


@case
def embedding_tied_to_the_output():
    def f(p, tokens):
        h = jax.nn.relu(p["embedding"][tokens] @ p["a"]) @ p["b"]
        return h @ p["embedding"].T

    params = weights(embedding=(7, 4), a=(4, 6), b=(6, 4))
    terms = {("embedding", 0): "7", ("embedding", 1): "g0", ("a", 0): "g0", ("a", 1): "g1", ("b", 1): "g0"}
    return Case(f, params, (np.array([[1, 5, 0]]),), 2, terms)


@case
def one_hot_embedding():
    """Looked up by one-hot vectors, the vocabulary can be cut: the identities of the rows stay."""

    def f(p, tokens):
        return jax.nn.one_hot(tokens, 7) @ p["embedding"] @ p["a"]

    return Case(
        f,
        weights(embedding=(7, 4), a=(4, 2)),
        (np.array([1, 5, 0]),),
        2,
        {("embedding", 0): "g1", ("embedding", 1): "g0"},
    )


@case
def loops_and_branches():
    def f(p, x):
        h = lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, jnp.tanh(s[1] @ p["b"])), (0, x @ p["a"]))[1]
        h = lax.cond(x[0, 0] > 0, lambda h: jnp.tanh(h), lambda h: h * 2, h)
        return lax.fori_loop(0, 2, lambda _, h: h @ p["b"], h) @ p["c"]

    return Case(f, weights(a=(4, 5), b=(5, 5), c=(5, 2)), (inputs(2, 4),), 1, {("b", 0): "g0", ("b", 1): "g0"})


@case
def custom_derivatives():
    @jax.custom_vjp
    def twice(x):
        return 2 * x

    twice.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))

    def f(p, x):
        return twice(jax.nn.relu(jax.jit(lambda h: h @ p["a"])(x))) @ p["b"]

    return Case(f, weights(a=(4, 5), b=(5, 2)), (inputs(2, 4),), 1, {("b", 0): "g0"})


@case
def the_same_activation_twice():
    """JAX caches the body of ``relu``: two layers of equal width must not become one group."""

    def f(p, x):
        return jax.nn.relu(jax.nn.relu(x @ p["a"]) @ p["b"]) @ p["c"]

    return Case(f, weights(a=(4, 5), b=(5, 5), c=(5, 2)), (inputs(2, 4),), 2, {("b", 0): "g0", ("b", 1): "g1"})


@case
def tied_autoencoder():
    def f(p, x):
        return jax.nn.relu(x @ p["a"]) @ p["a"].T

    return Case(f, weights(a=(4, 6)), (inputs(2, 4),), 1, {("a", 0): "4", ("a", 1): "g0"})


@case
def squeeze_and_excite():
    def f(p, x):
        x = jax.nn.relu(conv(x, p["a"]))
        s = jax.nn.hard_sigmoid(jax.nn.relu(x.mean((1, 2)) @ p["down"]) @ p["up"])
        return conv(x * jnp.broadcast_to(s[:, None, None], x.shape), p["b"])

    params = weights(a=(1, 1, 2, 6), down=(6, 3), up=(3, 6), b=(1, 1, 6, 2))
    return Case(f, params, (inputs(2, 3, 3, 2),), 2, {("down", 0): "g0", ("down", 1): "g1", ("up", 1): "g0"})


@case
def linear_attention_with_relu():
    def f(p, x):
        q, k, v = (x @ p[name] for name in "qkv")
        return jax.nn.relu(q) @ (jax.nn.relu(k).T @ v)

    return Case(f, weights(q=(4, 5), k=(4, 5), v=(4, 3)), (inputs(6, 4),), 1, {("q", 1): "g0", ("v", 1): "3"})


@case
def linear_attention_with_elu():
    """Refused: a masked channel of elu + 1 holds 1."""

    def f(p, x):
        return (jax.nn.elu(x @ p["q"]) + 1) @ (jax.nn.elu(x @ p["k"]) + 1).T

    return Case(f, weights(q=(4, 5), k=(4, 5)), (inputs(6, 4),), 0, {("q", 1): "5"})


@case
def weight_norm():
    def f(p, x):
        v = p["v"] * lax.rsqrt(jnp.sum(p["v"] ** 2, 0, keepdims=True) + 1e-6)
        return jax.nn.relu(x @ (v * along(p["g"], v))) @ p["b"]

    return Case(f, weights(v=(4, 6), g=(6,), b=(6, 2)), (inputs(2, 4),), 1, {("v", 1): "g0", ("g", 0): "g0"})


@case
def closed_over_constants():
    table = jnp.asarray(inputs(6, 6))

    def f(p, x):
        return (jax.nn.relu(x @ p["a"]) @ table) @ p["b"]

    return Case(f, weights(a=(4, 6), b=(6, 2)), (inputs(2, 4),), 2, {("a", 1): "g0", ("b", 0): "g1"})


@case
def dropout():
    def f(p, x, key):
        h = x @ p["a"]
        h = jnp.where(jax.random.bernoulli(key, 0.5, h.shape), h * 2, 0)
        return h @ p["b"]

    return Case(f, weights(a=(4, 6), b=(6, 2)), (inputs(2, 4), jax.random.key(1)), 1, {("a", 1): "g0"})


@case
def integer_codes():
    def f(p, x):
        return jax.nn.relu(x @ (p["codes"].astype(jnp.float32) * along(p["scale"], p["codes"]))) @ p["b"]

    params = {"codes": np.arange(24, dtype=np.int8).reshape(4, 6), **weights(scale=(6,), b=(6, 2))}
    return Case(f, params, (inputs(2, 4),), 1, {("codes", 1): "g0"})


@case
def maxout_and_mixture():
    def f(p, x):
        h = (x @ p["a"]).reshape(2, 5, 3).max(-1)
        gate = jax.nn.softmax(h @ p["router"])
        each = jnp.einsum("bi,eij->bej", h, p["experts"])
        return jnp.einsum("be,bej->bj", gate, each) @ p["b"]

    params = weights(a=(4, 15), router=(5, 3), experts=(3, 5, 6), b=(6, 2))
    return Case(f, params, (inputs(2, 4),), 2, {("a", 1): "g0*3", ("router", 1): "3", ("experts", 2): "g1"})


@case
def key_value_cache():
    def f(p, x, cache, at):
        k = lax.dynamic_update_slice(jnp.zeros((5, 6)), x @ p["k"], (at, 0))
        k = k + jnp.concatenate([lax.dynamic_slice(k, (at, 0), (2, 6)), jnp.zeros((3, 6))])
        return (x @ p["q"]) @ k.T + cache

    params = weights(q=(4, 6), k=(4, 6))
    return Case(f, params, (inputs(2, 4), inputs(2, 5), 1), 1, {("q", 1): "g0", ("k", 1): "g0"})


@case
def pixel_shuffle():
    def f(p, x):
        x = conv(x, p["a"])
        x = x.reshape(1, 3, 3, 2, 2, 4).transpose(0, 1, 3, 2, 4, 5).reshape(1, 6, 6, 4)
        return conv(jax.nn.relu(x), p["b"])

    return Case(f, weights(a=(1, 1, 2, 16), b=(3, 3, 4, 2)), (inputs(1, 3, 3, 2),), 1, {("a", 3): "2*2*g0"})


@case
def tile_and_stack():
    def f(p, x):
        h = x @ p["a"]
        h = jnp.stack([h, jnp.tile(h[:, :3], (1, 2))], 1)
        return jnp.einsum("bsi,io->bso", h, p["b"])

    return Case(f, weights(a=(4, 6), b=(6, 2)), (inputs(2, 4),), 1, {("a", 1): "g0+g0"})


@case
def associative_scan():
    def f(p, x):
        h = lax.associative_scan(jnp.add, x @ p["a"], axis=0)  # lengths 1 and 0 on the way
        return jnp.tanh(h) @ p["b"]

    return Case(f, weights(a=(4, 6), b=(6, 2)), (inputs(5, 4),), 1, {("a", 1): "g0"})


@case
def message_passing():
    def f(p, x, sender, receiver):
        h = jnp.tanh(x @ p["a"])
        summed = jax.ops.segment_sum(h[sender], receiver, 5)
        largest = jnp.full_like(h, 0.0).at[receiver].max(h[sender])
        stored = h.at[2].set(summed[1])
        return (summed + largest + stored) @ p["b"] + stored.sum(-1, keepdims=True)

    edges = (np.array([0, 1, 1, 4]), np.array([1, 2, 0, 2]))
    return Case(f, weights(a=(4, 6), b=(6, 2)), (inputs(5, 4), *edges), 1, {("a", 1): "g0"})


@case
def widths_of_one():
    def f(p, x):
        return jax.nn.relu(jax.nn.relu(x @ p["a"]) @ p["b"]) @ p["c"]

    return Case(f, weights(a=(1, 2), b=(2, 1), c=(1, 1)), (inputs(2, 1),), 1, {("a", 1): "g0", ("b", 1): "1"})


@case
def under_vmap():
    def f(p, x):
        return jax.vmap(lambda v: jax.nn.relu(v @ p["a"]) @ p["b"])(x)

    return Case(f, weights(a=(4, 5), b=(5, 2)), (inputs(3, 4),), 1, {("a", 1): "g0"})
