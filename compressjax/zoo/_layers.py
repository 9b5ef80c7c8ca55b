"""Pieces that several families share: convolutions with explicit padding, and the standardization of images.

XLA:CPU leaves its fast path for two kinds of convolution, so that these take another form there, with equal values:

- images smaller than the kernel (3x3 on 2x2 pixels, at the end of a VGG): over 100 times slower than other shapes.
  Padding them first, behind a barrier, keeps the fast path; training, whose gradients are slow too, sums over taps.
- the gradient of wide convolutions on large images with respect to the kernel: about three times slower than as one
  matrix product per tap.
"""

from collections.abc import Sequence
from functools import partial
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


def convolution(
    width: int, size: int, stride: int = 1, *, name: str, bias: bool = False, training: bool = False
) -> Any:
    """A convolution padded by ``size // 2`` on every side, whatever its stride.

    With stride 2 this is not ``"SAME"``, which pads an even image on one side only.

    Args:
      width: Output channels.
      size: Of the square kernel.
      stride: Of both axes.
      name: Of the module.
      bias: Whether there is one.
      training: Whether gradients will be taken: picks the form whose gradient is fast on the device at hand.
    """
    pad = size // 2
    return nn.Conv(
        width,
        (size, size),
        strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        use_bias=bias,
        conv_general_dilated=partial(_convolve, training=training) if jax.default_backend() == "cpu" else None,
        name=name,
    )


def _convolve(x: jax.Array, kernel: jax.Array, strides: Any, padding: Any, *, training: bool, **rest: Any) -> jax.Array:
    """`jax.lax.conv_general_dilated`, in the form that XLA:CPU runs fast."""
    side, size, depth = min(x.shape[1:3]), kernel.shape[0], x.shape[-1]
    small = side < size
    if training and tuple(strides) == (1, 1) and (small or (side >= 32 and depth >= 32)):
        return by_taps(x, kernel, padding)
    if small:
        x = jax.lax.optimization_barrier(jnp.pad(x, ((0, 0), *padding, (0, 0))))
        padding = ((0, 0), (0, 0))
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **rest)


def by_taps(
    x: Images, kernel: Float[Array, "kh kw c d"], padding: Sequence[tuple[int, int]]
) -> Float[Array, "n rows cols d"]:
    """A convolution of stride 1 as a sum over the kernel's positions: one matrix product of a shifted image for each.

    >>> x, kernel = jnp.arange(4.0).reshape(1, 2, 2, 1), jnp.ones((3, 3, 1, 1))
    >>> by_taps(x, kernel, ((1, 1), (1, 1))).ravel().tolist()
    [6.0, 6.0, 6.0, 6.0]
    """
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    height, width, depth, outputs = kernel.shape
    rows, cols = padded.shape[1] - height + 1, padded.shape[2] - width + 1
    # Two axes, not four: the gradient of a product over four is ten times slower.
    terms = [
        padded[:, i : i + rows, j : j + cols].reshape(-1, depth) @ kernel[i, j]
        for i in range(height)
        for j in range(width)
    ]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total.reshape(len(x), rows, cols, outputs)


def average(x: Float[Array, "n h w c"]) -> Float[Array, "n c"]:
    """Mean over height and width."""
    return jnp.mean(x, (1, 2))


def every(x: Float[Array, "n h w c"], stride: int) -> Float[Array, "n rows cols c"]:
    """Every `stride`-th row and column, from the first: a plain strided slice."""
    return x if stride == 1 else jax.lax.slice(x, (0, 0, 0, 0), x.shape, (1, stride, stride, 1))
