r"""Geometric median: a filter that lies amid the others can be replaced by them.

    score_c = sum_{j} ||F_c - F_j||_2        F_c: all weights of member c, from all places

The filters nearest to the geometric median have the smallest score.  A small filter among large ones scores high if it
lies far from them, and of two equal large filters both score low: this is about redundancy, not size.

Source: He, Liu, Wang, Hu, Yang, "Filter Pruning via Geometric Median for Deep Convolutional Neural Networks
Acceleration", CVPR 2019 (arXiv 1811.00250).
"""

from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from compressjax.projections import GroupLike
from compressjax.projections._members import check_groups
from compressjax.trees import Tree, leaves


def geometric_median(params: Tree, groups: Iterable[GroupLike]) -> dict[str, Float[Array, " size"]]:
    """Sum of the distances of each member to all others.

    Time grows with the square of a group's size: distances are taken of differences, because those that matter are the
    small ones, which a Gram matrix would lose to rounding.

    Args:
      params: Parameters.
      groups: Coupled groups; ``producers(groups, params)`` gives the published form.

    Returns:
      Group name to (size,), float32 or wider.

    Raises:
      ValueError: If a group does not fit `params`, or its members hold different numbers of positions on one axis.

    >>> from types import SimpleNamespace as Plain
    >>> params = {"kernel": jnp.array([[0.0, 1.0, 5.0]])}
    >>> place = Plain(path="kernel", axis=1, index=np.arange(3))
    >>> geometric_median(params, [Plain(name="fc", size=3, members=[place])])
    {'fc': Array([6., 5., 9.], dtype=float32)}
    """
    return {name: _distances(rows) for name, rows in member_rows(params, groups).items()}


def member_rows(params: Tree, groups: Iterable[GroupLike]) -> dict[str, Float[Array, "size weights"]]:
    """All weights of each member as one row, for scores that compare members.

    Args:
      params: Parameters.
      groups: Coupled groups; ``producers(groups, params)`` gives the weights that make a channel.

    Returns:
      Group name to (size, weights of one member), float32 or wider.

    Raises:
      ValueError: As `geometric_median`.

    >>> from types import SimpleNamespace as Plain
    >>> place = Plain(path="kernel", axis=1, index=np.arange(2))
    >>> member_rows({"kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]])}, [Plain(name="fc", size=2, members=[place])])
    {'fc': Array([[1., 3.],
           [2., 4.]], dtype=float32)}
    """
    known = leaves(params)
    return {group.name: _rows(group, known) for group in check_groups(groups, known)}


def _rows(group: GroupLike, known: Mapping[str, Array]) -> Float[Array, "size weights"]:
    """The weights of each member as one row."""
    rows = []
    for member in group.members:
        counts = np.bincount(member.index[member.index >= 0], minlength=group.size)
        if np.any(counts != counts[0]):
            raise ValueError(
                f"Group {group.name!r}, {member.path} axis {member.axis}: members hold {counts.min()} to "
                f"{counts.max()} positions, so they cannot be compared: leave this place out."
            )
        # Positions ordered by member, and within a member as they come; those of no member (-1) are sorted first.
        order = np.argsort(member.index, kind="stable")[len(member.index) - counts.sum() :]
        leaf = known[member.path]
        wide = jnp.moveaxis(leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), member.axis, 0)
        rows.append(wide[order].reshape(group.size, -1))
    return jnp.concatenate(rows, axis=1)


@jax.jit
def _distances(rows: Float[Array, "size weights"]) -> Float[Array, " size"]:
    def total(row: Float[Array, " weights"]) -> Float[Array, ""]:
        return jnp.sum(jnp.sqrt(jnp.sum(jnp.square(rows - row[None]), axis=1)))

    return jax.lax.map(total, rows)
