r"""Gradual freezing: weights reach their quantization levels a share at a time, the closest first.

Reference: the retraining of Ren et al., "ADMM-NN", ASPLOS 2019 (arXiv 1812.11677); the same idea as Zhou et al.,
"Incremental Network Quantization", ICLR 2017 (arXiv 1702.03044).  With levels fitted once at the start, and shares
f_0 < f_1 < ... < f_s = 1 of the non-zero weights::

    stage j:   of the weights still free, freeze those closest to their level until a share f_j of all is frozen
               frozen weights sit on their level, zeros stay zero, free ones keep training and make up for it

A single snap of everything at once loses accuracy at two or three bits; this does not.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from compressjax import trees
from compressjax.masks import top_k_mask
from compressjax.quantizers import Quantizer
from compressjax.training._common import hold, landed, require_floating, require_params, require_steps, silence


class GradualFreezeState(NamedTuple):
    """State of `gradual_freeze`.

    Attributes:
      count: Steps taken, () int32.
      levels: Leaf dictionary of the non-zero level values, (levels,) in each leaf's dtype.
      frozen: Leaf dictionary, True where the weight is held (zeros included), bool arrays of the leaves' shapes.
      values: Leaf dictionary of what held weights are held at, shape and dtype of the leaves.
      inner: State of the inner optimizer.
    """

    count: Int[Array, ""]  # type: ignore[assignment] # shadows tuple.count, as optax states do
    levels: dict[str, Float[Array, "levels"]]
    frozen: dict[str, Bool[Array, "..."]]
    values: dict[str, Float[Array, "..."]]
    inner: optax.OptState


def gradual_freeze(
    inner: optax.GradientTransformation,
    rules: trees.Rules[Quantizer | None],
    *,
    fractions: Sequence[float] = (0.3, 0.6, 0.8, 0.9, 1.0),
    every: int,
) -> optax.GradientTransformationExtraArgs:
    """Snaps growing shares of the weights to their levels and holds them while the rest trains.

    It must be the outermost transform.  The levels are fitted by `init` on the parameters given there, and the first
    share is chosen there too; it lands on its levels with the first update.  Stage ``j`` starts with update number
    ``j * every``, so everything is on its level after ``(len(fractions) - 1) * every + 1`` updates.  That last update
    matters: a weight far from its level may miss it by a rounding error in the update that snaps it, since an update
    is a difference; the next one corrects that exactly.

    Args:
      inner: Any optimizer.
      rules: Glob to quantizer; leaves without one train freely.
      fractions: Growing shares of the non-zero weights, the last one 1.  Weights that freeze at a level 0, as of
        `Ternary`, count as zeros from then on, and later shares are of the rest.
      every: Steps between stages.

    Returns:
      An optax transform whose `update` needs `params`; its state is a `GradualFreezeState`.  `tied` trains the
      level values afterwards.

    Raises:
      ValueError: If the fractions do not grow to 1, a rule has no effect or is no quantizer, or `params` is missing.

    >>> from compressjax.quantizers import Binary
    >>> params = {"w": jnp.array([0.0, 0.75, 1.0, -1.25])}
    >>> optimizer = gradual_freeze(optax.sgd(0.0625), {"w": Binary()}, fractions=(0.4, 1.0), every=2)
    >>> state = optimizer.init(params)
    >>> for _ in range(3):
    ...     updates, state = optimizer.update({"w": jnp.ones(4)}, state, params)
    ...     params = optax.apply_updates(params, updates)
    ...     print(params["w"])
    [ 0.      0.6875  1.     -1.3125]
    [ 0.  1.  1. -1.]
    [ 0.  1.  1. -1.]
    """
    require_steps("gradual_freeze", every=every)
    shares = tuple(float(share) for share in fractions)
    if not shares or shares[-1] != 1.0 or shares[0] <= 0.0 or any(a >= b for a, b in pairwise(shares)):
        raise ValueError(f"gradual_freeze: fractions must be positive, grow and end with 1.0, not {shares}.")
    inner = optax.with_extra_args_support(inner)

    def advance(
        assigned: dict[str, Quantizer],
        weights: dict[str, Array],
        levels: dict[str, Array],
        frozen: dict[str, Array],
        values: dict[str, Array],
        share: Float[Array, ""],
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Freezes the closest free weights until `share` of the non-zeros is frozen."""
        new_frozen, new_values = {}, {}
        for path, quantizer in assigned.items():
            snapped = quantizer.snap(weights[path], levels[path])
            zeros = frozen[path] & (values[path] == 0)
            alive = weights[path].size - jnp.sum(zeros)
            # Rounding a share in float32 is not exact for large leaves; all of them is.
            number = jnp.sum(zeros) + jnp.where(share >= 1.0, alive, jnp.round(alive * share).astype(jnp.int32))
            closeness = -jnp.abs(weights[path].astype(jnp.float32) - snapped.astype(jnp.float32))
            chosen = top_k_mask(jnp.where(frozen[path], jnp.inf, closeness), number) | frozen[path]
            new_frozen[path] = chosen
            new_values[path] = jnp.where(chosen & ~frozen[path], snapped, values[path])
        return new_frozen, new_values

    def init_fn(params: trees.Tree) -> GradualFreezeState:
        assigned = trees.assign(rules, params)
        for path, quantizer in assigned.items():
            if not isinstance(quantizer, Quantizer):
                raise ValueError(f"gradual_freeze: the rule of {path!r} must be a quantizer, not {quantizer!r}.")
        known = trees.leaves(params)
        for path in assigned:
            require_floating("gradual_freeze", path, known[path])
        weights = {path: jnp.asarray(known[path]) for path in assigned}
        levels = {path: jnp.array(rule.fit(weights[path]), weights[path].dtype) for path, rule in assigned.items()}
        frozen = {path: weights[path] == 0 for path in assigned}
        values = {path: jnp.zeros_like(weights[path]) for path in assigned}
        frozen, values = advance(assigned, weights, levels, frozen, values, jnp.asarray(shares[0], jnp.float32))
        return GradualFreezeState(jnp.zeros((), jnp.int32), levels, frozen, values, inner.init(params))

    def update_fn(
        updates: optax.Updates, state: GradualFreezeState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, GradualFreezeState]:
        require_params(params, "gradual_freeze")
        assigned = trees.assign(rules, params)
        known = trees.leaves(params)
        free = {path: ~mask for path, mask in state.frozen.items()}
        gradients = trees.map_leaves(silence, updates, free)
        steps, inner_state = inner.update(gradients, state.inner, params, **extra_args)
        wanted = trees.leaves(steps)
        silenced = trees.leaves(gradients)
        count = optax.safe_increment(state.count)
        stage = count // every

        def next_stage() -> tuple[dict[str, Array], dict[str, Array]]:
            share = jnp.asarray(shares, jnp.float32)[jnp.minimum(stage, len(shares) - 1)]
            weights = {path: landed(known[path], wanted[path]) for path in assigned}
            return advance(assigned, weights, state.levels, state.frozen, state.values, share)

        due = (count % every == 0) & (stage < len(shares))
        frozen, values = jax.lax.cond(due, next_stage, lambda: (state.frozen, state.values))
        held = {path: (known[path], ~frozen[path], silenced[path], values[path]) for path in assigned}
        steps = trees.map_leaves(lambda d, h: hold(d, h[1], h[0], h[2], h[3]), steps, held)
        return steps, GradualFreezeState(count, state.levels, frozen, values, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
