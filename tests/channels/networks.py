"""Attention, decoders, recurrences and modules of other libraries, in the registry of `functions`."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from compressjax import trees
from tests.channels.functions import CASES, Case, along, case, inputs, numbered, weights

__all__ = ["CASES"]


def attention(q, k, v):
    """(batch, length, heads, width) each, causal."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
    causal = jnp.tril(jnp.ones((q.shape[1],) * 2, bool))
    scores = jnp.where(jnp.broadcast_to(causal, scores.shape), scores, -1e9)
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v)


@case
def fused_attention():
    def f(p, x):
        q, k, v = (y.reshape(2, 3, 2, 4) for y in jnp.split(x @ p["qkv"], 3, -1))
        return attention(q, k, v).reshape(2, 3, 8) @ p["out"]

    terms = {("qkv", 1): "g0*g2+g0*g2+g0*g1", ("out", 0): "g0*g1"}
    return Case(f, weights(qkv=(4, 24), out=(8, 4)), (inputs(2, 3, 4),), 3, terms)


def rotate(x):
    """Rotary position embedding over halves."""
    half = x.shape[-1] // 2
    angle = np.arange(x.shape[1])[:, None] / 10.0 ** (np.arange(half) / half)[None]
    cos, sin = (
        jnp.broadcast_to(jnp.asarray(t, x.dtype)[None, :, None], (*x.shape[:-1], half))
        for t in (np.cos(angle), np.sin(angle))
    )
    a, b = jnp.split(x, 2, -1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1)


def decoder_block(p, x):
    """RMSNorm, grouped-query attention with rotary positions, gated MLP."""
    b, n = x.shape[:2]

    def norm(h, s):
        return h * lax.rsqrt(jnp.mean(h * h, -1, keepdims=True) + 1e-6) * along(s, h)

    h = norm(x, p["norm1"])
    q = rotate((h @ p["q"]).reshape(b, n, 4, 4))
    k = rotate((h @ p["k"]).reshape(b, n, 2, 4))
    v = (h @ p["v"]).reshape(b, n, 2, 3)
    k, v = (jnp.repeat(y, 2, 2) for y in (k, v))
    x = x + attention(q, k, v).reshape(b, n, 12) @ p["out"]
    h = norm(x, p["norm2"])
    return x + (jax.nn.silu(h @ p["gate"]) * (h @ p["up"])) @ p["down"]


DECODER = dict(
    norm1=(8,), q=(8, 16), k=(8, 8), v=(8, 6), out=(12, 8), norm2=(8,), gate=(8, 10), up=(8, 10), down=(10, 8)
)  # fmt: skip


@case
def decoder():
    def f(p, tokens):
        return decoder_block(p, p["embedding"][tokens]) @ p["embedding"].T

    terms = {
        ("embedding", 1): "g1",
        ("down", 0): "g0",
        ("q", 1): "g2*g4*(g3+g3)",
        ("k", 1): "g2*(g3+g3)",
        ("v", 1): "g2*g5",
        ("out", 0): "g2*g4*g5",
    }
    params = weights(embedding=(7, 8), **DECODER)
    return Case(f, params, (np.array([[1, 5, 0], [2, 2, 6]]),), 6, terms)


@case
def decoder_layers_under_scan_and_remat():
    def f(p, x):
        body = jax.checkpoint(lambda h, q: (decoder_block(q, h), None))
        return lax.scan(body, x @ p["in"], p["layers"])[0] @ p["out"]

    layers = {name: np.stack([leaf, leaf[::-1]]) for name, leaf in weights(**DECODER).items()}
    params = {"in": inputs(4, 8), "layers": layers, "out": inputs(8, 2)}
    terms = {("layers/q", 0): "2", ("layers/down", 1): "g1", ("layers/down", 2): "g0", ("in", 1): "g0"}
    return Case(f, params, (inputs(2, 3, 4),), 6, terms)


@case
def gated_recurrence():
    def f(p, x):
        def cell(h, x):
            z = jax.nn.sigmoid(x @ p["zx"] + h @ p["zh"])
            h = z * h + (1 - z) * jnp.tanh(x @ p["hx"] + h @ p["hh"])
            return h, h @ p["out"]

        return lax.scan(cell, jnp.zeros((x.shape[1], 5)), x)[1]

    params = weights(zx=(3, 5), zh=(5, 5), hx=(3, 5), hh=(5, 5), out=(5, 2))
    return Case(f, params, (inputs(4, 2, 3),), 1, {("zh", 0): "g0", ("zh", 1): "g0", ("out", 0): "g0"})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Linear:
    weight: Any
    bias: Any

    def __call__(self, x):
        return self.weight @ x + self.bias


@case
def a_tree_of_dataclasses():
    """As in Equinox: the parameters are the module."""
    layers = [Linear(inputs(6, 4), inputs(6)), Linear(inputs(2, 6), inputs(2))]

    def f(m, x):
        return jax.vmap(lambda v: m[1](jax.nn.relu(m[0](v))))(x)

    return Case(f, layers, (inputs(3, 4),), 1, {("0/weight", 0): "g0", ("0/bias", 0): "g0", ("1/weight", 1): "g0"})


@case
def nnx_convolutional():
    class Network(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
            self.dense = nnx.Linear(16, 3, rngs=rngs)

        def __call__(self, x):
            x = nnx.avg_pool(nnx.relu(self.norm(self.conv(x))), (2, 2), (2, 2))
            return self.dense(x.reshape(len(x), -1))

    graph, state = nnx.split(nnx.eval_shape(lambda: Network(nnx.Rngs(0))))
    rng = np.random.default_rng(0)
    state = trees.update(state, {k: rng.random(v.shape).astype(v.dtype) for k, v in trees.leaves(state).items()})

    def f(s, x):
        return nnx.merge(graph, s)(x)

    terms = {("conv/kernel", 3): "g0", ("norm/mean", 0): "g0", ("dense/kernel", 0): "2*2*g0"}
    return Case(f, state, (inputs(2, 4, 4, 2),), 1, terms)


@case
def linen_transformer():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            x = x + nn.MultiHeadDotProductAttention(2, qkv_features=6, name="attention")(nn.LayerNorm()(x))
            return x + nn.Dense(4)(nn.gelu(nn.Dense(7, name="up")(nn.LayerNorm()(x)))), None

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(4, name="embed")(x)
            layers = nn.scan(nn.remat(Block), variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
            return nn.Dense(2, name="head")(layers(name="layers")(x, None)[0])

    module, x = Network(), inputs(2, 3, 5)
    kernel = "params/layers/attention/query/kernel"
    terms = {
        ("params/embed/kernel", 1): "g0",
        (kernel, 0): "2",
        (kernel, 1): "g0",
        ("params/layers/up/kernel", 2): "g1",
    }
    return Case(module.apply, numbered(module, x), (x,), 5, terms)
