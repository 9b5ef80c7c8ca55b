"""Slots: what an optimizer remembers about single weights, found by structure and started afresh.

A weight that comes back after it was pruned must not meet the momentum it had when it was removed.  A sub-tree of an
optimizer's state holds slots if it is built like the parameters, with `optax.MaskedNode` allowed in place of leaves or
whole branches; a leaf of it is a slot if its shape is the parameter's, or ends with it (L-BFGS keeps several steps).
That finds moments, accumulated gradients and averaged weights in any state, however wrapped, without knowing its class.

What many weights share has no entry to reset and stays: step counts, Adafactor's rows and columns, norms per layer.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool

from compressjax import trees


def reset_slots(
    state: optax.OptState, fresh: optax.OptState, params: trees.Tree, entries: Mapping[str, Bool[Array, "..."]]
) -> optax.OptState:
    """The state with the slots of some weights as in a fresh state.

    Args:
      state: State of any optax optimizer.
      fresh: What its `init` returns for the present parameters.
      params: Parameters, those of `init`; only structure and shapes are read.
      entries: Leaf dictionary, True where the slots are to be reset; leaves it does not name keep theirs.

    Returns:
      A state of the same structure, shapes and dtypes.

    Raises:
      ValueError: If `entries` names no leaf or does not fit its leaf.

    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> optimizer = optax.sgd(0.1, momentum=0.9)
    >>> _, state = optimizer.update({"w": jnp.array([3.0, 4.0])}, optimizer.init(params))
    >>> reset_slots(state, optimizer.init(params), params, {"w": jnp.array([False, True])})[0].trace
    {'w': Array([3., 0.], dtype=float32)}
    """
    shapes = trees.shapes(params)
    for path, where in entries.items():
        if jnp.shape(where) != shapes.get(path):
            found = f"the leaf has {shapes[path]}" if path in shapes else "there is no such leaf"
            raise ValueError(f"reset_slots: the entries of {path!r} have shape {jnp.shape(where)}; {found}.")
    structure: Any = jax.tree.structure(params)
    flags = jax.tree.unflatten(structure, [entries.get(path) for path in shapes])

    def holds_slots(node: Any) -> bool:
        try:
            whole = jax.tree.map(lambda own, theirs: theirs if _is_hole(own) else own, node, params, is_leaf=_is_hole)
        except (TypeError, ValueError):  # built in another way
            return False
        return bool(structure == jax.tree.structure(whole))

    def reset(node: Any, new: Any) -> Any:
        return jax.tree.map(_reset, node, new, params, flags, is_leaf=_is_hole) if holds_slots(node) else node

    return jax.tree.map(reset, state, fresh, is_leaf=holds_slots)


def _is_hole(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)


def _reset(slot: Any, new: Any, param: Any, where: Bool[Array, "..."] | None) -> Any:
    """The slot of one leaf, as `new` where asked for; holes, and statistics of another shape, as they are."""
    if _is_hole(slot) or where is None:
        return slot
    more = jnp.ndim(slot) - jnp.ndim(param)
    if more < 0 or jnp.shape(slot)[more:] != jnp.shape(param):
        return slot
    return jnp.where(where.reshape((1,) * more + where.shape), jnp.asarray(new, jnp.asarray(slot).dtype), slot)
