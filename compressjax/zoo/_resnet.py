"""Residual networks: ResNet-20, -32, -44 and -56 for CIFAR-10, and ResNet-50 for ImageNet.

CIFAR-10.  A 3x3 convolution to 16 channels with batch normalization and ReLU; three stages of n blocks with 16, 32 and
64 channels, depth = 6n + 2; a block is conv1 - norm1 - ReLU - conv2 - norm2, the shortcut added, ReLU; then the mean
over the image and a dense layer.  Convolutions are 3x3 without bias, padded by 1 on both sides.  The first block of
stages 2 and 3 has stride 2, and its shortcut takes every other pixel and pads the channels with zeros before and behind
(option A).

The shortcuts fix which channels belong together: with ``lo`` zeros before and ``hi`` behind, stage 2 is
``lo ++ stage 1 ++ hi``.  When channels are removed, the pads that remain need not be equal, so they are options of
the network (`pads`) and not derived from its widths.

ImageNet.  A 7x7 convolution with stride 2 to 64 channels and 3x3 maximum pooling with stride 2; four stages of
bottleneck blocks, 1x1 - 3x3 - 1x1, with 256, 512, 1024 and 2048 channels outside and a quarter of them inside; stride 2
in the 3x3 convolution of the first block of stages 2 to 4, whose shortcut, as that of stage 1, is a 1x1 convolution
(option B).

Reference: K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", CVPR 2016 (arXiv
1512.03385).
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from compressjax.zoo._architecture import Architecture, Kept, Options, Width, standardized
from compressjax.zoo._layers import Images, average, convolution, every, standardize
from compressjax.zoo._norm import BatchNorm

_STREAMS = (16, 32, 64)


def _stages(widths: Sequence[int], blocks: Sequence[int], each: int = 1) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Splits the widths into (stream, inner widths of the blocks, `each` per block) per stage."""
    at = 0
    for count in blocks:
        inner = each * count
        yield widths[at], tuple(widths[at + 1 : at + 1 + inner])
        at += 1 + inner


class _Block(nn.Module):
    """Two convolutions beside a shortcut without parameters."""

    inner: int
    width: int
    stride: int
    pads: tuple[int, int]

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n rows cols width"]:
        h = convolution(self.inner, 3, self.stride, name="conv1")(x)
        h = jax.nn.relu(BatchNorm(name="norm1")(h))
        h = convolution(self.width, 3, name="conv2")(h)
        h = BatchNorm(name="norm2")(h)
        short = every(x, self.stride)
        if any(self.pads):
            short = jnp.pad(short, ((0, 0), (0, 0), (0, 0), self.pads))
        return jax.nn.relu(h + short)


class CifarResNet(nn.Module):
    """ResNet with option A shortcuts.

    Attributes:
      widths: Per stage: channels of the stage's stream, then those of conv1 of each block.
      classes: Units of fc.
      blocks: Blocks per stage.
      pads: Zero channels (before, behind) the shortcut into each stage but the first, flat.
      mean: Subtracted from each channel of the image, scaled to [0, 1].
      std: What each channel is then divided by.

    >>> module = CifarResNet((4, 2, 8, 3), blocks=(1, 1), pads=(1, 3))
    >>> shapes = jax.eval_shape(module.init, jax.random.key(0), jax.numpy.zeros((1, 8, 8, 3)))["params"]
    >>> sorted(shapes), shapes["stage2_block0"]["conv1"]["kernel"].shape
    (['conv0', 'fc', 'norm0', 'stage1_block0', 'stage2_block0'], (3, 3, 4, 3))
    """

    widths: tuple[int, ...]
    classes: int = 10
    blocks: tuple[int, ...] = (3, 3, 3)
    pads: tuple[int, ...] = (8, 8, 16, 16)
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "n classes"]:
        h = standardize(x, self.mean, self.std)
        h = convolution(self.widths[0], 3, name="conv0")(h)
        h = jax.nn.relu(BatchNorm(name="norm0")(h))
        for stage, (width, inners) in enumerate(_stages(self.widths, self.blocks), 1):
            for block, inner in enumerate(inners):
                enters = stage > 1 and block == 0
                pads = (self.pads[2 * stage - 4], self.pads[2 * stage - 3]) if enters else (0, 0)
                h = _Block(inner, width, 2 if enters else 1, pads, name=f"stage{stage}_block{block}")(h)
        return nn.Dense(self.classes, name="fc")(average(h))


def _stream(stage: int) -> str:
    return f"stage{stage}_block0/conv2/kernel"


def _layout(options: Options) -> Sequence[Width]:
    out = []
    for stage, count in enumerate(options["blocks"], 1):
        width = _STREAMS[0] * 2 ** (stage - 1)
        out.append(Width(width, _stream(stage), 3))
        out += [Width(width, f"stage{stage}_block{block}/conv1/kernel", 3) for block in range(count)]
    return out


def _complete(widths: tuple[int, ...], shape: tuple[int, ...], options: Options) -> Options:
    """Fills in the pads: half of the new channels on each side, an odd one behind."""
    streams = [width for width, _ in _stages(widths, options["blocks"])]
    pads = options["pads"]
    if pads is None:
        if any(after < before for before, after in itertools.pairwise(streams)):
            raise ValueError(f"The streams {streams} of the stages must not get narrower: shortcuts add channels.")
        gains = [after - before for before, after in itertools.pairwise(streams)]
        pads = tuple(pad for gain in gains for pad in (gain // 2, gain - gain // 2))
    fits = len(pads) == 2 * (len(streams) - 1) and min(pads, default=0) >= 0
    if not fits or any(streams[i] + pads[2 * i] + pads[2 * i + 1] != streams[i + 1] for i in range(len(streams) - 1)):
        raise ValueError(
            f"pads {tuple(pads)} do not lead from each of the streams {streams} to the next. After removing channels, "
            "say which were kept: model.like(params, kept)."
        )
    return standardized(widths, shape, {**options, "pads": tuple(pads)})


def _remember(options: Options, kept: Kept) -> Options:
    """Counts which of the padded channels are left."""
    pads = list(options["pads"])
    for stage in range(2, len(options["blocks"]) + 1):
        mask = kept.get((_stream(stage), 3))
        if mask is not None:
            lo, hi = pads[2 * stage - 4], pads[2 * stage - 3]
            pads[2 * stage - 4 : 2 * stage - 2] = int(mask[:lo].sum()), int(mask[len(mask) - hi :].sum())
    return {**options, "pads": tuple(pads)}


class _Bottleneck(nn.Module):
    """Three convolutions beside a shortcut; `enters` a stage: the shortcut is a convolution."""

    inner: tuple[int, int]
    width: int
    stride: int
    enters: bool

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n rows cols width"]:
        h = convolution(self.inner[0], 1, name="conv1")(x)
        h = jax.nn.relu(BatchNorm(name="norm1")(h))
        h = convolution(self.inner[1], 3, self.stride, name="conv2")(h)
        h = jax.nn.relu(BatchNorm(name="norm2")(h))
        h = convolution(self.width, 1, name="conv3")(h)
        h = BatchNorm(name="norm3")(h)
        if self.enters:
            x = convolution(self.width, 1, self.stride, name="shortcut")(x)
            x = BatchNorm(name="shortcut_norm")(x)
        return jax.nn.relu(h + x)


class ResNet(nn.Module):
    """ResNet with bottleneck blocks and convolutional shortcuts.

    Attributes:
      widths: Channels of conv0; per stage those of its stream, then of conv1 and conv2 of each block.
      classes: Units of fc.
      blocks: Blocks per stage.
      mean: Subtracted from each channel of the image, scaled to [0, 1].
      std: What each channel is then divided by.

    >>> module = ResNet((4, 8, 3, 5, 16, 6, 7), blocks=(1, 1))
    >>> shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    >>> shapes["stage2_block0"]["shortcut"]["kernel"].shape, shapes["stage2_block0"]["conv3"]["kernel"].shape
    ((1, 1, 8, 16), (1, 1, 7, 16))
    """

    widths: tuple[int, ...]
    classes: int = 1000
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "n classes"]:
        h = standardize(x, self.mean, self.std)
        h = convolution(self.widths[0], 7, 2, name="conv0")(h)
        h = jax.nn.relu(BatchNorm(name="norm0")(h))
        h = nn.max_pool(h, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, (width, inners) in enumerate(_stages(self.widths[1:], self.blocks, 2), 1):
            for block in range(len(inners) // 2):
                stride = 2 if stage > 1 and block == 0 else 1
                inner = (inners[2 * block], inners[2 * block + 1])
                h = _Bottleneck(inner, width, stride, block == 0, name=f"stage{stage}_block{block}")(h)
        return nn.Dense(self.classes, name="fc")(average(h))


def _bottleneck_layout(options: Options) -> Sequence[Width]:
    out = [Width(64, "conv0/kernel", 3)]
    for stage, count in enumerate(options["blocks"], 1):
        inner = 64 * 2 ** (stage - 1)
        out.append(Width(4 * inner, f"stage{stage}_block0/conv3/kernel", 3))
        for block in range(count):
            out += [Width(inner, f"stage{stage}_block{block}/{conv}/kernel", 3) for conv in ("conv1", "conv2")]
    return out


def _cifar(depth: int) -> Architecture:
    options = MappingProxyType({"blocks": ((depth - 2) // 6,) * 3, "pads": None, "mean": None, "std": None})
    return Architecture(CifarResNet, _layout, 10, (32, 32, 3), 4, options, _complete, _remember)


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        **{f"resnet{depth}": _cifar(depth) for depth in (20, 32, 44, 56)},
        "resnet50": Architecture(
            ResNet,
            _bottleneck_layout,
            1000,
            (224, 224, 3),
            32,
            MappingProxyType({"blocks": (3, 4, 6, 3), "mean": None, "std": None}),
            standardized,
        ),
    }
)
