r"""Sharpness-aware gradients: the gradient is taken where the loss is highest nearby, which leads to flat minima.

    g0  =  grad f(W)
    g   =  grad f(W + radius g0 / ||g0||)        ||.|| over all leaves together

Around `admm` it gives SAFE, minima that are flat and sparse at once: a flat one loses less when its weights are
projected.  Two gradients per step.

Sources: Foret, Kleiner, Mobahi, Neyshabur, "Sharpness-Aware Minimization for Efficiently Improving Generalization",
ICLR 2021 (arXiv 2010.01412); Lee, Lee, Chung, Lee, "SAFE: Finding Sparse and Flat Minima to Improve Pruning", ICML 2025
(arXiv 2506.06866).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from compressjax import trees


def sharpness_aware(
    loss: Callable[..., Any], radius: float = 0.1, *, has_aux: bool = False
) -> Callable[..., tuple[Any, trees.Tree]]:
    """`jax.value_and_grad` of a loss, with the gradient from the worst point nearby.

    The wrapped loss sees parameters off the given ones: where pruned weights must stay zero for the gradient too, give
    a loss that applies the masks.

    Args:
      loss: Any function of ``(params, *args, **kwargs)`` with a scalar result, or (scalar, auxiliary) with `has_aux`.
      radius: Length of the step uphill, at least 0; 0 gives the plain gradient.  0.1 in SAFE, 0.05 in the first paper.
      has_aux: As in `jax.value_and_grad`.

    Returns:
      A function of the same arguments.  Its value (and auxiliary output) is that at the parameters themselves, its
      gradient has their structure, shapes and dtypes.

    Raises:
      ValueError: If `radius` is negative.

    >>> gradient = sharpness_aware(lambda p: jnp.sum(p["w"] ** 2), radius=0.5)
    >>> gradient({"w": jnp.array([3.0, 4.0])})
    (Array(25., dtype=float32), {'w': Array([6.6, 8.8], dtype=float32)})
    """
    if not radius >= 0.0:
        raise ValueError(f"sharpness_aware: radius={radius} must not be negative.")
    plain = jax.value_and_grad(loss, has_aux=has_aux)

    def value_and_gradient(params: trees.Tree, *args: Any, **kwargs: Any) -> tuple[Any, trees.Tree]:
        value, gradient = plain(params, *args, **kwargs)
        norm = _norm(gradient)
        step = radius / jnp.where(norm == 0.0, 1.0, norm)
        uphill = jax.tree.map(lambda w, g: (w + step * g.astype(jnp.float32)).astype(w.dtype), params, gradient)
        return value, plain(uphill, *args, **kwargs)[1]

    return value_and_gradient


def _norm(tree: trees.Tree) -> Float[Array, ""]:
    """Euclidean norm over all leaves, accumulated in float32 also for narrow dtypes."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)))
