r"""AC/DC: alternating compressed and decompressed training, a dense and a sparse network in one run.

    boundaries b_1 < b_2 < ... < b_m    dense until b_1, compressed until b_2, dense until b_3, ..., compressed from b_m
    compressed begins                   M <- support of project(W),  W <- M * W;  then as in `masked`
    dense begins                        M <- 1: pruned weights start from 0.0, with fresh optimizer slots

It is projected gradient descent (iterative hard thresholding) with many steps between projections: a weight that the
last mask left out may prove itself in the next dense phase.

Source: Peste, Iofinova, Vladu, Alistarh, "AC/DC: Alternating Compressed/DeCompressed Training of Deep Neural Networks",
NeurIPS 2021 (arXiv 2106.12379).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int

from compressjax import trees
from compressjax.projections import Constraint, supports
from compressjax.training._common import hold, landed, require_params, silence
from compressjax.training._slots import reset_slots


class AcdcState(NamedTuple):
    """State of `acdc`.

    Attributes:
      count: Steps taken, () int32.
      masks: Leaf dictionary, True where the weight lives (in dense phases everywhere), bool arrays of the leaves'
        shapes.
      inner: State of the inner optimizer.
    """

    count: Int[Array, ""]  # type: ignore[assignment] # shadows tuple.count, as optax states do
    masks: dict[str, Bool[Array, "..."]]
    inner: optax.OptState


def acdc(
    inner: optax.GradientTransformation, rules: trees.Rules[Constraint | None], *, boundaries: Sequence[int]
) -> optax.GradientTransformationExtraArgs:
    """Alternates between dense and masked training, and ends masked.

    It must be the outermost transform.  The best dense network is the one just before the last boundary.

    Args:
      inner: Any optimizer.
      rules: Glob to constraint; its support is the mask.  `Cardinality`, `NM`, `Block` and others will do, and leaves
        under one `Joint` share a budget.
      boundaries: Growing step counts at which the phase changes, an odd number of them: ``range(500, 3501, 500)``.

    Returns:
      An optax transform whose `update` needs `params`; its state is an `AcdcState`.

    Raises:
      ValueError: If the boundaries are not positive, do not grow or are even in number, a rule has no effect or does
        not fit its leaf, or `params` is missing.

    >>> from compressjax.projections import Cardinality
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> optimizer = acdc(optax.sgd(1.0), {"w": Cardinality(1)}, boundaries=(1, 3, 4))
    >>> state = optimizer.init(params)
    >>> for _ in range(5):
    ...     updates, state = optimizer.update({"w": jnp.array([-3.0, 0.0])}, state, params)
    ...     params = optax.apply_updates(params, updates)
    ...     print(params["w"], state.masks["w"])
    [4. 0.] [ True False]
    [7. 0.] [ True False]
    [10.  0.] [ True  True]
    [13.  0.] [ True False]
    [16.  0.] [ True False]
    """
    edges = tuple(int(edge) for edge in boundaries)
    if len(edges) % 2 == 0 or edges[0] < 1 or any(a >= b for a, b in pairwise(edges)):
        raise ValueError(
            f"acdc: boundaries={edges} must be positive, grow, and be odd in number: they begin with the start of a "
            "compressed phase and end with another."
        )
    inner = optax.with_extra_args_support(inner)

    def init_fn(params: trees.Tree) -> AcdcState:
        shapes = jax.eval_shape(lambda p: supports(rules, p), params)
        masks = {path: jnp.ones(found.shape, bool) for path, found in shapes.items()}
        return AcdcState(jnp.zeros((), jnp.int32), masks, inner.init(params))

    def update_fn(
        updates: optax.Updates, state: AcdcState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, AcdcState]:
        require_params(params, "acdc")
        gradients = trees.map_leaves(silence, updates, state.masks)
        steps, inner_state = inner.update(gradients, state.inner, params, **extra_args)
        count = optax.safe_increment(state.count)

        def carry_on() -> tuple[dict[str, Bool[Array, "..."]], optax.OptState]:
            return state.masks, inner_state

        def compress() -> tuple[dict[str, Bool[Array, "..."]], optax.OptState]:
            return supports(rules, jax.tree.map(landed, params, steps)), inner_state

        def decompress() -> tuple[dict[str, Bool[Array, "..."]], optax.OptState]:
            revived = {path: ~mask for path, mask in state.masks.items()}
            free = {path: jnp.ones_like(mask) for path, mask in state.masks.items()}
            return free, reset_slots(inner_state, inner.init(params), params, revived)

        reached = jnp.sum(jnp.asarray(edges, jnp.int32) <= count, dtype=jnp.int32)
        changing = jnp.any(jnp.asarray(edges, jnp.int32) == count)
        phase = jnp.where(changing, 2 - reached % 2, 0)
        after, inner_state = jax.lax.switch(phase, (carry_on, compress, decompress))
        # What comes back with this step starts from zero and moves with the next one.
        before, silenced = trees.leaves(params), trees.leaves(gradients)
        held = {path: (before[path], mask & after[path], silenced[path]) for path, mask in state.masks.items()}
        steps = trees.map_leaves(lambda d, h: hold(d, h[1], h[0], h[2]), steps, held)
        return steps, AcdcState(count, after, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
