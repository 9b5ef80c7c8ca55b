r"""SNIP: a weight matters as much as the loss would feel its removal, to first order.

    score(w) = |w dL/dw|

It is the magnitude of dL/dc for a gate c = 1 on the weight, and is meant for one batch at initialisation: keep the best
scores of all layers together, then train what is left.

Source: Lee, Ajanthan, Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity", ICLR 2019 (arXiv
1810.02340).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from compressjax.trees import Tree, leaves


def snip(loss: Callable[..., Any], params: Tree, *batch: Any) -> dict[str, Float[Array, "..."]]:
    """Connection sensitivity of every weight.

    Args:
      loss: Scalar function of ``(params, *batch)``.
      params: Parameters, floating-point leaves.
      *batch: What else the loss takes.

    Returns:
      Leaf dictionary of scores, shapes and dtypes as the leaves.

    >>> snip(lambda p, x: jnp.sum(p["w"] * x), {"w": jnp.array([1.0, -3.0])}, jnp.array([4.0, 2.0]))
    {'w': Array([4., 6.], dtype=float32)}
    """
    known = leaves(params)
    return {path: jnp.abs(known[path] * slope) for path, slope in leaves(jax.grad(loss)(params, *batch)).items()}
