"""Latent training: the optimizer moves float weights, the network always has their projection.

Reference: Courbariaux, Bengio, David, "BinaryConnect", NeurIPS 2015 (arXiv 1511.00363); the pull is that of Zhou et
al., "Learning N:M Fine-grained Structured Sparse Neural Networks From Scratch", ICLR 2021 (arXiv 2102.04010), taken to
quantized weights too.  With V the latent weights, P the projection to the set and a small pull a::

    W = P(V),        V <- V + step(grad f(W)) - a (V - W),        W <- P(V)

This is straight-through training (`straight_through`) as a transform: the gradient at the projected weights reaches the
latent ones unchanged.  The loss function needs no wrapping, what is evaluated and saved is in the set at all times, and
entries that the projection prunes keep a latent value by which they may come back.  The pull keeps latent weights from
running away: beyond the largest level they gain nothing, but would drag a fitted scale along.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from compressjax import trees
from compressjax.projections import Constraint, project
from compressjax.training._common import landed, require_params


class LatentState(NamedTuple):
    """State of `latent`.

    Attributes:
      latents: Leaf dictionary of the latent weights of constrained leaves, shape and dtype of the leaves.
      inner: State of the inner optimizer, on the latent weights.
    """

    latents: dict[str, Float[Array, "..."]]
    inner: optax.OptState


def latent(
    inner: optax.GradientTransformation, rules: trees.Rules[Constraint | None], *, pull: float = 0.0
) -> optax.GradientTransformationExtraArgs:
    """Keeps constrained leaves in their sets at every step, with latent weights behind them.

    It must be the outermost transform, but for `masked`.  The first update moves the parameters into the sets; from
    then on they are members up to one rounding, since an update is a difference.

    Args:
      inner: Any optimizer; it sees latent weights as parameters.
      rules: Glob to constraint: a sparse set, a quantizer, or both.
      pull: a, the share of its distance from the set that a latent weight loses in each step, 0 to 1: 0 is the plain
        straight-through method, 1 gradient descent projected at every step.

    Returns:
      An optax transform whose `update` needs `params`; its state is a `LatentState`.

    Raises:
      ValueError: If a rule has no effect or does not fit its leaf, `pull` is no share, or `params` is missing.

    >>> from compressjax.quantizers import Levels
    >>> params = {"w": jnp.array([0.75, -1.25])}
    >>> optimizer = latent(optax.sgd(1.0), {"w": Levels(1, scale=1.0)})
    >>> state = optimizer.init(params)
    >>> for gradient in (0.5, 0.5):
    ...     updates, state = optimizer.update({"w": jnp.array([gradient, 0.0])}, state, params)
    ...     params = optax.apply_updates(params, updates)
    ...     print(params["w"], state.latents["w"])
    [ 1. -1.] [ 0.25 -1.25]
    [-1. -1.] [-0.25 -1.25]
    """
    if not 0 <= pull <= 1:
        raise ValueError(f"latent: pull={pull} must lie between 0 and 1.")
    inner = optax.with_extra_args_support(inner)

    def init_fn(params: trees.Tree) -> LatentState:
        known = trees.leaves(params)
        assigned = trees.assign(rules, params)
        project(rules, params)  # what does not fit is refused here
        # Copies: a buffer shared with the parameters could not be donated together with them.
        latents = {path: jnp.array(known[path]) for path in assigned}
        return LatentState(latents, inner.init(trees.update(params, latents)))

    def update_fn(
        updates: optax.Updates, state: LatentState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, LatentState]:
        require_params(params, "latent")
        behind = trees.update(params, state.latents)
        updates, inner_state = inner.update(updates, state.inner, behind, **extra_args)
        steps, known = trees.leaves(updates), trees.leaves(params)
        latents = {path: landed(value, steps[path]) for path, value in state.latents.items()}
        if pull:
            now = {path: pull * (known[path] - value) for path, value in state.latents.items()}
            latents = {path: landed(value, now[path]) for path, value in latents.items()}
        projected = trees.leaves(project(rules, trees.update(params, latents)))
        moved = {path: projected[path] - known[path] for path in latents}
        return trees.update(updates, moved), LatentState(latents, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
