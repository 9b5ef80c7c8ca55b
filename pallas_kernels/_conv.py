"""Convolution as a matrix product: every output position multiplies its patch of the input.

The native kernel finds the patches in the images; for the others they are written out first.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from pallas_kernels import native
from pallas_kernels._choose import refusal
from pallas_kernels._interface import Activation, Epilogue, Format, wide
from pallas_kernels._matmul import matmul
from pallas_kernels._prepare import Prepared
from pallas_kernels.block_sparse import BlockSparse
from pallas_kernels.dense import Dense


def conv(
    x: Float[Array, "batch height width channels"],
    w: Format | Prepared,
    bias: Float[Array, "N"] | None = None,
    activation: Activation | None = None,
    *,
    window: tuple[int, int],
    strides: tuple[int, int] = (1, 1),
    padding: str | Sequence[tuple[int, int]] = "SAME",
    dilation: tuple[int, int] = (1, 1),
    **how: Any,
) -> Float[Array, "batch rows columns N"]:
    """``activation(convolution(x, w) + bias)`` with packed weights.

    Args:
      x: Images, channels last.
      w: A kernel [height, width, channels, N] as matrix [height * width * channels, N], packed.
      bias: One value per output channel.
      activation: Elementwise function.
      window: (height, width) of the kernel.
      strides: Of the window, in positions.
      padding: "SAME", "VALID", or ((top, bottom), (left, right)).
      dilation: Distance of the kernel's taps.
      **how: As for `matmul`.

    Returns:
      The images of the outputs.

    Raises:
      ValueError: If the channels times the window are not the inputs of `w`.

    >>> import numpy as np
    >>> from pallas_kernels import Dense
    >>> ones = Dense(jnp.ones((9, 1)))
    >>> conv(jnp.ones((1, 3, 3, 1)), ones, window=(3, 3))[0, :, :, 0].astype(int).tolist()
    [[4, 6, 4], [6, 9, 6], [4, 6, 4]]
    """
    if window[0] * window[1] * x.shape[-1] != w.shape[0]:
        raise ValueError(
            f"conv: a window of {window[0]}x{window[1]} over {x.shape[-1]} channels has "
            f"{window[0] * window[1] * x.shape[-1]} inputs; these weights have {w.shape[0]}."
        )
    if bias is not None and bias.shape != w.shape[1:]:
        raise ValueError(f"conv: the bias has shape {bias.shape}; these weights have {w.shape[1]} outputs.")
    weights = w.weights if isinstance(w, Prepared) else w
    pads, out = _positions(x.shape, window, strides, padding, dilation)
    if isinstance(weights, Dense):
        # Without a sparse form there is no reason to unfold the images, whatever would have multiplied with them.
        out_dtype = jnp.dtype(how.get("out_dtype") or x.dtype)
        x = x.astype(jnp.promote_types(x.dtype, w.dtype))
        kernel = weights.todense().reshape(*window, x.shape[-1], w.shape[1]).astype(x.dtype)
        product = lax.conv_general_dilated(
            x,
            kernel,
            strides,
            pads,
            rhs_dilation=dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            preferred_element_type=wide(x.dtype),
        )
        return Epilogue(activation, out_dtype)(product, bias)
    if _gathers(x, w, window, out, how):
        place = _Place(window, strides, (pads[0], pads[1]), dilation, (out[0], out[1]))
        return _native(place, Epilogue(activation, jnp.dtype(how.get("out_dtype") or x.dtype)), x, weights, bias)
    return matmul(patches(x, window, strides, padding, dilation), w, bias, activation, **how)


@dataclass(frozen=True)
class _Place:
    """Everything static about where a convolution reads."""

    window: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int]
    out: tuple[int, int]


def _gathers(x: Array, w: Format | Prepared, window: tuple[int, int], out: Sequence[int], how: dict[str, Any]) -> bool:
    """Whether the native kernel multiplies without patches: a window of one position has none, few images few."""
    name, weights = how.get("implementation", "auto"), w
    if isinstance(w, Prepared):
        name, weights = (w.implementation if name == "auto" else name), w.weights
    if name != "native" or not isinstance(weights, BlockSparse) or window == (1, 1):
        return False
    if not isinstance(x.shape[0], int) or x.shape[0] * math.prod(out) <= native.FEW_POSITIONS:
        return False
    platform = how.get("platform") or getattr(w, "platform", None)
    rows = jax.ShapeDtypeStruct((1, w.shape[0]), x.dtype)
    return refusal("native", "matmul", rows, weights, platform) is None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _native(place: _Place, epilogue: Epilogue, x: Array, w: BlockSparse, bias: Array | None) -> Array:
    before = place.pads[0][0], place.pads[1][0]
    return native.conv(x, w, bias, epilogue, place.window, place.strides, place.dilation, before, place.out)


def _native_forward(place: _Place, epilogue: Epilogue, *operands: Any) -> tuple[Array, Any]:
    return _native(place, epilogue, *operands), operands


def _native_backward(place: _Place, epilogue: Epilogue, operands: Any, dy: Array) -> Any:
    def unfolded(x: Array, w: BlockSparse, bias: Array | None) -> Array:
        rows = patches(x, place.window, place.strides, place.pads, place.dilation)
        how = {"implementation": "native", "out_dtype": epilogue.out_dtype}
        return matmul(rows, w, bias, epilogue.activation, **how)

    return jax.vjp(unfolded, *operands)[1](dy)


_native.defvjp(_native_forward, _native_backward)


def patches(
    x: Float[Array, "batch height width channels"],
    window: tuple[int, int],
    strides: tuple[int, int] = (1, 1),
    padding: str | Sequence[tuple[int, int]] = "SAME",
    dilation: tuple[int, int] = (1, 1),
) -> Float[Array, "batch rows columns inputs"]:
    """The patch under every position of a window, in the order (row, column, channel) of the window.

    Slices of the padded input side by side: for a backend without a fast gather this is the fastest way.

    >>> patches(jnp.arange(4.0).reshape(1, 2, 2, 1), (2, 2), padding="VALID").ravel().tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    pads, out = _positions(x.shape, window, strides, padding, dilation)
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    if window == (1, 1) and strides == (1, 1):
        return padded
    (rows, columns), (down, right) = out, strides
    taps = []
    for i in range(window[0]):
        for j in range(window[1]):
            top, left = i * dilation[0], j * dilation[1]
            bottom, end = top + (rows - 1) * down + 1, left + (columns - 1) * right + 1
            taps.append(padded[:, top:bottom:down, left:end:right])
    return jnp.concatenate(taps, -1)


def _positions(
    shape: tuple[Any, ...],  # a batch may be symbolic
    window: tuple[int, int],
    strides: tuple[int, int],
    padding: str | Sequence[tuple[int, int]],
    dilation: tuple[int, int],
) -> tuple[list[tuple[int, int]], list[int]]:
    """The padding in numbers, and how many rows and columns of positions the window has."""
    reach = [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
    pads = lax.padtype_to_pads(shape[1:3], reach, strides, padding) if isinstance(padding, str) else padding
    sizes = [size + sum(pad) for size, pad in zip(shape[1:3], pads, strict=True)]
    out = [(size - r) // s + 1 for size, r, s in zip(sizes, reach, strides, strict=True)]
    if min(out) < 1:
        raise ValueError(f"conv: a window of {window} does not fit images of {shape[1:3]} with padding {padding}.")
    return [(low, high) for low, high in pads], out
