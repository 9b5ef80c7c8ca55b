"""A stack of decoder blocks on tokens: RMSNorm, grouped-query attention with rotary positions, gated hidden layer.

Block: ``x + out(attention(norm1(x)))``, then ``x + down(silu(gate(h)) * up(h))`` with ``h = norm2(x)``.  No biases.  By
default twelve layers of 768 channels, four key-value heads with three queries each, heads of 64, 2,048 hidden units and
a vocabulary of 32,000.  The output layer is a kernel of its own, or the embedding itself (`tied`).

Numbers that remember a width are options, because a network from which channels were removed must not change them: the
`divisor` of the norms, the `head_width` in attention's scale and in the frequencies, and which `pairs` of each layer's
queries and keys are left, each of which turns at its own frequency.

References: H. Touvron et al., "LLaMA" (arXiv 2302.13971), and those of `compressjax.zoo._attention`.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from compressjax.zoo._architecture import Architecture, Kept, Options, Width
from compressjax.zoo._attention import angles, attention, one_head_width, rotate
from compressjax.zoo._norm import RMSNorm

_STREAM, _LAYER = 768, (4, 3, 64, 64, 2048)


def _layers(widths: Sequence[int]) -> Iterator[tuple[int, int, int, int, int]]:
    """(key-value heads, queries per head, width of queries and keys, width of values, hidden units) of each layer."""
    for at in range(1, len(widths), 5):
        heads, queries, width, values, hidden = widths[at : at + 5]
        yield heads, queries, width, values, hidden


class _Block(nn.Module):
    """Attention and a gated hidden layer, each beside a shortcut and behind a norm."""

    widths: tuple[int, int, int, int, int]
    divisor: int
    head_width: int
    pairs: tuple[int, ...]
    rope_base: float

    @nn.compact
    def __call__(self, x: Float[Array, "n t d"]) -> Float[Array, "n t d"]:
        heads, queries, width, values, hidden = self.widths
        dense = lambda features, name, axis=-1: nn.DenseGeneral(features, axis=axis, use_bias=False, name=name)  # noqa: E731
        turn = angles(x.shape[1], self.pairs, self.head_width, self.rope_base)
        h = RMSNorm(self.divisor, name="norm1")(x)
        query = rotate(dense((heads, queries, width), "query")(h), *turn)
        key = rotate(dense((heads, width), "key")(h), *turn)
        value = dense((heads, values), "value")(h)
        h = attention(query, key, value, scale=self.head_width**-0.5, causal=True)
        x = x + dense(x.shape[-1], "out", axis=(-3, -2, -1))(h)
        h = RMSNorm(self.divisor, name="norm2")(x)
        h = jax.nn.silu(dense(hidden, "gate")(h)) * dense(hidden, "up")(h)
        return x + dense(x.shape[-1], "down")(h)


class Decoder(nn.Module):
    """Decoder blocks between an embedding and an output layer.

    Attributes:
      widths: Channels of the stream, then per layer: key-value heads, queries per head, width of queries and keys,
        width of values, hidden units.
      classes: Size of the vocabulary.
      layers: Number of layers.
      tied: Whether the embedding is the output layer as well.
      divisor: Channels of the stream before any were removed.
      head_width: Width of queries and keys before any pair was removed.
      pairs: Per layer, which rotated pairs of queries and keys are left.
      rope_base: Base of the frequencies.

    >>> module = Decoder((8, 2, 3, 4, 5, 7), 11, layers=1, divisor=8, head_width=4, pairs=((0, 1),))
    >>> shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 6), int))["params"]
    >>> shapes["embedding"].shape, shapes["layer0"]["query"]["kernel"].shape, shapes["layer0"]["out"]["kernel"].shape
    ((11, 8), (8, 2, 3, 4), (2, 3, 5, 8))
    """

    widths: tuple[int, ...]
    classes: int
    layers: int
    divisor: int
    head_width: int
    pairs: tuple[tuple[int, ...], ...]
    tied: bool = False
    rope_base: float = 10000.0

    @nn.compact
    def __call__(self, x: Int[Array, "n t"] | Int[np.ndarray, "n t"]) -> Float[Array, "n t classes"]:
        embedding = self.param("embedding", nn.initializers.normal(0.02), (self.classes, self.widths[0]))
        h = embedding[x]
        for number, (widths, pairs) in enumerate(zip(_layers(self.widths), self.pairs, strict=True)):
            name = f"layer{number}"
            h = _Block(widths, self.divisor, self.head_width, pairs, self.rope_base, name=name)(h)
        h = RMSNorm(self.divisor, name="norm")(h)
        if self.tied:
            return jnp.einsum("ntd,vd->ntv", h, embedding)
        return nn.Dense(self.classes, use_bias=False, name="fc")(h)


def _layout(options: Options) -> Sequence[Width]:
    out = [Width(_STREAM, "embedding", 1)]
    for number in range(options["layers"]):
        leaves = (("key", 1), ("query", 2), ("key", 2), ("value", 2), ("up", 1))
        out += [
            Width(size, f"layer{number}/{leaf}/kernel", axis) for size, (leaf, axis) in zip(_LAYER, leaves, strict=True)
        ]
    return out


def _complete(widths: tuple[int, ...], shape: tuple[int, ...], options: Options) -> Options:
    filled = dict(options)
    turned = [layer[2] for layer in _layers(widths)]
    if filled["divisor"] is None:
        filled["divisor"] = widths[0]
    if filled["head_width"] is None:
        filled["head_width"] = one_head_width("decoder", turned)
    if filled["pairs"] is None:
        filled["pairs"] = tuple(tuple(range(width // 2)) for width in turned)
    half = filled["head_width"] // 2
    for number, width in enumerate(turned):
        pairs = filled["pairs"][number] if number < len(filled["pairs"]) else ()
        if 2 * len(pairs) != width or not all(0 <= pair < half for pair in pairs):
            raise ValueError(
                f"pairs {pairs} of layer {number} do not fit queries of width {width} in heads of "
                f"{filled['head_width']}. After removing pairs, say which were kept: model.like(params, kept)."
            )
    return filled


def _remember(options: Options, kept: Kept) -> Options:
    """Looks up which of the rotated pairs are left."""
    out = []
    for number, pairs in enumerate(options["pairs"]):
        mask = kept.get((f"layer{number}/key/kernel", 2), kept.get((f"layer{number}/query/kernel", 3)))
        if mask is not None:
            left, right = np.split(mask, [len(pairs)])
            if len(mask) != 2 * len(pairs) or (left != right).any():
                raise ValueError(
                    f"kept of layer {number} has {len(mask)} entries for {len(pairs)} rotated pairs, or parts a pair: "
                    "entries j and j + width / 2 turn together and must be kept or removed together."
                )
            pairs = tuple(pair for pair, stays in zip(pairs, left, strict=True) if stays)
        out.append(pairs)
    return {**options, "pairs": tuple(out)}


_OPTIONS = {"layers": 12, "tied": False, "divisor": None, "head_width": None, "pairs": None, "rope_base": 10000.0}

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {"decoder": Architecture(Decoder, _layout, 32000, (128,), 1, MappingProxyType(_OPTIONS), _complete, _remember)}
)
