"""Random scores: the control that every other score has to beat."""

from collections.abc import Iterable

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from compressjax.projections import GroupLike
from compressjax.projections._members import listed


def random(key: PRNGKeyArray, groups: Iterable[GroupLike]) -> dict[str, Float[Array, " size"]]:
    """Independent uniform numbers in [0, 1).

    Args:
      key: From `jax.random.key`; the n-th group draws from the n-th key folded from it.
      groups: Coupled groups.

    Returns:
      Group name to (size,), float32.

    Raises:
      ValueError: If `groups` is no sequence of groups.

    >>> from types import SimpleNamespace as Plain
    >>> found = random(jax.random.key(0), [Plain(name="conv1", size=3, members=[])])
    >>> found["conv1"].shape
    (3,)
    """
    return {
        group.name: jax.random.uniform(jax.random.fold_in(key, number), (group.size,))
        for number, group in enumerate(listed(groups))
    }
