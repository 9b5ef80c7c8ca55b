"""Entropy-penalized training: weights that cost many bits and gain little shrink towards zero.

    minimise  f(W) + lambda sum over leaves of R(W)

R is the smooth code length of `compressjax.quantizers.soft_code_length`: what the file's adaptive coder would spend on
positions and signs, with a soft count in place of "is it non-zero".  Its gradient pulls at small weights only; it is
strongest where non-zeros are rare (an empty row, a thin kernel), so that what remains lines up in rows and columns,
and units die.

Source: Oktay, Ballé, Singh, Shrivastava, "Scalable Model Compression by Entropy Penalized Reparameterization", ICLR
2020 (arXiv 1906.06624), for entropy as a loss; the model of the rate is this library's.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from compressjax import trees
from compressjax.quantizers import Coded, soft_code_length
from compressjax.training._common import Number, Schedule, require_floating, require_params


class RatePenaltyState(NamedTuple):
    """State of `rate_penalty`.

    Attributes:
      count: Steps taken, () int32.
      inner: State of the inner optimizer.
    """

    count: Int[Array, ""]  # type: ignore[assignment] # shadows tuple.count, as optax states do
    inner: optax.OptState


def rate_penalty(
    inner: optax.GradientTransformation, rules: trees.Rules[Coded | None], strength: Number | Schedule
) -> optax.GradientTransformationExtraArgs:
    """Adds the gradient of the code length to that of the loss.

    Args:
      inner: Any optimizer.  It sees the gradient with the penalty's added.
      rules: Glob to `Coded`, of which only `channels` plays a part: the penalty has no budget.
      strength: lambda, loss per bit: a number, or a schedule of the optimizer step count.

    Returns:
      An optax transform whose `update` needs `params`; its state is a `RatePenaltyState`.

    Raises:
      ValueError: If a rule has no effect or does not fit its leaf, `strength` is negative, or `params` is missing.

    >>> params = {"w": jnp.array([[2.0, 0.1], [2.0, 0.0]])}
    >>> optimizer = rate_penalty(optax.sgd(1.0), {"w": Coded(8.0)}, 0.1)
    >>> updates, _ = optimizer.update({"w": jnp.zeros((2, 2))}, optimizer.init(params), params)
    >>> bool(abs(updates["w"][0, 1]) > 4 * abs(updates["w"][0, 0])), float(abs(updates["w"][1, 1]))
    (True, 0.0)
    """
    if isinstance(strength, int | float) and not strength >= 0:
        raise ValueError(f"rate_penalty: strength={strength} must not be negative.")
    inner = optax.with_extra_args_support(inner)

    def lengths(leaves: dict[str, Array], assigned: dict[str, Coded]) -> Array:
        total = jnp.zeros((), jnp.float32)
        for path, rule in assigned.items():
            total += soft_code_length(leaves[path], channels=rule.channels)
        return total

    def init_fn(params: trees.Tree) -> RatePenaltyState:
        known = trees.leaves(params)
        assigned = trees.assign(rules, params)
        for path in assigned:
            require_floating("rate_penalty", path, known[path])
        jax.eval_shape(lambda: lengths({path: jnp.asarray(known[path]) for path in assigned}, assigned))
        return RatePenaltyState(jnp.zeros((), jnp.int32), inner.init(params))

    def update_fn(
        updates: optax.Updates, state: RatePenaltyState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, RatePenaltyState]:
        require_params(params, "rate_penalty")
        known = trees.leaves(params)
        assigned = trees.assign(rules, params)
        pulls = jax.grad(lengths)({path: known[path] for path in assigned}, assigned)
        now = jnp.asarray(strength(state.count) if callable(strength) else strength, jnp.float32)
        updates = trees.map_leaves(lambda g, p: g + (now * p).astype(g.dtype), updates, pulls)
        updates, inner_state = inner.update(updates, state.inner, params, **extra_args)
        return updates, RatePenaltyState(optax.safe_increment(state.count), inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
