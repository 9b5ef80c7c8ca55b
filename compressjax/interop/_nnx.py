"""NNX states to plain nested dictionaries and back.

Nothing here is needed to prune or quantize an NNX model: rules and transforms work on an `nnx.State` as it is.  What
wants a plain dictionary is storage, and code that changes shapes.
"""

from typing import Any

from flax import nnx

from compressjax import trees

# `nnx.State`; its own generic parameters are of a deprecated kind that run-time type checkers refuse.
State = Any


def from_nnx(state: State) -> dict[str, Any]:
    """The arrays of an NNX state as a plain nested dictionary.

    Args:
      state: From ``nnx.split(module)`` or ``nnx.state(module, nnx.Param)``.

    Returns:
      Nested dictionary with the same paths; list items have integer keys.

    >>> linear = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    >>> sorted(from_nnx(nnx.state(linear)))
    ['bias', 'kernel']
    """
    return nnx.to_pure_dict(state)


def to_nnx(state: State, tree: Any) -> State:
    """A copy of an NNX state with the arrays of `tree`; `state` itself stays as it is.

    Args:
      state: The state whose variables, with their metadata, are to be filled.
      tree: Any tree with exactly the same paths.  Shapes may differ: NNX runs a layer with narrower arrays, although
        its ``out_features`` then still names the old width.

    Returns:
      The new state, for ``nnx.merge`` or ``nnx.update``.

    Raises:
      ValueError: If a path of `tree` is unknown or one of `state` is missing.

    >>> import jax
    >>> state = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    >>> zeros = jax.tree.map(lambda w: 0 * w, from_nnx(state))
    >>> float(from_nnx(to_nnx(state, zeros))["kernel"].sum())
    0.0
    """
    values = trees.leaves(tree)
    missing = [path for path in trees.leaves(state) if path not in values]
    if missing:
        raise ValueError(
            f"The tree has no leaf {missing[0]!r}, which the NNX state needs. Leaves: {', '.join(values)}."
        )
    return trees.update(state, values)
