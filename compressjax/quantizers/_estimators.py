"""Gradient estimators: training through a projection that has no useful derivative.

    straight-through:  forward  y = project(x),   backward  dy/dx := identity

Source: Bengio, Leonard, Courville, "Estimating or Propagating Gradients Through Stochastic Neurons for Conditional
Computation", 2013 (arXiv 1308.3432).
"""

from typing import Any, Protocol, runtime_checkable

from jax import lax
from jaxtyping import Array, Float

from compressjax.projections import Constraint


@runtime_checkable
class Learnable(Protocol):
    """A quantizer that is called with what is trained beside the tensor: a step, a clip, levels, or None."""

    def start(self, x: Float[Array, "..."]) -> Float[Array, "..."] | None:
        """What is trained, at the start; None if nothing is."""
        ...  # pragma: no cover

    def __call__(self, x: Float[Array, "..."], levels: Any) -> Float[Array, "..."]:
        """`x` fake-quantized, differentiable in both."""
        ...  # pragma: no cover


def fake_quantize(x: Float[Array, "..."], quantizer: Constraint) -> Float[Array, "..."]:
    """``quantizer.project(x)`` with the gradient of the identity.

    Args:
      x: Weights.
      quantizer: A quantizer, or any constraint.

    Returns:
      The projection, bit for bit; shape and dtype of `x`.

    >>> import jax, jax.numpy as jnp
    >>> from compressjax.quantizers import Binary
    >>> x = jnp.array([1.0, -3.0])
    >>> fake_quantize(x, Binary()), jax.grad(lambda x: fake_quantize(x, Binary())[0])(x)
    (Array([ 2., -2.], dtype=float32), Array([1., 0.], dtype=float32))
    """
    # In this order the added difference is exactly zero; x + stop(project(x) - x) would round.
    return lax.stop_gradient(quantizer.project(x)) + (x - lax.stop_gradient(x))
