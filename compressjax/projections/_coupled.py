"""Whole members of coupled groups: the same channels non-zero on every kernel that makes them.

`Filters` decides for one kernel.  Where several kernels make the same channels, as around a residual connection, each
would keep others, and none could be removed.  A coupled set keeps the members that have the most energy in all these
kernels together: the set of trees with at most `keep` members is a union of subspaces, and the nearest point keeps the
largest, as for every group-sparse set.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from compressjax import trees
from compressjax.projections._members import GroupLike, listed, producers
from compressjax.projections._select import budget, check_keep, scale_of, top_mask
from compressjax.projections._tree import Joint


@dataclass(frozen=True, eq=False, repr=False)
class Members:
    """Vectors in which at most `keep` members have a non-zero entry.

    Attributes:
      index: Member number of every entry, int (entries,); entries of no member (-1) are free.
      size: Number of members.
      keep: How many may stay: a count, or a share of `size`.

    >>> Members(np.array([0, 0, 1, 1, 2]), 3, 1).project(jnp.array([1.0, 1.0, 3.0, 0.0, 2.0]))
    Array([0., 0., 3., 0., 0.], dtype=float32)
    """

    index: Int[np.ndarray, " entries"]
    size: int
    keep: int | float

    def __post_init__(self) -> None:
        check_keep(self.keep)
        budget(self.keep, self.size, "members")
        if len(self.index) and not -1 <= np.min(self.index) <= np.max(self.index) < self.size:
            raise ValueError(f"The index must hold member numbers 0..{self.size - 1}, or -1 for none.")

    def __repr__(self) -> str:
        return f"Members(<{len(self.index)} entries>, {self.size}, {self.keep})"

    def support(self, x: Float[Array, " entries"]) -> Bool[Array, " entries"]:
        """All entries of the members with the most energy; ties go to the lower number."""
        wide = self._fitting(x).astype(jnp.promote_types(x.dtype, jnp.float32))
        energy = self._sum(jnp.square(wide / scale_of(wide)))
        # A tiny member must still win over an all-zero one, or a vector of the set would not project to itself.
        energy = jnp.where(self._sum((x != 0).astype(wide.dtype)) > 0, jnp.maximum(energy, _tiny(wide)), energy)
        return self._spread(top_mask(energy, budget(self.keep, self.size, "members")))

    def project(self, x: Float[Array, " entries"]) -> Float[Array, " entries"]:
        """`x` on its support, exact zero elsewhere; shape and dtype stay."""
        return jnp.where(self.support(x), x, jnp.zeros_like(x))

    def contains(self, x: Float[Array, " entries"]) -> Bool[Array, ""]:
        """Whether at most `keep` members have a non-zero entry."""
        alive = self._sum((self._fitting(x) != 0).astype(jnp.float32)) > 0
        return jnp.sum(alive, dtype=jnp.int32) <= budget(self.keep, self.size, "members")

    def _fitting(self, x: Array) -> Array:
        if x.shape != self.index.shape:
            raise ValueError(f"A vector of shape {x.shape} does not fit an index of {len(self.index)} entries.")
        return x

    def _sum(self, values: Array) -> Array:
        """Sums over each member; a last bin takes entries of none."""
        return jax.ops.segment_sum(values, self._bins(), self.size + 1)[: self.size]

    def _spread(self, chosen: Array) -> Array:
        return jnp.append(chosen, True)[self._bins()]

    def _bins(self) -> np.ndarray:
        return np.where(self.index < 0, self.size, self.index).astype(np.int32)


def _tiny(wide: Array) -> float:
    return float(jnp.finfo(wide.dtype).tiny)


def coupled(
    groups: Iterable[GroupLike],
    keep: Mapping[str, int | float],
    tree: trees.Tree,
    *,
    outputs: trees.Rules[int] | None = None,
) -> dict[str, Joint]:
    """Rules under which the kernels that make a group's members agree on which are non-zero.

    Args:
      groups: Coupled groups, as `compressjax.channels.trace` finds them.
      keep: Group name to how many of its members may stay, a count or a share; groups that it leaves out are free.
      tree: Parameters; only shapes are read.
      outputs: As for `producers`.

    Returns:
      Path of each producing kernel to its constraint, for `project`, `compressjax.training.admm` and the like.

    Raises:
      ValueError: If `keep` names an unknown group or asks for more than there is, nothing makes a group's members, or a
        kernel makes members of two groups in `keep`.

    >>> from compressjax import channels
    >>> from compressjax.projections import project
    >>> params = {"a": jnp.array([[3.0, 1.0]]), "b": jnp.array([[0.0, 2.0]]), "c": jnp.ones((2, 1))}
    >>> net = channels.trace(lambda p, x: (x @ p["a"] + x @ p["b"]) @ p["c"], params, jnp.ones((1, 1)))
    >>> {path: leaf.tolist() for path, leaf in project(coupled(net.groups, {"g0": 1}, params), params).items()}
    {'a': [[3.0, 0.0]], 'b': [[0.0, 0.0]], 'c': [[1.0], [1.0]]}
    """
    groups = listed(groups)
    names = [group.name for group in groups]
    for name in keep:
        if name not in names:
            raise ValueError(f"keep names {name!r}, which is none of the groups {', '.join(names)}.")
    shapes = trees.shapes(tree)
    rules: dict[str, Joint] = {}
    for group in producers([group for group in groups if group.name in keep], tree, outputs=outputs):
        places = {member.path: member for member in group.members}
        paths = [path for path in shapes if path in places]  # the order in which a joint constraint sees its leaves
        for path in paths:
            if path in rules or sum(member.path == path for member in group.members) > 1:
                raise ValueError(f"{path} makes members of two groups: leave group {group.name!r} out of keep.")
        index = [_entries(places[path].index, places[path].axis, shapes[path]) for path in paths]
        joint = Joint(Members(np.concatenate(index), group.size, keep[group.name]))
        rules |= dict.fromkeys(paths, joint)
    return rules


def _entries(index: np.ndarray, axis: int, shape: tuple[int, ...]) -> np.ndarray:
    """The member of every entry of a leaf, flattened."""
    along = np.asarray(index).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return np.broadcast_to(along, shape).reshape(-1)
