"""Projection of whole parameter trees: rules, and budgets shared by several leaves.

`Joint` is the *global* form of a set: its leaves are flattened, concatenated in the tree's order, projected as one
vector and split again.  ``Joint(Cardinality(k))`` lets the layers compete for `k` weights (also called
the global cardinality projection).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from compressjax.projections._base import Constraint
from compressjax.trees import Rules, Tree, assign, leaves, update


@dataclass(frozen=True)
class Joint:
    """One constraint on the concatenation of all leaves its rule assigns.

    Leaves that carry the *same* `Joint` object share one budget; two equal objects written separately are two budgets.
    On a single array it acts on the flattened entries.

    Args:
      constraint: A set that takes vectors: `Cardinality`, a quantizer, or `Both` of such.

    >>> from compressjax.projections import Cardinality, project
    >>> tree = {"a": jnp.array([5.0, 1.0]), "b": jnp.array([4.0, 3.0])}
    >>> project({"*": Joint(Cardinality(2))}, tree)
    {'a': Array([5., 0.], dtype=float32), 'b': Array([4., 0.], dtype=float32)}
    """

    constraint: Constraint

    def __post_init__(self) -> None:
        if isinstance(self.constraint, Joint):
            raise ValueError("Joint of a Joint has no meaning: pass the inner constraint.")

    def project(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The inner projection of the flattened entries."""
        return self.constraint.project(x.reshape(-1)).reshape(x.shape)

    def contains(self, x: Float[Array, "..."]) -> Bool[Array, ""]:
        """Whether the flattened entries lie in the inner set."""
        return self.constraint.contains(x.reshape(-1))

    def support(self, x: Float[Array, "..."]) -> Bool[Array, "..."]:
        """The inner support of the flattened entries."""
        return self.constraint.support(x.reshape(-1)).reshape(x.shape)


def project(rules: Rules[Constraint | None], tree: Tree) -> Tree:
    """Projects every leaf that a rule assigns to a constraint; the other leaves pass through.

    Args:
      rules: Ordered mapping from glob pattern to constraint (see `compressjax.trees`); a leaf dictionary works too.
      tree: Parameters; the assigned leaves are floating-point arrays.

    Returns:
      A tree of the same structure, shapes and dtypes.

    Raises:
      ValueError: If a rule has no effect, or a constraint does not fit its leaf (the message names the path).

    >>> from compressjax.projections import Cardinality
    >>> project({"*kernel": Cardinality(1)}, {"kernel": jnp.array([1.0, 2.0]), "bias": jnp.array([3.0])})
    {'bias': Array([3.], dtype=float32), 'kernel': Array([0., 2.], dtype=float32)}
    """
    return update(tree, _each(lambda constraint, x: constraint.project(x), rules, tree))


def supports(rules: Rules[Constraint | None], tree: Tree) -> dict[str, Bool[Array, "..."]]:
    """The masks of the entries that `project` leaves free to be non-zero.

    Args:
      rules: As for `project`.
      tree: Parameters.

    Returns:
      Leaf dictionary of boolean masks, for the assigned leaves only.

    Raises:
      ValueError: As for `project`.

    >>> from compressjax.projections import Cardinality
    >>> supports({"*kernel": Cardinality(1)}, {"kernel": jnp.array([1.0, 2.0]), "bias": jnp.array([3.0])})
    {'kernel': Array([False,  True], dtype=bool)}
    """
    return _each(lambda constraint, x: constraint.support(x), rules, tree)


def _each(
    function: Callable[[Constraint, Array], Array], rules: Rules[Constraint | None], tree: Tree
) -> dict[str, Array]:
    """`function` on every assigned leaf, and on the concatenation of the leaves that share a `Joint` object."""
    known = leaves(tree)
    assigned = assign(rules, tree)
    out: dict[str, Array] = {}
    groups: dict[int, list[str]] = {}
    for path, constraint in assigned.items():
        if isinstance(constraint, Joint):
            groups.setdefault(id(constraint), []).append(path)
        else:
            out[path] = _named(function, constraint, _floating(known[path], path), path)
    for paths in groups.values():
        arrays = [_floating(known[path], path) for path in paths]
        joint = assigned[paths[0]]
        assert isinstance(joint, Joint)
        # Concatenation promotes mixed dtypes; the way back is exact because a sparse set only selects values.
        flat = jnp.concatenate([array.reshape(-1) for array in arrays])
        result = _named(function, joint.constraint, flat, ", ".join(paths))
        start = 0
        for path, array in zip(paths, arrays, strict=True):
            part = result[start : start + array.size].reshape(array.shape)
            out[path] = part if part.dtype == jnp.bool_ else part.astype(array.dtype)
            start += array.size
    return {path: out[path] for path in assigned}


def _floating(leaf: Any, path: str) -> Array:
    array = jnp.asarray(leaf)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{path}: only floating-point leaves can be projected, not {array.dtype}: exempt it.")
    return array


def _named(function: Callable[[Constraint, Array], Array], constraint: Constraint, x: Array, path: str) -> Array:
    try:
        return function(constraint, x)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
