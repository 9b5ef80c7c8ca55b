"""MobileNetV2: inverted residual blocks around depthwise convolutions.

A 3x3 convolution with 32 channels; seven stages of (16, 24, 32, 64, 96, 160, 320) channels in (1, 2, 3, 4, 3, 3, 1)
blocks; a 1x1 convolution to 1,280 channels; the mean over the image and a dense layer.  A block is a 1x1 expansion to
six times the channels (none in the first stage), a 3x3 depthwise convolution, both followed by batch normalization and
ReLU6, and a 1x1 projection with batch normalization; all blocks of a stage but the first add their input.

The depthwise convolution has two forms with equal values: one grouped convolution, or nine shifted images multiplied by
nine vectors and added, which XLA:CPU runs much faster.

Reference: M. Sandler, A. Howard, M. Zhu, A. Zhmoginov, L.-C. Chen, "MobileNetV2: Inverted residuals and linear
bottlenecks", CVPR 2018 (arXiv 1801.04381).
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from compressjax.zoo._architecture import Architecture, Options, Width, standardized
from compressjax.zoo._layers import Images, average, convolution, standardize
from compressjax.zoo._norm import BatchNorm

_STEM, _STREAMS, _LAST = 32, (16, 24, 32, 64, 96, 160, 320), 1280
_BLOCKS = (1, 2, 3, 4, 3, 3, 1)
_IMAGENET_STRIDES = (2, 1, 2, 2, 2, 1, 2, 1)
_CIFAR_STRIDES = (1, 1, 1, 2, 2, 1, 2, 1)
FORMS = ("auto", "shift", "grouped")


def depthwise_shift(
    x: Float[Array, "n h w c"], kernel: Float[Array, "3 3 1 c"], stride: int = 1
) -> Float[Array, "n rows cols c"]:
    """Depthwise 3x3 convolution, padded by 1, as nine shifted multiply-adds.

    >>> x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    >>> depthwise_shift(x, jnp.ones((3, 3, 1, 1))).ravel().tolist()
    [6.0, 6.0, 6.0, 6.0]
    """
    n, h, w, c = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = kernel.reshape(9, 1, 1, 1, c)
    rows, cols = (h - 1) // stride * stride + 1, (w - 1) // stride * stride + 1
    parts = []
    for tap in range(9):
        i, j = divmod(tap, 3)
        part = jax.lax.slice(padded, (0, i, j, 0), (n, i + rows, j + cols, c), (1, stride, stride, 1))
        parts.append(part * jax.lax.index_in_dim(taps, tap, keepdims=False))
    return functools.reduce(jnp.add, parts)


def depthwise_grouped(
    x: Float[Array, "n h w c"], kernel: Float[Array, "3 3 1 c"], stride: int = 1
) -> Float[Array, "n rows cols c"]:
    """Depthwise 3x3 convolution, padded by 1, as a grouped convolution.

    >>> x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    >>> depthwise_grouped(x, jnp.ones((3, 3, 1, 1))).ravel().tolist()
    [6.0, 6.0, 6.0, 6.0]
    """
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


class DepthwiseConv(nn.Module):
    """Depthwise 3x3 convolution without bias, padded by 1 on every side.

    Attributes:
      stride: Step between output pixels.
      form: ``"shift"``, ``"grouped"``, or ``"auto"``: shift on a CPU, grouped elsewhere.

    >>> x = jnp.ones((1, 5, 5, 4))
    >>> params = DepthwiseConv(stride=2).init(jax.random.key(0), x)
    >>> params["params"]["kernel"].shape, DepthwiseConv(stride=2).apply(params, x).shape
    ((3, 3, 1, 4), (1, 3, 3, 4))
    """

    stride: int = 1
    form: str = "auto"

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n rows cols c"]:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (3, 3, 1, x.shape[-1]))
        shift = self.form == "shift" or (self.form == "auto" and jax.default_backend() == "cpu")
        return (depthwise_shift if shift else depthwise_grouped)(x, kernel, self.stride)


class _Block(nn.Module):
    """Expansion, depthwise convolution, projection; `hidden` is None without an expansion."""

    hidden: int | None
    width: int
    stride: int
    residual: bool
    form: str

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n rows cols width"]:
        h = x
        if self.hidden is not None:
            h = convolution(self.hidden, 1, name="expand")(h)
            h = jax.nn.relu6(BatchNorm(name="norm1")(h))
        h = DepthwiseConv(self.stride, self.form, name="depthwise")(h)
        h = jax.nn.relu6(BatchNorm(name="norm2")(h))
        h = convolution(self.width, 1, name="project")(h)
        h = BatchNorm(name="norm3")(h)
        return x + h if self.residual else h


def _stages(widths: Sequence[int], blocks: Sequence[int]) -> Iterator[tuple[int, tuple[int | None, ...]]]:
    """Splits the widths between stem and last convolution into (stream, hidden widths of the blocks) per stage."""
    at = 1
    for stage, count in enumerate(blocks):
        hidden: tuple[int | None, ...] = tuple(widths[at + 1 : at + 1 + count]) if stage else (None,) * count
        yield widths[at], hidden
        at += 1 + (count if stage else 0)


class MobileNetV2(nn.Module):
    """MobileNetV2.

    Attributes:
      widths: Channels of conv0; per stage those of its stream, then (but for the first stage) of each block's
        expansion; channels of conv_last.
      classes: Units of fc.
      blocks: Blocks per stage.
      strides: Stride of conv0, then of the first block of each stage.
      depthwise: Form of the depthwise convolutions, see `DepthwiseConv`.
      mean: Subtracted from each channel of the image, scaled to [0, 1].
      std: What each channel is then divided by.

    >>> module = MobileNetV2((4, 3, 5, 8, 8, 6), blocks=(1, 2), strides=(1, 1, 2))
    >>> shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    >>> sorted(shapes["stage2_block1"]), shapes["conv_last"]["kernel"].shape
    (['depthwise', 'expand', 'norm1', 'norm2', 'norm3', 'project'], (1, 1, 5, 6))
    """

    widths: tuple[int, ...]
    classes: int = 1000
    blocks: tuple[int, ...] = _BLOCKS
    strides: tuple[int, ...] = _IMAGENET_STRIDES
    depthwise: str = "auto"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "n classes"]:
        h = standardize(x, self.mean, self.std)
        h = convolution(self.widths[0], 3, self.strides[0], name="conv0")(h)
        h = jax.nn.relu6(BatchNorm(name="norm0")(h))
        for stage, (width, hidden) in enumerate(_stages(self.widths, self.blocks), 1):
            for block, inner in enumerate(hidden):
                stride = 1 if block else self.strides[stage]
                name = f"stage{stage}_block{block}"
                h = _Block(inner, width, stride, block > 0, self.depthwise, name=name)(h)
        h = convolution(self.widths[-1], 1, name="conv_last")(h)
        h = jax.nn.relu6(BatchNorm(name="norm_last")(h))
        return nn.Dense(self.classes, name="fc")(average(h))


def _layout(options: Options) -> Sequence[Width]:
    out, before = [Width(_STEM, "conv0/kernel", 3)], _STEM
    for stage, (width, count) in enumerate(zip(_STREAMS, options["blocks"], strict=False), 1):
        out.append(Width(width, f"stage{stage}_block0/project/kernel", 3))
        for block in range(count if stage > 1 else 0):
            out.append(Width(6 * before, f"stage{stage}_block{block}/expand/kernel", 3))
            before = width
        before = width
    return [*out, Width(_LAST, "conv_last/kernel", 3)]


def _complete(widths: tuple[int, ...], shape: tuple[int, ...], options: Options) -> Options:
    if len(options["blocks"]) > len(_STREAMS):
        raise ValueError(f"blocks {options['blocks']} name more than the {len(_STREAMS)} stages of MobileNetV2.")
    if len(options["strides"]) != len(options["blocks"]) + 1:
        raise ValueError(
            f"strides {options['strides']} must be one for conv0 and one for each stage of blocks {options['blocks']}."
        )
    if options["depthwise"] not in FORMS:
        raise ValueError(f"depthwise={options['depthwise']!r} must be one of {', '.join(FORMS)}.")
    return standardized(widths, shape, options)


def _architecture(classes: int, side: int, strides: tuple[int, ...]) -> Architecture:
    options = {"blocks": _BLOCKS, "strides": strides, "depthwise": "auto", "mean": None, "std": None}
    return Architecture(MobileNetV2, _layout, classes, (side, side, 3), 4, MappingProxyType(options), _complete)


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "mobilenet_v2": _architecture(1000, 224, _IMAGENET_STRIDES),
        "mobilenet_v2_cifar": _architecture(10, 32, _CIFAR_STRIDES),
    }
)
