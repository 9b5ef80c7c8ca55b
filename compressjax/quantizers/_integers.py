"""Integer codes: what a fake-quantized tensor really is, and arithmetic on it.

A uniform quantizer with step s and codes in [low, high] maps

    x  ->  c = clip(round(x / s), low, high)          round half to even, the only rule on every device
    fake-quantized value  =  c s

so that a product of two such tensors is one of integers: sum (c_x s_x)(c_w s_w) = (s_x s_w) sum c_x c_w.  The sum is
taken in int32; the next layer's codes come from it by `requantize`.  A ReLU costs nothing before unsigned codes:
clipping at zero is what they do.

When is the integer path the fake-quantized float path, bit for bit?  Let M be `largest_sum`, a bound on sum |c_x c_w|.

    M <= 2^24, steps powers of two    every float32 operand, product and partial sum is exact: the paths agree, in any
                                      order of summation, bias included if it is a multiple of s_x s_w
    M <= 2^24, any steps              agree if the float path multiplies codes and scales the sum, (sum c_x c_w) s_x s_w
    otherwise                         agree to float32 rounding; the codes after `requantize` can then differ by one,
                                      where the exact value lies within that rounding of a border between two codes
    M >= 2^31                         int32 may overflow: use fewer bits

Operands of 8 bits are also exact in the TensorFloat-32 and bfloat16 passes of matrix units, which sum in float32.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018 (arXiv 1712.05877), without its zero points: codes here are symmetric, or unsigned after a ReLU.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Shaped

from compressjax.quantizers._base import check_bits, working

EXACT = 1 << 24  # float32 holds every integer up to here
Padding = str | Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Codes:
    """A range of integer codes.

    Args:
      bits: Of one code: 2 to 8 if signed, 1 to 8 if not.
      signed: -2^(bits-1) .. 2^(bits-1) - 1 if so, else 0 .. 2^bits - 1.

    Raises:
      ValueError: If `bits` is out of range.

    >>> Codes(4).low, Codes(4).high, Codes(4, signed=False).high
    (-8, 7, 15)
    """

    bits: int
    signed: bool = True

    def __post_init__(self) -> None:
        check_bits(self.bits, least=2 if self.signed else 1)

    @property
    def low(self) -> int:
        """The least code."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """The largest code."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def dtype(self) -> jnp.dtype:
        """int8 wherever it holds the codes; uint8 for 8 unsigned bits."""
        return jnp.dtype(jnp.int8 if self.high <= 127 else jnp.uint8)


class Integers(NamedTuple):
    """A tensor of codes times steps.

    Attributes:
      codes: Integers of any width, (...).
      step: float32 (), or with one axis per axis of `codes`, of size 1 where entries share a step.

    >>> Integers(jnp.array([1, -2], jnp.int8), jnp.float32(0.5)).value
    Array([ 0.5, -1. ], dtype=float32)
    """

    codes: Int[Array, "..."]
    step: Float[Array, "..."]

    @property
    def value(self) -> Float[Array, "..."]:
        """The numbers meant, float32."""
        return self.codes.astype(jnp.float32) * self.step


def positive(step: Float[Array, "..."]) -> Float[Array, "..."]:
    """The step that is used: the magnitude of the one given, at least the least normal number.

    The barrier hides constants from the compiler, which would otherwise divide by multiplying with a rounded
    reciprocal, and so choose another code near a border than where the step is an argument.
    """
    return lax.optimization_barrier(jnp.maximum(jnp.abs(working(step)), jnp.finfo(jnp.float32).tiny))


def round_to_codes(x: Float[Array, "..."], step: Float[Array, "..."], codes: Codes) -> Float[Array, "..."]:
    """``clip(round(x / step), low, high)``, still as floats in the working dtype; NaN stays NaN."""
    return jnp.clip(jnp.round(working(x) / positive(step)), codes.low, codes.high)


def to_integers(x: Float[Array, "..."], step: Float[Array, "..."], codes: Codes) -> Integers:
    """The integers behind a tensor: quantizes it, or reads back the codes of one that is fake-quantized already.

    Args:
      x: Weights or activations, (...).
      step: Positive, () or broadcastable with an axis for each of `x`.
      codes: The range.

    Returns:
      Codes (...) in ``codes.dtype``, and the step in float32.  ``to_integers(q.value, q.step, codes)`` is ``q`` again.

    >>> to_integers(jnp.array([0.3, -0.9, 9.0]), jnp.float32(0.25), Codes(4))
    Integers(codes=Array([ 1, -4,  7], dtype=int8), step=Array(0.25, dtype=float32))
    """
    return Integers(round_to_codes(x, step, codes).astype(codes.dtype), positive(step).astype(jnp.float32))


def dense(x: Integers, w: Integers, bias: Int[Array, "outputs"] | None = None) -> Integers:
    """A dense layer on integers: ``x @ w + bias`` in int32.

    Args:
      x: Codes (..., inputs), one step.
      w: Codes (inputs, outputs), one step or one per output, (1, outputs).
      bias: Codes in units of the product of both steps; see `round_bias`.

    Returns:
      int32 codes (..., outputs), with the product of the steps.

    Raises:
      ValueError: If `x` has more than one step, or steps of `w` vary along its inputs.

    >>> x, w = jnp.array([[3, 1]], jnp.int8), jnp.array([[2], [-1]], jnp.int8)
    >>> dense(Integers(x, jnp.float32(0.5)), Integers(w, jnp.float32(0.5))).value
    Array([[1.25]], dtype=float32)
    """
    step = _product(x, w)
    total = jnp.matmul(*_multipliable(x.codes, w.codes), preferred_element_type=jnp.int32)
    return _biased(Integers(total, step.reshape((1,) * (total.ndim - 1) + (-1,)) if step.ndim else step), bias)


def convolution(
    x: Integers,
    w: Integers,
    bias: Int[Array, "outputs"] | None = None,
    strides: tuple[int, int] = (1, 1),
    padding: Padding = "VALID",
) -> Integers:
    """A convolution on integers, in int32.

    Args:
      x: Codes (batch, height, width, inputs), one step.
      w: Codes (height, width, inputs, outputs), one step or one per output, (1, 1, 1, outputs).
      bias: As for `dense`.
      strides: Of both axes.
      padding: As `jax.lax.conv_general_dilated` takes it.

    Returns:
      int32 codes (batch, rows, columns, outputs), with the product of the steps.

    Raises:
      ValueError: As `dense`.

    >>> x = Integers(jnp.ones((1, 3, 3, 1), jnp.int8), jnp.float32(0.5))
    >>> convolution(x, Integers(jnp.ones((3, 3, 1, 1), jnp.int8), jnp.float32(0.25))).value.ravel()
    Array([1.125], dtype=float32)
    """
    step = _product(x, w)
    total = lax.conv_general_dilated(
        *_multipliable(x.codes, w.codes),
        strides,
        padding if isinstance(padding, str) else tuple(padding),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        preferred_element_type=jnp.int32,
    )
    return _biased(Integers(total, step), bias)


def requantize(total: Integers, step: Float[Array, ""], codes: Codes) -> Integers:
    """The codes of a layer's output for the layer after it: ``clip(round(sum (s_x s_w) / step))``.

    The operations, in this order, are those of the fake-quantized path, so that equal sums give equal codes.

    >>> requantize(Integers(jnp.array([-3, 5, 999]), jnp.float32(0.5)), jnp.float32(1.0), Codes(4, signed=False)).codes
    Array([ 0,  2, 15], dtype=int8)
    """
    return to_integers(total.value, step, codes)


def round_bias(
    bias: Float[Array, "outputs"], x_step: Float[Array, ""], w_step: Float[Array, "..."]
) -> Int[Array, "outputs"]:
    """A bias as int32 codes in units of the product of two steps, for `dense` and `convolution`.

    >>> round_bias(jnp.array([0.3, -1.0]), jnp.float32(0.5), jnp.float32(0.5)).tolist()
    [1, -4]
    """
    step = positive(jnp.asarray(x_step * w_step).reshape(-1))
    return jnp.clip(jnp.round(working(bias) / step), -EXACT, EXACT).astype(jnp.int32)


def largest_sum(w: Integers, codes: Codes, bias: Int[Array, "outputs"] | None = None) -> Float[Array, ""]:
    """A bound on the magnitude of every partial sum of a layer: max over outputs of max|c_x| sum |c_w| + |bias|.

    Args:
      w: Weights (..., outputs).
      codes: The range of the layer's input.
      bias: The layer's.

    Returns:
      float32 (); up to 2^24 the float path is exact, see the module's table; below 2^31 nothing overflows.

    >>> w = Integers(jnp.array([[7, 1], [-7, 2]], jnp.int8), jnp.float32(1.0))
    >>> largest_sum(w, Codes(4))
    Array(112., dtype=float32)
    """
    most = float(max(-codes.low, codes.high))
    sums = most * jnp.sum(jnp.abs(w.codes.astype(jnp.float32)).reshape(-1, w.codes.shape[-1]), axis=0)
    return jnp.max(sums if bias is None else sums + jnp.abs(bias).astype(jnp.float32))


def _product(x: Integers, w: Integers) -> Float[Array, "..."]:
    """The step of the sums: () or (1, ..., outputs)."""
    if x.step.size != 1:
        raise ValueError(
            f"The input has steps of shape {x.step.shape}: sums over inputs need one step for all of them."
        )
    if w.step.size not in (1, w.step.shape[-1] if w.step.ndim else 1):
        raise ValueError(
            f"The weights {w.codes.shape} have steps of shape {w.step.shape}: steps may vary along the last axis only, "
            "because sums run over the others."
        )
    return x.step.reshape(()) * w.step


def _multipliable(x: Shaped[Array, "..."], w: Shaped[Array, "..."]) -> tuple[Array, Array]:
    """Operands of one dtype: as they are if they agree, which lets devices use their int8 units."""
    return (x, w) if x.dtype == w.dtype else (x.astype(jnp.int32), w.astype(jnp.int32))


def _biased(total: Integers, bias: Int[Array, "outputs"] | None) -> Integers:
    if bias is None:
        return total
    return total._replace(codes=total.codes + bias.reshape((1,) * (total.codes.ndim - 1) + (-1,)))
