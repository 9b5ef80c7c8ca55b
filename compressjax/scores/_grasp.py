r"""GraSP: keep the weights without which the gradient would shrink.

    score(w) = w (H g)_w        g: gradient, H: Hessian of the loss

To first order, removing w changes ||g||^2 by -2 w (H g)_w.  So a large score marks a weight that carries gradient flow,
a negative one a weight whose removal adds to it; the source ranks by the negative and removes the largest.

Source: Wang, Zhang, Grosse, "Picking Winning Tickets Before Training by Preserving Gradient Flow", ICLR 2020 (arXiv
2002.07376).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from compressjax.trees import Tree, leaves


def grasp(loss: Callable[..., Any], params: Tree, *batch: Any) -> dict[str, Float[Array, "..."]]:
    """Share of every weight in the gradient flow, signed.

    The Hessian is never formed: one forward derivative of the gradient in the direction of the gradient.

    Args:
      loss: Scalar function of ``(params, *batch)``, twice differentiable where it matters.  For a classifier at
        initialisation, divide the logits by a temperature (the source: 200), which keeps the softmax flat.
      params: Parameters, floating-point leaves.
      *batch: What else the loss takes.

    Returns:
      Leaf dictionary of scores, shapes and dtypes as the leaves.

    >>> grasp(lambda p: jnp.sum(p["w"] ** 2) / 2, {"w": jnp.array([1.0, -3.0])})
    {'w': Array([1., 9.], dtype=float32)}
    """
    params = jax.tree.map(jnp.asarray, params)
    slope = jax.grad(lambda p: loss(p, *batch))
    _, product = jax.jvp(slope, (params,), (slope(params),))
    known = leaves(params)
    return {path: known[path] * value for path, value in leaves(product).items()}
