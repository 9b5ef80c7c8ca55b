r"""Gradual magnitude pruning: the strong, simple control beside every other pruning method.

Reference: Zhu & Gupta, "To prune, or not to prune", 2017 (arXiv 1710.01878).  With N non-zero weights in a leaf at the
start, k of them to keep, d0 the initial density and progress p = (t - begin) / (end - begin) clipped to [0, 1]::

    count(t) = k + (d0 N - k) (1 - p)^3
    mask(t)  = the round(count(t)) largest |W| of the weights still alive

Zeros at the start are pruned already, so that a second stage ramps on from where the first one ended.  The mask is
recomputed every few steps between `begin` and `end`, and at `end`.  Pruned weights are exactly zero and stay so: they
are never the largest again, so there is no revival.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from compressjax import trees
from compressjax.masks import cubic, top_k_mask
from compressjax.projections import Cardinality, Joint
from compressjax.projections._select import budget
from compressjax.training._common import hold, landed, require_params, require_steps, silence


class GradualMagnitudeState(NamedTuple):
    """State of `gradual_magnitude`.

    Attributes:
      count: Steps taken, () int32.
      initial: Weights at the start of the ramp, () float32 per budget, by the path of its first leaf.
      masks: Leaf dictionary, True where the weight is alive, bool arrays of the leaves' shapes.
      inner: State of the inner optimizer.
    """

    count: Int[Array, ""]  # type: ignore[assignment] # shadows tuple.count, as optax states do
    initial: dict[str, Float[Array, ""]]
    masks: dict[str, Bool[Array, "..."]]
    inner: optax.OptState


def gradual_magnitude(
    inner: optax.GradientTransformation,
    rules: trees.Rules[Cardinality | Joint | None],
    *,
    begin: int,
    end: int,
    every: int,
    initial_density: float = 1.0,
) -> optax.GradientTransformationExtraArgs:
    """Prunes by magnitude along a cubic ramp while the inner optimizer trains.

    It must be the outermost transform.  After `end` it behaves like `masked`, so training may simply go on.  Weights
    that are zero when `init` sees them count as pruned: do not give it a leaf that is initialised with zeros.

    Args:
      inner: Any optimizer.
      rules: Glob to `Cardinality`: how many weights each leaf keeps in the end; leaves under one
        ``Joint(Cardinality(...))`` share a count.
      begin: Step count at which pruning starts, at least 0; the first mask comes with that step (0: with the first).
      end: Step count from which the leaves have exactly the requested counts, greater than `begin`.
      every: Steps between masks.
      initial_density: Share of the non-zero weights with which the ramp starts; below 1, the rest is cut at `begin`
        at once.

    Returns:
      An optax transform whose `update` needs `params`; its state is a `GradualMagnitudeState`.

    Raises:
      ValueError: If the steps are out of order, a rule has no effect, is no `Cardinality` or asks for more weights
        than the ramp starts from, or `params` is missing.

    >>> params = {"w": jnp.array([1.0, 2.0, 3.0, 4.0])}
    >>> optimizer = gradual_magnitude(optax.sgd(0.0), {"w": Cardinality(1)}, begin=0, end=2, every=1)
    >>> state = optimizer.init(params)
    >>> for _ in range(2):
    ...     updates, state = optimizer.update({"w": jnp.ones(4)}, state, params)
    ...     params = optax.apply_updates(params, updates)
    ...     print(params["w"])
    [0. 0. 0. 4.]
    [0. 0. 0. 4.]
    """
    require_steps("gradual_magnitude", every=every)
    if begin < 0 or end <= begin:
        raise ValueError(f"gradual_magnitude: needs 0 <= begin < end, not begin={begin} and end={end}.")
    if not 0.0 < initial_density <= 1.0:
        raise ValueError(f"gradual_magnitude: initial_density={initial_density} must lie in (0, 1].")
    inner = optax.with_extra_args_support(inner)

    def init_fn(params: trees.Tree) -> GradualMagnitudeState:
        known = trees.leaves(params)
        groups = _groups(rules, params)
        for group in groups:
            first = budget(float(initial_density), group.size, "weights")
            if group.final > first:
                raise ValueError(
                    f"gradual_magnitude: {', '.join(group.paths)} is to keep {group.final} weights but the ramp starts "
                    f"from {first}; raise initial_density or lower the count."
                )
        masks = {path: jnp.asarray(known[path]) != 0 for group in groups for path in group.paths}
        initial = {
            group.paths[0]: jnp.asarray(
                initial_density * sum(jnp.sum(masks[path]) for path in group.paths), jnp.float32
            )
            for group in groups
        }
        return GradualMagnitudeState(jnp.zeros((), jnp.int32), initial, masks, inner.init(params))

    def update_fn(
        updates: optax.Updates, state: GradualMagnitudeState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, GradualMagnitudeState]:
        require_params(params, "gradual_magnitude")
        known = trees.leaves(params)
        gradients = trees.map_leaves(silence, updates, state.masks)
        steps, inner_state = inner.update(gradients, state.inner, params, **extra_args)
        wanted = trees.leaves(steps)
        silenced = trees.leaves(gradients)
        count = optax.safe_increment(state.count)

        # There is no mask at step 0, so the one that belongs to it comes with the first step.
        late = begin == 0 and every > 1
        now = jnp.where(count == 1, begin, count) if late else count

        def recompute() -> dict[str, Bool[Array, "..."]]:
            out = {}
            for group in _groups(rules, params):
                ramp = cubic(now, begin, end, state.initial[group.paths[0]], float(group.final))
                # float32 does not hold every count of a large leaf; the end of the ramp is exact.
                number = jnp.where(count >= end, group.final, jnp.round(ramp).astype(jnp.int32))
                # Where few of the weights are non-zero, a share of them may be less than is to stay.
                number = jnp.maximum(number, group.final)
                # Dead weights rank below every live one, zeros included.
                ranks = [
                    jnp.where(state.masks[path], jnp.abs(landed(known[path], wanted[path])), -1.0).reshape(-1)
                    for path in group.paths
                ]
                flat = top_k_mask(jnp.concatenate(ranks), number)
                start = 0
                for path in group.paths:
                    alive = state.masks[path]
                    out[path] = flat[start : start + alive.size].reshape(alive.shape) & alive
                    start += alive.size
            return out

        due = (count >= begin) & (count <= end) & (((now - begin) % every == 0) | (count == end))
        masks = jax.lax.cond(due, recompute, lambda: state.masks)
        held = {path: (known[path], masks[path], silenced[path]) for path in masks}
        steps = trees.map_leaves(lambda d, h: hold(d, h[1], h[0], h[2]), steps, held)
        return steps, GradualMagnitudeState(count, state.initial, masks, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


class _Group(NamedTuple):
    """Leaves that share one count."""

    paths: tuple[str, ...]
    size: int
    final: int


def _groups(rules: trees.Rules[Cardinality | Joint | None], params: trees.Tree) -> list[_Group]:
    """The leaves under each budget, with their number of weights and how many of them stay."""
    known = trees.leaves(params)
    members: dict[Any, list[str]] = {}
    constraints: dict[Any, Any] = {}
    for path, rule in trees.assign(rules, params).items():
        key = id(rule) if isinstance(rule, Joint) else path
        members.setdefault(key, []).append(path)
        constraints[key] = rule.constraint if isinstance(rule, Joint) else rule
    out = []
    for key, paths in members.items():
        constraint = constraints[key]
        if not isinstance(constraint, Cardinality):
            raise ValueError(
                f"gradual_magnitude prunes single weights: the rule of {paths[0]!r} must be a Cardinality, "
                f"alone or joint, not {constraint!r}."
            )
        size = sum(jnp.size(known[path]) for path in paths)
        try:
            final = constraint.count((size,) if len(paths) > 1 else jnp.shape(known[paths[0]]))
        except ValueError as error:
            raise ValueError(f"{', '.join(paths)}: {error}") from error
        out.append(_Group(tuple(paths), size, final))
    return out
