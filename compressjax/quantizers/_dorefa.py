r"""DoReFa: low-bit weights, activations and gradients without anything to learn or calibrate.

With n = 2^bits - 1 and round_n(r) = round(n r) / n for r in [0, 1], whose gradient is that of the identity::

    weights       w -> 2 round_n(tanh(w) / (2 max|tanh(w)|) + 1/2) - 1       in [-1, 1], odd multiples of 1/n
                  with one bit:  w -> sign(w) mean|w|
    activations   x -> round_n(clip(x, 0, 1))
    gradients     g -> 2 m (round_n(g / (2 m) + 1/2 + u / n) - 1/2),  m = max|g| of the example,  u ~ U(-1/2, 1/2)

The noise makes the quantized gradient unbiased wherever rounding is not clipped.  Zeros of the weights are pruned and
stay zero.

Source: Zhou, Wu, Ni, Zhou, Wen, Zou, "DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with Low Bitwidth
Gradients", 2016 (arXiv 1606.06160), equations 7 to 12.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from compressjax.quantizers._base import check_bits, working
from compressjax.quantizers._integers import Codes, Integers, positive


def dorefa_weights(w: Float[Array, "..."], bits: int) -> Float[Array, "..."]:
    """Fake-quantized weights.

    Args:
      w: Weights, (...).
      bits: 1 to 7, so that the codes -(2^bits - 1) .. 2^bits - 1 fit int8.

    Returns:
      Odd multiples of ``1 / (2^bits - 1)`` in [-1, 1], or +-mean|w| for one bit; zeros stay.  Shape and dtype of `w`.

    Raises:
      ValueError: If `bits` is out of range.

    >>> dorefa_weights(jnp.array([0.5, -2.0, 0.0]), 2)
    Array([ 0.33333334, -1.        ,  0.        ], dtype=float32)
    """
    quantizer = DoReFaWeights(bits)
    codes, step = quantizer.codes_and_step(w)
    return (codes * step).astype(w.dtype)


def dorefa_activations(x: Float[Array, "..."], bits: int) -> Float[Array, "..."]:
    """Fake-quantized activations: clipped to [0, 1] and rounded to multiples of ``1 / (2^bits - 1)``.

    Args:
      x: Activations, (...).
      bits: 1 to 8.

    Returns:
      Shape and dtype of `x`; the gradient is one inside [0, 1], zero outside.

    Raises:
      ValueError: If `bits` is out of range.

    >>> dorefa_activations(jnp.array([-1.0, 0.4, 7.0]), 2)
    Array([0.        , 0.33333334, 1.        ], dtype=float32)
    """
    high = Codes(bits, signed=False).high
    return (_round(jnp.clip(working(x), 0.0, 1.0) * high) * _unit(high)).astype(x.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def dorefa_gradients(x: Float[Array, "n ..."], key: PRNGKeyArray, bits: int) -> Float[Array, "n ..."]:
    """The identity, whose gradient is quantized to `bits` with noise: put it after a layer.

    Args:
      x: A layer's outputs, examples first.
      key: From `jax.random.key`; another one each step.
      bits: 1 to 8.

    Returns:
      `x`.

    >>> pulled = jax.grad(lambda x: jnp.sum(dorefa_gradients(x, jax.random.key(0), 2) * jnp.array([[1.0, 0.3]])))
    >>> [round(value, 2) for value in pulled(jnp.zeros((1, 2)))[0].tolist()]
    [1.0, 0.33]
    """
    check_bits(bits)
    return x


def _forward(x: Array, key: PRNGKeyArray, bits: int) -> tuple[Array, PRNGKeyArray]:
    return dorefa_gradients(x, key, bits), key


def _backward(bits: int, key: PRNGKeyArray, pull: Array) -> tuple[Array, None]:
    high = Codes(bits, signed=False).high
    wide = working(pull)
    most = jnp.max(jnp.abs(wide), axis=tuple(range(1, wide.ndim)), keepdims=True)
    share = wide / jnp.where(most == 0, 1.0, most) / 2 + 0.5
    noise = jax.random.uniform(key, wide.shape, wide.dtype, -0.5, 0.5)
    code = jnp.clip(jnp.round(share * high + noise), 0, high)
    return (2 * most * (code / high - 0.5)).astype(pull.dtype), None


dorefa_gradients.defvjp(_forward, _backward)


@dataclass(frozen=True)
class DoReFaWeights:
    """DoReFa as a quantizer of weights; nothing is learned.

    Args:
      bits: 1 to 7.

    Raises:
      ValueError: If `bits` is out of range.

    >>> DoReFaWeights(1)(jnp.array([1.0, -3.0, 0.0]), None)
    Array([ 2., -2.,  0.], dtype=float32)
    """

    bits: int

    def __post_init__(self) -> None:
        check_bits(self.bits, most=7)

    def start(self, x: Float[Array, "..."]) -> None:
        """Nothing."""

    def codes_and_step(self, w: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, ""]]:
        """Codes as floats, differentiable as the identity through the rounding, and their step."""
        wide = working(w)
        if self.bits == 1:
            mean = jnp.sum(jnp.abs(wide)) / jnp.maximum(jnp.sum(w != 0), 1).astype(wide.dtype)
            step = jnp.where(mean > 0, lax.stop_gradient(mean), 1.0)
            sign = lax.stop_gradient(jnp.sign(wide))
            # Straight-through: of sign(w) mean|w| the gradient is taken to be the identity's.
            return sign + (wide - lax.stop_gradient(wide)) / step, step
        high = Codes(self.bits, signed=False).high
        flat = jnp.tanh(wide)
        most = jnp.max(jnp.abs(flat), initial=0.0)
        share = flat / (2 * jnp.where(most == 0, 1.0, most)) + 0.5
        code = 2 * _round(share * high) - high
        return code - lax.stop_gradient(jnp.where(w == 0, code, jnp.zeros_like(code))), _unit(high)

    def __call__(self, x: Float[Array, "..."], levels: None = None) -> Float[Array, "..."]:
        """`x` fake-quantized."""
        return dorefa_weights(x, self.bits)

    def integers(self, x: Float[Array, "..."], levels: None = None) -> Integers:
        """The integers behind `x` fake-quantized."""
        codes, step = self.codes_and_step(x)
        return Integers(codes.astype(jnp.int8), step)


@dataclass(frozen=True)
class DoReFaActivations:
    """DoReFa as a quantizer of activations; nothing is learned.

    Args:
      bits: 1 to 8.

    Raises:
      ValueError: If `bits` is out of range.

    >>> DoReFaActivations(1)(jnp.array([0.4, 0.6]), None)
    Array([0., 1.], dtype=float32)
    """

    bits: int

    def __post_init__(self) -> None:
        self.codes  # noqa: B018 (checks the bits)

    @property
    def codes(self) -> Codes:
        """The range of codes."""
        return Codes(self.bits, signed=False)

    def start(self, x: Float[Array, "..."]) -> None:
        """Nothing."""

    def __call__(self, x: Float[Array, "..."], levels: None = None) -> Float[Array, "..."]:
        """`x` fake-quantized."""
        return dorefa_activations(x, self.bits)

    def integers(self, x: Float[Array, "..."], levels: None = None) -> Integers:
        """The integers behind `x` fake-quantized."""
        high = self.codes.high
        codes = _round(jnp.clip(working(x), 0.0, 1.0) * high)
        return Integers(codes.astype(self.codes.dtype), _unit(high))


def _unit(high: int) -> Float[Array, ""]:
    """The step 1 / n, rounded once to float32 wherever it is used."""
    return positive(jnp.float32(1.0 / high))


def _round(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Rounding with the gradient of the identity."""
    # In this order the added difference is exactly zero.
    return lax.stop_gradient(jnp.round(x)) + (x - lax.stop_gradient(x))
