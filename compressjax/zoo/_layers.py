"""Pieces that several families share: convolutions with explicit padding, and the standardization of images."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Images = Float[Array, "n h w c"] | Float[np.ndarray, "n h w c"]


def standardize(x: Images, mean: Sequence[float], std: Sequence[float]) -> Float[Array, "n h w c"]:
    """``(x - mean) / std`` by channel.

    >>> standardize(jnp.full((1, 1, 1, 2), 0.5), (0.5, 0.25), (1.0, 0.5)).ravel().tolist()
    [0.0, 0.5]
    """
    shift, factor = (np.asarray(values, np.float32).reshape(1, 1, 1, -1) for values in (mean, std))
    return (jnp.asarray(x) - shift) / factor


def convolution(width: int, size: int, stride: int = 1, *, name: str, bias: bool = False) -> Any:
    """A convolution padded by ``size // 2`` on every side, whatever its stride.

    With stride 2 this is not ``"SAME"``, which pads an even image on one side only.
    """
    pad = size // 2
    return nn.Conv(
        width,
        (size, size),
        strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        use_bias=bias,
        name=name,
    )


def average(x: Float[Array, "n h w c"]) -> Float[Array, "n c"]:
    """Mean over height and width."""
    return jnp.mean(x, (1, 2))


def every(x: Float[Array, "n h w c"], stride: int) -> Float[Array, "n rows cols c"]:
    """Every `stride`-th row and column, from the first: a plain strided slice."""
    return x if stride == 1 else jax.lax.slice(x, (0, 0, 0, 0), x.shape, (1, stride, stride, 1))
