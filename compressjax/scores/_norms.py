"""Norms: a channel matters as much as its weights are large.

    l1_c = sum_{w in c} |w|        l2_c = sqrt(sum_{w in c} w^2)

The sums run over all places of the group that they are given: ``producers(groups, params)`` gives the published form,
which looks at a filter's own weights.

Source: Li, Kadav, Durdanovic, Samet, Graf, "Pruning Filters for Efficient ConvNets", ICLR 2017 (arXiv 1608.08710).
"""

from collections.abc import Iterable

import jax.numpy as jnp
from jaxtyping import Array, Float

from compressjax.projections import GroupLike
from compressjax.projections._members import check_groups, member_sums
from compressjax.trees import Tree, leaves


def l1(params: Tree, groups: Iterable[GroupLike]) -> dict[str, Float[Array, " size"]]:
    """Sum of magnitudes of each member.

    Args:
      params: Parameters.
      groups: Coupled groups; all their places count.

    Returns:
      Group name to (size,), float32 or wider.

    Raises:
      ValueError: If a group does not fit `params`.

    >>> from compressjax.projections import whole
    >>> params = {"a": jnp.array([3.0, -4.0])}
    >>> l1(params, [whole("layer", params, "a")])
    {'layer': Array([7.], dtype=float32)}
    """
    known = leaves(params)
    return {group.name: member_sums(jnp.abs, group, known) for group in check_groups(groups, known)}


def l2(params: Tree, groups: Iterable[GroupLike]) -> dict[str, Float[Array, " size"]]:
    """Euclidean norm of each member; arguments, result and errors as for `l1`.

    >>> from compressjax.projections import whole
    >>> params = {"a": jnp.array([3.0, -4.0])}
    >>> l2(params, [whole("layer", params, "a")])
    {'layer': Array([5.], dtype=float32)}
    """
    known = leaves(params)
    return {group.name: jnp.sqrt(member_sums(jnp.square, group, known)) for group in check_groups(groups, known)}
