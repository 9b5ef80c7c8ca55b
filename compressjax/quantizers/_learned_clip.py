r"""PACT: the clipping level of a ReLU's activations is learned.

With a the clip, n = 2^bits - 1 codes above zero and s = a / n::

    forward     y = round(clip(x, 0, a) / s) s
    backward    dy/dx = 1 where 0 < x < a, else 0
                dy/da = 1 where x >= a, else 0

so that the clip grows where cutting hurts; an l2 penalty on it, part of the published method, pulls it back: add
``decay * a**2`` to the loss.

Source: Choi, Wang, Venkataramani, Chuang, Srinivasan, Gopalakrishnan, "PACT: Parameterized Clipping Activation for
Quantized Neural Networks", 2018 (arXiv 1805.06085).
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from compressjax.quantizers._base import working
from compressjax.quantizers._integers import Codes, Integers, positive, round_to_codes, to_integers


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def pact(x: Float[Array, "..."], clip: Float[Array, ""], bits: int) -> Float[Array, "..."]:
    """Fake quantization of activations between zero and a learned clip.

    Args:
      x: Activations, (...); negative ones become zero, so that no ReLU is needed before.
      clip: (); its magnitude is used.
      bits: 1 to 8.

    Returns:
      Multiples of ``clip / (2^bits - 1)``, shape and dtype of `x`.

    >>> pact(jnp.array([-1.0, 0.6, 1.0, 9.0]), jnp.float32(3.0), 2)
    Array([0., 1., 1., 3.], dtype=float32)
    """
    step = _step(clip, bits)
    return (round_to_codes(x, step, Codes(bits, signed=False)) * positive(step)).astype(x.dtype)


def _step(clip: Float[Array, ""], bits: int) -> Float[Array, ""]:
    # A product: the compiler would make one of a division by a constant, but not of one by an argument.
    return positive(clip) * (1.0 / Codes(bits, signed=False).high)


def _forward(x: Array, clip: Array, bits: int) -> tuple[Array, tuple[Array, Array]]:
    return pact(x, clip, bits), (x, clip)


def _backward(bits: int, saved: tuple[Array, Array], pull: Array) -> tuple[Array, Array]:
    x, clip = saved
    ratio = working(x) / positive(clip)
    gradient = jnp.sum(working(pull) * (ratio >= 1).astype(jnp.float32))
    sign = jnp.where(clip < 0, -1.0, 1.0).astype(gradient.dtype)
    return pull * ((ratio > 0) & (ratio < 1)).astype(pull.dtype), (gradient * sign).astype(clip.dtype)


pact.defvjp(_forward, _backward)


@dataclass(frozen=True)
class LearnedClip:
    """PACT as a learned quantizer of activations.

    Args:
      bits: 1 to 8.

    Raises:
      ValueError: If `bits` is out of range.

    >>> quantizer = LearnedClip(2)
    >>> x = jnp.array([0.6, 3.0])
    >>> quantizer(x, quantizer.start(x))
    Array([1., 3.], dtype=float32)
    """

    bits: int

    def __post_init__(self) -> None:
        self.codes  # noqa: B018 (checks the bits)

    @property
    def codes(self) -> Codes:
        """The range of codes."""
        return Codes(self.bits, signed=False)

    def start(self, x: Float[Array, "..."]) -> Float[Array, ""]:
        """The first clip: the largest activation of a batch, 1 if none is positive."""
        top = jnp.max(x.astype(jnp.float32), initial=0.0)
        return jnp.where(top > 0, top, 1.0)

    def __call__(self, x: Float[Array, "..."], levels: Float[Array, ""]) -> Float[Array, "..."]:
        """`x` fake-quantized with the clip `levels`."""
        return pact(x, levels, self.bits)

    def integers(self, x: Float[Array, "..."], levels: Float[Array, ""]) -> Integers:
        """The integers behind `x` fake-quantized."""
        return to_integers(x, _step(levels, self.bits), self.codes)
