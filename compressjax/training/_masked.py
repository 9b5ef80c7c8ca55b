"""Training on a fixed support: a pruned weight is exactly 0.0 after every step.

Formula, with M the mask (Han et al., "Learning both Weights and Connections", NeurIPS 2015, arXiv 1506.02626)::

    g  <- M g                        moments of pruned weights never leave zero
    d  <- inner update
    d  <- d where M, else -w         so that w + d == 0.0, whatever momentum or weight decay wanted
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool

from compressjax import trees
from compressjax.training._common import hold, own_masks, require_params, silence


class MaskedState(NamedTuple):
    """State of `masked`.

    Attributes:
      masks: Leaf dictionary, True where the weight is kept, bool arrays of the leaves' shapes.
      inner: State of the inner optimizer.
    """

    masks: dict[str, Bool[Array, "..."]]
    inner: optax.OptState


def masked(
    inner: optax.GradientTransformation, masks: Mapping[str, Bool[Array, "..."]]
) -> optax.GradientTransformationExtraArgs:
    """Keeps pruned weights at exactly zero around any optimizer.

    It must be the outermost transform: what comes after it in a chain may undo the exact cancellation.  The inner
    optimizer sees gradients *and* parameters with zeros in the pruned places, so ``masked(admm(...), masks)`` projects
    within the mask.

    Args:
      inner: Any optimizer.
      masks: Leaf dictionary, True where the weight is kept; leaves it does not name are free.

    Returns:
      An optax transform whose `update` needs `params`; its state is a `MaskedState`.  A NaN or infinite gradient at a
      pruned weight is passed on to that weight as NaN instead of being hidden.

    Raises:
      ValueError: If a mask names no leaf or has another shape than its leaf, or `params` is missing.

    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> optimizer = masked(optax.sgd(0.5), {"w": jnp.array([True, False])})
    >>> updates, _ = optimizer.update({"w": jnp.ones(2)}, optimizer.init(params), params)
    >>> optax.apply_updates(params, updates)["w"]
    Array([0.5, 0. ], dtype=float32)
    """
    inner = optax.with_extra_args_support(inner)

    def init_fn(params: trees.Tree) -> MaskedState:
        own = own_masks("masked", masks, params)
        return MaskedState(own, inner.init(trees.map_leaves(_zeroed, params, own)))

    def update_fn(
        updates: optax.Updates, state: MaskedState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, MaskedState]:
        require_params(params, "masked")
        known = trees.leaves(params)
        gradients = trees.map_leaves(silence, updates, state.masks)
        inner_params = trees.map_leaves(_zeroed, params, state.masks)
        steps, inner_state = inner.update(gradients, state.inner, inner_params, **extra_args)
        silenced = trees.leaves(gradients)
        held = {path: (known[path], mask, silenced[path]) for path, mask in state.masks.items()}
        steps = trees.map_leaves(lambda d, h: hold(d, h[1], h[0], h[2]), steps, held)
        return steps, MaskedState(state.masks, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _zeroed(param: Array, mask: Bool[Array, "..."]) -> Array:
    """The weights with pruned ones set to zero."""
    return jnp.where(mask, param, jnp.zeros_like(param))
