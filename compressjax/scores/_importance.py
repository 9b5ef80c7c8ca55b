"""Importance: what a channel takes in times what is read of it.

    I_c = ||weights that produce c||_2 * ||weights that read c||_2

A channel that reads nothing or that nothing reads has importance 0.  In a ReLU network a channel may be scaled by s and
its readers by 1/s without a change of function; I_c does not change either, which no norm of one side can say.

Source: the path-wise view of Neyshabur, Salakhutdinov, Srebro, "Path-SGD", NeurIPS 2015 (arXiv 1506.02617).
"""

from collections.abc import Iterable

from jaxtyping import Array, Float

from compressjax.projections import GroupLike, producers, readers
from compressjax.projections._members import listed
from compressjax.scores._norms import l2
from compressjax.trees import Rules, Tree


def importance(
    params: Tree, groups: Iterable[GroupLike], *, outputs: Rules[int] | None = None
) -> dict[str, Float[Array, " size"]]:
    """Norm of the producing times the norm of the reading kernels of each member.

    Args:
      params: Parameters.
      groups: Coupled groups, with both sides.
      outputs: As for `compressjax.projections.producers`: ``{"*/weight": -1}`` for kernels (out, in) and OIHW.

    Returns:
      Group name to (size,), float32 or wider.

    Raises:
      ValueError: If a group does not fit `params`, or lacks a side.

    >>> import jax.numpy as jnp, numpy as np
    >>> from types import SimpleNamespace as Plain
    >>> params = {"a": {"kernel": jnp.array([[3.0, 0.0], [4.0, 1.0]])}, "b": {"kernel": jnp.array([[2.0], [7.0]])}}
    >>> places = [Plain(path=path, axis=axis, index=np.arange(2)) for path, axis in (("a/kernel", 1), ("b/kernel", 0))]
    >>> importance(params, [Plain(name="a", size=2, members=places)])
    {'a': Array([10.,  7.], dtype=float32)}
    """
    groups = listed(groups)
    incoming = l2(params, producers(groups, params, outputs=outputs))
    outgoing = l2(params, readers(groups, params, outputs=outputs))
    return {name: value * outgoing[name] for name, value in incoming.items()}
