r"""First-order Taylor: how much the loss would change if a channel's weights were zero.

    score_c = mean over batches of (sum_{w in c} w dL/dw)^2

The square is taken per batch, of the sum over the channel: gradients averaged over batches first would vanish at a
minimum.  In a ReLU network the sum over what produces a channel, bias included, equals the sum over what reads it.

Source: Molchanov, Mallya, Tyree, Frosio, Kautz, "Importance Estimation for Neural Network Pruning", CVPR 2019
(arXiv 1906.10771), equation 8.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from compressjax.projections import GroupLike
from compressjax.projections._members import check_groups, listed, member_sums
from compressjax.trees import Tree, leaves


class TaylorSums(NamedTuple):
    """What `taylor_add` has seen so far.

    Attributes:
      total: Sum of the squares over batches, (size,) float32 per group.
      batches: Number of batches, () int32.
    """

    total: dict[str, Float[Array, " size"]]
    batches: Int[Array, ""]


def taylor_start(groups: Iterable[GroupLike]) -> TaylorSums:
    """Nothing seen yet.

    Args:
      groups: Coupled groups.

    Returns:
      Sums to pass to `taylor_add`.

    Raises:
      ValueError: If `groups` is no sequence of groups.

    >>> from types import SimpleNamespace as Plain
    >>> taylor_start([Plain(name="fc", size=2, members=[])]).total
    {'fc': Array([0., 0.], dtype=float32)}
    """
    return TaylorSums({group.name: jnp.zeros(group.size) for group in listed(groups)}, jnp.zeros((), jnp.int32))


def taylor_add(sums: TaylorSums, params: Tree, gradients: Tree, groups: Iterable[GroupLike]) -> TaylorSums:
    """Adds one batch; pure, so that it may run inside the jitted function that computes the gradients.

    Args:
      sums: From `taylor_start` or the batch before.
      params: Parameters.
      gradients: Gradient of the batch's mean loss, a tree like `params`.
      groups: Coupled groups, those of `taylor_start`.

    Returns:
      New sums.

    Raises:
      ValueError: If a group does not fit `params`, or `gradients` lacks one of its leaves.

    >>> from compressjax.projections import whole
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> groups = [whole("layer", params, "w")]
    >>> taylor_add(taylor_start(groups), params, {"w": jnp.array([0.5, -1.0])}, groups).total
    {'layer': Array([2.25], dtype=float32)}
    """
    known, slopes = leaves(params), leaves(gradients)
    groups = check_groups(groups, known)
    for path in (member.path for group in groups for member in group.members):
        if path not in slopes or np.shape(slopes[path]) != np.shape(known[path]):
            found = f"the shape {np.shape(slopes[path])}" if path in slopes else "nothing"
            raise ValueError(
                f"The gradients have {found} at {path!r}, where the parameters have the shape {np.shape(known[path])}: "
                "give a tree like the parameters."
            )
    total = {
        group.name: sums.total[group.name] + jnp.square(member_sums(jnp.multiply, group, known, slopes))
        for group in groups
    }
    return TaylorSums(total, sums.batches + 1)


def taylor(params: Tree, gradients: Iterable[Tree], groups: Iterable[GroupLike]) -> dict[str, Float[Array, " size"]]:
    """Mean over batches of the squared first-order change of the loss.

    Args:
      params: Parameters.
      gradients: One gradient tree per batch; an iterator, so that only one is alive at a time.  For one gradient, a
        list of it.
      groups: Coupled groups; all their places count.

    Returns:
      Group name to (size,), float32.

    Raises:
      ValueError: If there is no gradient, `gradients` is a single tree, or a group or a gradient does not fit `params`.

    >>> from compressjax.projections import whole
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> batches = [{"w": jnp.array([0.5, -1.0])}, {"w": jnp.array([0.5, 0.0])}]
    >>> taylor(params, batches, [whole("layer", params, "w")])
    {'layer': Array([1.25], dtype=float32)}
    """
    if _is_one_tree(gradients, params):
        raise ValueError("taylor takes one gradient tree per batch: for a single one, pass [gradients].")
    groups = listed(groups)
    sums = taylor_start(groups)
    for gradient in gradients:
        sums = taylor_add(sums, params, gradient, groups)
    return taylor_mean(sums)


def _is_one_tree(gradients: Any, params: Tree) -> bool:
    """Whether this is a gradient, and not an iterable of them."""
    if isinstance(gradients, Iterator):  # before its leaves are compared: it would be a leaf itself
        return False
    single = isinstance(gradients, Mapping) or not isinstance(gradients, Iterable)
    return single or leaves(gradients).keys() == leaves(params).keys()


def taylor_mean(sums: TaylorSums) -> dict[str, Float[Array, " size"]]:
    """The scores after some batches.

    Args:
      sums: From `taylor_add`, outside `jit`.

    Returns:
      Group name to (size,), float32.

    Raises:
      ValueError: If there was no batch.

    >>> taylor_mean(TaylorSums({"fc": jnp.array([1.0, 4.0])}, jnp.int32(2)))
    {'fc': Array([0.5, 2. ], dtype=float32)}
    """
    if not int(sums.batches):
        raise ValueError("taylor needs the gradient of at least one batch.")
    return {name: total / sums.batches for name, total in sums.total.items()}
