"""Layers as functions, on dense and on packed weights alike.

A network written with `linear` and `conv` runs with its own parameters and with their packed form: which of the two a
leaf is decides how it multiplies.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

import pallas_kernels as pk
from compressjax.runtime._pack import Packed

Padding = str | Sequence[tuple[int, int]]
Activation = Callable[[Array], Array]


def linear(
    x: Float[Array, "... inputs"],
    w: Float[Array, "inputs outputs"] | Float[np.ndarray, "inputs outputs"] | Packed,
    bias: Float[Array, " outputs"] | Float[np.ndarray, " outputs"] | None = None,
    activation: Activation | None = None,
    **how: Any,
) -> Float[Array, "... outputs"]:
    """``activation(x @ w + bias)``.

    Args:
      x: Activations.
      w: Weights, dense or packed.
      bias: One value per output.
      activation: Elementwise function such as `jax.nn.relu`; pass the same object every time, or jit compiles anew.
      **how: For packed weights: `implementation`, `platform`, `interpret` of `pallas_kernels.matmul`.

    Returns:
      The product, in the dtype of `x`.

    Raises:
      ValueError: If shapes do not fit.

    >>> from compressjax.runtime import As, pack
    >>> w = np.diag(np.float32([1.0, 2.0]))
    >>> linear(jnp.ones(2), w).tolist(), linear(jnp.ones(2), pack({"w": w}, {"w": As(block=(1, 1))})["w"]).tolist()
    ([1.0, 2.0], [1.0, 2.0])
    """
    _fits(x, w, bias, 2, "linear")
    bias = None if bias is None else jnp.asarray(bias)
    if isinstance(w, Packed):
        return pk.matmul(x, w.matrix, bias, activation, **how)
    return _finish(jnp.matmul(x, jnp.asarray(w)), bias, activation, x.dtype)


def conv(
    x: Float[Array, "n h w c"],
    w: Float[Array, "kh kw c outputs"] | Float[np.ndarray, "kh kw c outputs"] | Packed,
    bias: Float[Array, " outputs"] | Float[np.ndarray, " outputs"] | None = None,
    activation: Activation | None = None,
    *,
    strides: int | tuple[int, int] = 1,
    padding: Padding = "SAME",
    dilation: int | tuple[int, int] = 1,
    **how: Any,
) -> Float[Array, "n rows columns outputs"]:
    """A convolution: images (n, h, w, c), kernels (kh, kw, c, outputs).

    Args:
      x: Images.
      w: Kernel, dense or packed.
      bias: One value per output.
      activation: As for `linear`.
      strides: Of both axes.
      padding: "SAME", "VALID", or ((top, bottom), (left, right)).
      dilation: Distance of the kernel's positions, of both axes.
      **how: As for `linear`.

    Returns:
      Images, in the dtype of `x`.

    Raises:
      ValueError: If shapes do not fit, `strides` or `dilation` is no whole number from 1, or `padding` is unknown.

    >>> from compressjax.runtime import As, pack
    >>> w = np.float32([[[[1.0]], [[2.0]]]])
    >>> x = jnp.arange(3.0).reshape(1, 1, 3, 1)
    >>> packed = pack({"w": w}, {"w": As(block=(1, 1))})["w"]
    >>> conv(x, w, padding="VALID").ravel().tolist(), conv(x, packed, padding="VALID").ravel().tolist()
    ([2.0, 5.0], [2.0, 5.0])
    """
    _fits(x, w, bias, 4, "conv")
    strides, dilation = _both("strides", strides), _both("dilation", dilation)
    if isinstance(padding, str) and padding not in ("SAME", "VALID"):
        raise ValueError(f"conv: padding={padding!r} must be 'SAME', 'VALID' or ((top, bottom), (left, right)).")
    bias = None if bias is None else jnp.asarray(bias)
    if isinstance(w, Packed):
        return pk.conv(
            x,
            w.matrix,
            bias,
            activation,
            window=(w.shape[0], w.shape[1]),
            strides=strides,
            padding=padding,
            dilation=dilation,
            **how,
        )
    pads = padding if isinstance(padding, str) else tuple(padding)
    wide = jnp.result_type(x, w)  # other than a product, XLA's convolution does not promote by itself
    product = lax.conv_general_dilated(
        x.astype(wide),
        jnp.asarray(w, wide),
        strides,
        pads,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return _finish(product, bias, activation, x.dtype)


def _fits(x: jax.Array, w: Any, bias: Any, rank: int, name: str) -> None:
    if len(w.shape) != rank:
        raise ValueError(f"{name}: weights of shape {tuple(w.shape)} do not fit: {rank} axes are needed.")
    if (rank == 4 and x.ndim != 4) or x.ndim < 1 or x.shape[-1] != w.shape[-2]:
        raise ValueError(f"{name}: inputs of shape {tuple(x.shape)} do not fit weights of shape {tuple(w.shape)}.")
    if bias is not None and np.shape(bias) != tuple(w.shape[-1:]):
        raise ValueError(f"{name}: a bias of shape {np.shape(bias)} does not fit weights of shape {tuple(w.shape)}.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name}: inputs of {x.dtype} would be truncated: cast them to floats.")


def _both(name: str, value: int | tuple[int, int]) -> tuple[int, int]:
    pair = np.asarray(value)
    if pair.shape not in ((), (2,)) or not np.issubdtype(pair.dtype, np.integer) or pair.min() < 1:
        raise ValueError(f"conv: {name}={value!r} must be one or two whole numbers from 1.")
    rows, columns = np.broadcast_to(pair, 2).tolist()
    return rows, columns


def _finish(product: jax.Array, bias: jax.Array | None, activation: Activation | None, dtype: Any) -> jax.Array:
    if bias is not None:
        product = product + jnp.expand_dims(bias, range(product.ndim - 1))
    if activation is not None:
        product = activation(product)
    return product.astype(dtype)
