r"""LSQ: the step of a uniform quantizer is learned with the weights.

With v = x / s and the codes [-Qn, Qp]::

    forward     y = clip(round(v), -Qn, Qp) s
    backward    dy/dx = 1 where -Qn < v < Qp, else 0
                dy/ds = round(v) - v inside,  -Qn below,  Qp above
                then times g = 1 / sqrt(N Qp),  N the number of entries that share the step
    start       s = 2 mean|x| / sqrt(Qp)

g brings the step's relative updates to the size of the weights'.  For weights N is their number (per channel: in one
channel); for activations it is the number of features of one example.

Source: Esser, McKinstry, Bablani, Appuswamy, Modha, "Learned Step Size Quantization", ICLR 2020 (arXiv 1902.08153).
"""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from compressjax.quantizers._base import working
from compressjax.quantizers._integers import Codes, Integers, positive, round_to_codes, to_integers


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def lsq(
    x: Float[Array, "..."], step: Float[Array, "..."], codes: Codes, sharing: int | None = None
) -> Float[Array, "..."]:
    """Fake quantization with a learned step.

    Args:
      x: Weights or activations, (...).
      step: () or broadcastable with an axis for each of `x`; its magnitude is used.
      codes: The range of codes.
      sharing: Entries that share a step, N in the gradient's scale; all of `x` over the number of steps if None.  For
        activations give the features of one example.

    Returns:
      ``codes * step`` in the shape and dtype of `x`.

    >>> lsq(jnp.array([0.3, -0.9, 9.0]), jnp.float32(0.25), Codes(4))
    Array([ 0.25, -1.  ,  1.75], dtype=float32)
    """
    return (round_to_codes(x, step, codes) * positive(step)).astype(x.dtype)


def _forward(x: Array, step: Array, codes: Codes, sharing: int | None) -> tuple[Array, tuple[Array, Array]]:
    return lsq(x, step, codes, sharing), (x, step)


def _backward(codes: Codes, sharing: int | None, saved: tuple[Array, Array], pull: Array) -> tuple[Array, Array]:
    x, step = saved
    ratio = working(x) / positive(step)
    inside = (ratio > codes.low) & (ratio < codes.high)
    code = round_to_codes(x, step, codes)
    slope = jnp.where(inside, code - ratio, code)
    entries = sharing or x.size // max(step.size, 1)
    gradient = _sum_to(working(pull) * slope, step.shape) / math.sqrt(max(entries, 1) * codes.high)
    sign = jnp.where(step < 0, -1.0, 1.0).astype(gradient.dtype)
    # A product, so that a NaN which arrives goes on.
    return pull * inside.astype(pull.dtype), (gradient * sign).astype(step.dtype)


lsq.defvjp(_forward, _backward)


def _sum_to(x: Float[Array, "..."], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Sums over the axes along which `shape` was broadcast."""
    if not shape:
        return jnp.sum(x)
    axes = tuple(axis for axis, (long, short) in enumerate(zip(x.shape, shape, strict=True)) if short != long)
    return jnp.sum(x, axis=axes, keepdims=True)


@dataclass(frozen=True)
class LearnedStep:
    """LSQ as a learned quantizer, for `training.learned_levels` and activations.

    Args:
      bits: Of one code: 2 to 8 if signed, 1 to 8 if not.
      signed: Weights are; activations after a ReLU are not.
      axis: Axis with one step per position (-1: per output channel), or None for one step.
      batched: Whether axis 0 counts examples, as in activations.

    Raises:
      ValueError: If `bits` is out of range; at the start, if the tensor has no such axis.

    >>> quantizer = LearnedStep(2)
    >>> x = jnp.array([1.0, -3.0, 0.0])
    >>> step = quantizer.start(x)
    >>> step, quantizer(x, step)
    (Array(2.6666667, dtype=float32), Array([ 0.       , -2.6666667,  0.       ], dtype=float32))
    """

    bits: int
    signed: bool = True
    axis: int | None = None
    batched: bool = False

    def __post_init__(self) -> None:
        self.codes  # noqa: B018 (checks the bits)

    @property
    def codes(self) -> Codes:
        """The range of codes."""
        return Codes(self.bits, self.signed)

    def start(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The first step, 2 mean|x| / sqrt(Qp) in float32, () or (1, ..., channels, ..., 1); 1 where all is zero."""
        if self.axis is not None and x.ndim and not -x.ndim <= self.axis < x.ndim:
            raise ValueError(f"LearnedStep: shape {x.shape} has no axis {self.axis}: set `axis` or exempt the leaf.")
        axes = None if self.axis is None else tuple(i for i in range(x.ndim) if i != self.axis % x.ndim)
        mean = jnp.mean(jnp.abs(x.astype(jnp.float32)), axis=axes, keepdims=axes is not None)
        return jnp.where(mean > 0, 2 * mean / math.sqrt(self.codes.high), 1.0)

    def __call__(self, x: Float[Array, "..."], levels: Float[Array, "..."]) -> Float[Array, "..."]:
        """`x` fake-quantized with the step `levels`."""
        return lsq(x, levels, self.codes, x.size // max(x.shape[0] * levels.size, 1) if self.batched else None)

    def integers(self, x: Float[Array, "..."], levels: Float[Array, "..."]) -> Integers:
        """The integers behind `x` fake-quantized."""
        return to_integers(x, levels, self.codes)
