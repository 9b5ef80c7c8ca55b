"""A small vision transformer: patches, learned positions, pre-norm blocks, the mean over patches, a dense layer.

By default six layers of 192 channels with three heads of 64 and 768 hidden units, patches of 4x4, for 32x32 images.
Widths of queries and keys and of values are separate.  Norms are `LayerNorm` with the divisor, and attention has the
scale, of the network before anything was removed: the options `divisor` and `head_width`.

References: A. Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021 (arXiv 2010.11929).  Mean over patches
instead of a class token: L. Beyer, X. Zhai, A. Kolesnikov, "Better plain ViT baselines for ImageNet-1k" (arXiv
2205.01580).
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from compressjax.zoo._architecture import Architecture, Options, Width, standardized
from compressjax.zoo._attention import attention, one_head_width
from compressjax.zoo._layers import Images, standardize
from compressjax.zoo._norm import LayerNorm

_STREAM, _LAYER = 192, (3, 64, 64, 768)


def _layers(widths: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    """(heads, width of queries and keys, width of values, hidden units) of each layer."""
    for at in range(1, len(widths), 4):
        heads, queries, values, hidden = widths[at : at + 4]
        yield heads, queries, values, hidden


class _Block(nn.Module):
    """Attention and two dense layers, each beside a shortcut and behind a norm."""

    widths: tuple[int, int, int, int]
    divisor: int
    scale: float

    @nn.compact
    def __call__(self, x: Float[Array, "n t d"]) -> Float[Array, "n t d"]:
        heads, width, values, hidden = self.widths
        h = LayerNorm(self.divisor, name="norm1")(x)
        query = nn.DenseGeneral((heads, width), name="query")(h)
        key = nn.DenseGeneral((heads, width), name="key")(h)
        value = nn.DenseGeneral((heads, values), name="value")(h)
        h = attention(jnp.expand_dims(query, 3), key, value, scale=self.scale, causal=False)
        x = x + nn.DenseGeneral(x.shape[-1], axis=(-2, -1), name="out")(jnp.squeeze(h, 3))
        h = LayerNorm(self.divisor, name="norm2")(x)
        h = jax.nn.gelu(nn.Dense(hidden, name="up")(h), approximate=False)
        return x + nn.Dense(x.shape[-1], name="down")(h)


class ViT(nn.Module):
    """A vision transformer.

    Attributes:
      widths: Channels of the stream, then per layer: heads, width of queries and keys, width of values, hidden units.
      classes: Units of fc.
      layers: Number of layers.
      patch: Side of a patch in pixels.
      divisor: Channels of the stream before any were removed.
      head_width: Width of queries and keys before any part was removed.
      mean: Subtracted from each channel of the image, scaled to [0, 1].
      std: What each channel is then divided by.

    >>> module = ViT((8, 2, 3, 4, 5), layers=1, divisor=8, head_width=3)
    >>> shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    >>> shapes["positions"].shape, shapes["layer0"]["query"]["kernel"].shape
    ((4, 8), (8, 2, 3))
    """

    widths: tuple[int, ...]
    classes: int = 10
    layers: int = 6
    patch: int = 4
    divisor: int = _STREAM
    head_width: int = _LAYER[1]
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "n classes"]:
        h = standardize(x, self.mean, self.std)
        side = (self.patch, self.patch)
        h = nn.Conv(self.widths[0], side, strides=side, padding="VALID", name="patch")(h)
        h = h.reshape(h.shape[0], -1, h.shape[-1])
        positions = self.param("positions", nn.initializers.normal(0.02), h.shape[1:])
        h = h + jnp.expand_dims(positions, 0)
        for number, widths in enumerate(_layers(self.widths)):
            h = _Block(widths, self.divisor, self.head_width**-0.5, name=f"layer{number}")(h)
        h = LayerNorm(self.divisor, name="norm")(h)
        return nn.Dense(self.classes, name="fc")(jnp.mean(h, 1))


def _layout(options: Options) -> Sequence[Width]:
    out = [Width(_STREAM, "patch/kernel", 3)]
    for number in range(options["layers"]):
        leaves = (("key", 1), ("key", 2), ("value", 2), ("up", 1))
        out += [
            Width(size, f"layer{number}/{leaf}/kernel", axis) for size, (leaf, axis) in zip(_LAYER, leaves, strict=True)
        ]
    return out


def _complete(widths: tuple[int, ...], shape: tuple[int, ...], options: Options) -> Options:
    filled = dict(options)
    if shape[0] % options["patch"] or shape[1] % options["patch"]:
        raise ValueError(f"input_shape {shape} is not made of patches of {options['patch']}x{options['patch']} pixels.")
    if filled["divisor"] is None:
        filled["divisor"] = widths[0]
    if filled["head_width"] is None:
        filled["head_width"] = one_head_width("vit", [layer[1] for layer in _layers(widths)])
    return standardized(widths, shape, filled)


_OPTIONS = {"layers": 6, "patch": 4, "divisor": None, "head_width": None, "mean": None, "std": None}

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {"vit": Architecture(ViT, _layout, 10, (32, 32, 3), 1, MappingProxyType(_OPTIONS), _complete)}
)
