r"""STR: soft threshold reparametrization; every layer learns its own threshold, and so its own sparsity.

    W_effective = sign(W) max(0, |W| - sigmoid(s)),      W and s both trained, both with weight decay

s starts far below zero, where the threshold is nearly 0 and the network dense.  Weight decay draws s towards 0, that is
the threshold towards 1/2, and W towards the threshold; the loss holds against both where weights matter.  So the
strength of the decay and the first s decide the overall sparsity, and how it spreads over the layers is learned.

A weight below its threshold has no gradient: it comes back only if the threshold falls below it.

Source: Kusupati et al., "Soft Threshold Weight Reparameterization for Learnable Sparsity", ICML 2020 (arXiv
2002.03231).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from compressjax import trees


class SoftThreshold(NamedTuple):
    """Parameters to train in place of the weights: a tree for any optimizer.

    Attributes:
      weights: Tree of the network's parameters, before thresholding.
      thresholds: s of each thresholded leaf, () float32, by path.
    """

    weights: trees.Tree
    thresholds: dict[str, Float[Array, ""]]


def soft_threshold(params: trees.Tree, rules: trees.Rules[float | None]) -> SoftThreshold:
    """Adds a trainable threshold to every leaf that a rule names.

    Args:
      params: Parameters.
      rules: Glob to the first s of each leaf: -5.0 begins with a threshold of 0.007.

    Returns:
      Parameters to train; the loss is to see `thresholded` of them.

    Raises:
      ValueError: If a rule has no effect, or a leaf holds no floating-point numbers.

    >>> soft_threshold({"kernel": jnp.ones(2), "bias": jnp.ones(2)}, {"kernel": -5.0}).thresholds
    {'kernel': Array(-5., dtype=float32)}
    """
    known = trees.leaves(params)
    assigned = trees.assign(rules, params)
    for path in assigned:
        kind = jnp.asarray(known[path]).dtype
        if not jnp.issubdtype(kind, jnp.floating):
            raise ValueError(f"soft_threshold: {path!r} holds {kind}, no floating-point numbers: exempt it.")
    return SoftThreshold(params, {path: jnp.asarray(first, jnp.float32) for path, first in assigned.items()})


def thresholded(trained: SoftThreshold) -> trees.Tree:
    """The weights that the network computes with, zeros exactly 0.0.

    Args:
      trained: From `soft_threshold`, or what an optimizer made of it.

    Returns:
      A tree like the network's parameters, in their dtypes.

    >>> trained = SoftThreshold({"w": jnp.array([2.0, -0.25, -1.5])}, {"w": jnp.array(0.0)})
    >>> thresholded(trained)
    {'w': Array([ 1.5,  0. , -1. ], dtype=float32)}
    """

    def shrink(weight: Float[Array, "..."], s: Float[Array, ""]) -> Float[Array, "..."]:
        threshold = jax.nn.sigmoid(s).astype(weight.dtype)
        return jnp.where(jnp.abs(weight) > threshold, weight - jnp.sign(weight) * threshold, jnp.zeros_like(weight))

    return trees.map_leaves(shrink, trained.weights, trained.thresholds)
