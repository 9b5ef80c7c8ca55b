"""What a name in the zoo stands for: how widths, parameters and a Linen module belong together.

Each family of networks writes one `Architecture` per name; `compressjax.zoo.build` is the only reader.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np
from jaxtyping import Bool

Options = Mapping[str, Any]
# For an axis of a leaf, which of its old positions are still there.
Kept = Mapping[tuple[str, int], Bool[np.ndarray, " old"]]

_RGB_MEAN, _RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Width(NamedTuple):
    """One number in `Model.widths`: its published value, and the axis of a leaf that has this size."""

    published: int
    path: str
    axis: int


def _as_they_are(widths: tuple[int, ...], shape: tuple[int, ...], options: Options) -> Options:
    return options


def _nothing_remembered(options: Options, kept: Kept) -> Options:
    return options


@dataclass(frozen=True)
class Architecture:
    """A network by name.

    Attributes:
      module: Makes the Linen module: ``module(widths=..., classes=..., **options)``.
      layout: From the options, what each entry of the widths is.
      classes: Published number of classes, or size of the vocabulary.
      input_shape: Published shape of one example: (height, width, channels), or (length,) of a sequence of tokens.
      smallest: Least height and width, or length.
      options: What else defines the network, with its published values; None is filled in by `complete`.
      complete: ``complete(widths, input_shape, options)``: fills in and checks options.
      remember: ``remember(options, kept)``: the options after channels were removed.
      chain: Layers in the order of the data, for networks that are plain chains.
    """

    module: Callable[..., nn.Module]
    layout: Callable[[Options], Sequence[Width]]
    classes: int
    input_shape: tuple[int, ...]
    smallest: int
    options: Options
    complete: Callable[[tuple[int, ...], tuple[int, ...], Options], Options] = _as_they_are
    remember: Callable[[Options, Kept], Options] = _nothing_remembered
    chain: tuple[str, ...] = ()


def standardized(widths: tuple[int, ...], shape: tuple[int, ...], options: Options) -> Options:
    """Fills in `mean` and `std`, one number per channel of the image.

    Colour images get the usual constants of ImageNet, others pass as they are.
    """
    channels = shape[-1]
    usual = (_RGB_MEAN, _RGB_STD) if channels == 3 else ((0.0,) * channels, (1.0,) * channels)
    filled = {name: usual[i] if options[name] is None else options[name] for i, name in enumerate(("mean", "std"))}
    for name, values in filled.items():
        if len(values) != channels or (name == "std" and min(values) <= 0):
            raise ValueError(
                f"{name} {values} must be one number per channel of input_shape {shape}, positive for std."
            )
    return {**options, **filled}
