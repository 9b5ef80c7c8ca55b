"""Straight-through training: the loss sees quantized weights, the gradient reaches the float ones unchanged.

Reference: Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons", 2013 (arXiv 1308.3432).
With Q the projection to the levels::

    loss'(W) = loss(Q(W)),        d loss' / dW := d loss / dQ  at  Q(W)
"""

from collections.abc import Callable
from typing import Any

from compressjax import trees
from compressjax.quantizers import Quantizer, fake_quantize


def straight_through(loss: Callable[..., Any], rules: trees.Rules[Quantizer | None]) -> Callable[..., Any]:
    """Wraps a loss so that it sees fake-quantized parameters.

    Args:
      loss: Any function of ``(params, *args, **kwargs)``.
      rules: Glob to quantizer; other leaves pass through.

    Returns:
      A function of the same signature.  Its levels follow the weights: they are fitted anew at each call.

    Raises:
      ValueError: At the call, if a rule has no effect on the parameters or does not fit its leaf.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from compressjax.quantizers import Binary
    >>> loss = straight_through(lambda p: jnp.sum(p["w"] ** 2), {"w": Binary()})
    >>> jax.value_and_grad(loss)({"w": jnp.array([0.5, -1.5])})
    (Array(2., dtype=float32), {'w': Array([ 2., -2.], dtype=float32)})
    """

    def wrapped(params: trees.Tree, *args: Any, **kwargs: Any) -> Any:
        return loss(trees.map_leaves(fake_quantize, params, trees.assign(rules, params)), *args, **kwargs)

    return wrapped
