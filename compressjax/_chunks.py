"""How many members of a population are computed side by side: one answer for all that evaluate populations."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def chunked(f: Callable[[Any], Any], chunk: int | None = None) -> Callable[[Any], Any]:
    """`jax.vmap` of a function of one tree, in chunks: memory for `chunk` members is enough.

    Args:
      f: Of one member.
      chunk: Members computed side by side; 1 is a loop (`lax.map`).  By default 1 on a CPU, where batched convolutions
        and `lax.switch` under `vmap` are slower, and all of them elsewhere.

    Returns:
      A function of a tree whose leaves have an axis over members in front, as its results have.

    Raises:
      ValueError: If `chunk` is no whole number of 1 or more.

    >>> chunked(lambda pair: pair[0] + pair[1], chunk=2)((np.arange(3), np.ones(3, int))).tolist()
    [1, 2, 3]
    """
    check_chunk(chunk)

    def mapped(members: Any) -> Any:
        count = len(jax.tree.leaves(members)[0])
        size = chunk if chunk is not None else 1 if jax.default_backend() == "cpu" else count
        if size == 1:
            return jax.lax.map(f, members)
        return jax.vmap(f)(members) if size >= count else jax.lax.map(f, members, batch_size=int(size))

    return mapped


def check_chunk(chunk: int | None) -> None:
    """Raises a `ValueError` unless `chunk` is None or a whole number of 1 or more."""
    if chunk is not None and (isinstance(chunk, bool) or not isinstance(chunk, (int, np.integer)) or chunk < 1):
        raise ValueError(f"chunk={chunk!r} must be a whole number, at least 1, or None for the backend's own choice.")
