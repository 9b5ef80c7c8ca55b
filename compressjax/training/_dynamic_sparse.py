r"""Dynamic sparse training: from first to last only a few weights live, and every so often some change places.

With M the mask of a leaf, n its number of living weights, and f(t) the share that moves at step t::

    every step          as in `masked`: g <- M g, then the inner optimizer's step, dead weights at exactly 0.0
    every few steps     f(t) = drop (1 + cos(pi t / end)) / 2
                        drop the floor(f(t) n) living weights of smallest |W|
                        grow as many of the others, those of the largest growth score, from 0.0

A weight that is dropped and grown at once keeps its value.  The number of living weights never changes.  After `end`
the mask stays.  `rigl` grows by the gradient, `set_` at random; static sparse training is `masked` with a random mask.

Source: Evci, Gale, Menick, Castro, Elsen, "Rigging the Lottery: Making All Tickets Winners", ICML 2020 (arXiv
1911.11134), algorithm 1.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from compressjax import trees
from compressjax.masks import apply, top_k_mask
from compressjax.training._common import hold, landed, own_masks, require_params, require_steps, silence
from compressjax.training._slots import reset_slots

Growth = Callable[[dict[str, Array], Int[Array, ""]], Mapping[str, Float[Array, "..."]]]


class DynamicSparseState(NamedTuple):
    """State of `dynamic_sparse`, `rigl` and `set_`.

    Attributes:
      count: Steps taken, () int32.
      masks: Leaf dictionary, True where the weight lives, bool arrays of the leaves' shapes.
      inner: State of the inner optimizer.
    """

    count: Int[Array, ""]  # type: ignore[assignment] # shadows tuple.count, as optax states do
    masks: dict[str, Bool[Array, "..."]]
    inner: optax.OptState


def dynamic_sparse(
    inner: optax.GradientTransformation,
    masks: Mapping[str, Bool[Array, "..."]],
    growth: Growth,
    *,
    every: int,
    end: int,
    drop: float = 0.3,
) -> optax.GradientTransformationExtraArgs:
    """Trains a sparse network that moves its smallest weights to where the growth rule wants them.

    It must be the outermost transform.  The gradients it is given are those of the dense leaves, which automatic
    differentiation returns anyway; the inner optimizer sees them masked.  Its slots of weights that come back start
    afresh (see `reset_slots`).

    Args:
      inner: Any optimizer.
      masks: Leaf dictionary of the first masks, as from `compressjax.masks.random`; leaves it does not name are dense.
      growth: From the dense gradients of the masked leaves and the step count to scores, larger meaning grown sooner.
      every: Steps between changes of the masks.
      end: Step count from which the masks stay; the source takes three quarters of the training.
      drop: Share of the living weights that moves at first; the share falls along half a cosine to 0 at `end`.

    Returns:
      An optax transform whose `update` needs `params`; its state is a `DynamicSparseState`.  A NaN or infinite gradient
      at a dead weight is passed on to that weight as NaN instead of being hidden.

    Raises:
      ValueError: If a step count or `drop` is out of range, a mask does not fit its leaf, or `params` is missing.

    >>> stay = lambda gradients, count: {path: jnp.arange(g.size, dtype=jnp.float32) for path, g in gradients.items()}
    >>> params = {"w": jnp.array([1.0, 2.0, 0.0, 0.0])}
    >>> alive = {"w": jnp.array([True, True, False, False])}
    >>> optimizer = dynamic_sparse(optax.sgd(0.1), alive, stay, every=1, end=100, drop=0.75)
    >>> _, state = optimizer.update({"w": jnp.zeros(4)}, optimizer.init(params), params)
    >>> state.masks["w"]
    Array([False,  True, False,  True], dtype=bool)
    """
    require_steps("dynamic_sparse", every=every, end=end)
    if not 0.0 < drop <= 1.0:
        raise ValueError(f"dynamic_sparse: drop={drop} must lie in (0, 1].")
    inner = optax.with_extra_args_support(inner)

    def init_fn(params: trees.Tree) -> DynamicSparseState:
        own = own_masks("dynamic_sparse", masks, params)
        return DynamicSparseState(jnp.zeros((), jnp.int32), own, inner.init(apply(params, own)))

    def update_fn(
        updates: optax.Updates, state: DynamicSparseState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, DynamicSparseState]:
        require_params(params, "dynamic_sparse")
        before, dense = trees.leaves(params), trees.leaves(updates)
        gradients = trees.map_leaves(silence, updates, state.masks)
        alive = apply(params, state.masks)
        steps, inner_state = inner.update(gradients, state.inner, alive, **extra_args)
        weights, wanted = trees.leaves(alive), trees.leaves(steps)
        count = optax.safe_increment(state.count)

        def rewire() -> tuple[dict[str, Bool[Array, "..."]], optax.OptState]:
            scores = growth({path: dense[path] for path in state.masks}, count)
            share = drop * (1.0 + jnp.cos(jnp.pi * count.astype(jnp.float32) / end)) / 2.0
            moved = {
                path: rewired(mask, landed(weights[path], wanted[path]), scores[path], share)
                for path, mask in state.masks.items()
            }
            revived = {path: mask & ~state.masks[path] for path, mask in moved.items()}
            return moved, reset_slots(inner_state, inner.init(alive), params, revived)

        due = (count % every == 0) & (count < end)
        after, inner_state = jax.lax.cond(due, rewire, lambda: (state.masks, inner_state))
        # What has just grown starts from zero and moves with the next step.
        silenced = trees.leaves(gradients)
        held = {path: (before[path], mask & after[path], silenced[path]) for path, mask in state.masks.items()}
        steps = trees.map_leaves(lambda d, h: hold(d, h[1], h[0], h[2]), steps, held)
        return steps, DynamicSparseState(count, after, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def rewired(
    mask: Bool[Array, "..."], weight: Float[Array, "..."], score: Float[Array, "..."], share: Float[Array, ""]
) -> Bool[Array, "..."]:
    """The mask after a share of the living weights has moved.

    Args:
      mask: True where a weight lives, (...).
      weight: The weights, (...); the living ones of smallest magnitude are dropped, ties from the highest index down.
      score: Growth scores, (...); the best of those not kept are grown, ties from the lowest index up.
      share: Of the living weights, in [0, 1].

    Returns:
      A mask with as many True, (...).
    """
    living = jnp.sum(mask, dtype=jnp.int32)
    moving = jnp.floor(share * living).astype(jnp.int32)
    kept = top_k_mask(jnp.where(mask, jnp.abs(weight), -1.0), living - moving)
    return kept | top_k_mask(jnp.where(kept, -jnp.inf, score), moving)
