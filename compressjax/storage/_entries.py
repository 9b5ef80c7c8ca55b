"""An artefact read as what it holds: stored entries and where they lie, without the zeros around them.

`decode` unfolds every leaf.  Who goes on with a sparse form needs no unfolded leaf at any time: the entries are what
the file holds, and cost memory by their number (and one byte per position while a leaf is read).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from compressjax.storage._artifact import MAX_ELEMENTS, in_memory, parse


@dataclass(frozen=True, eq=False)
class Entries:
    """The stored entries of one leaf; all others are zero.

    Attributes:
      shape: Of the leaf.
      positions: Flat positions in the leaf (the last axis fastest), ascending, int64 [n]; None if n is the leaf's size.
      values: [n], in the leaf's dtype; zeros may be among them.

    >>> leaf = Entries((2, 2), np.array([3]), np.array([0.5]))
    >>> leaf.array().tolist()
    [[0.0, 0.0], [0.0, 0.5]]
    """

    shape: tuple[int, ...]
    positions: np.ndarray | None
    values: np.ndarray

    def array(self) -> np.ndarray:
        """The whole leaf."""
        if self.positions is None:
            return self.values.reshape(self.shape)
        flat = np.zeros(math.prod(self.shape), self.values.dtype)
        flat[self.positions] = self.values
        return flat.reshape(self.shape)


@dataclass(frozen=True, eq=False)
class Sparse:
    """An artefact as entries.

    Attributes:
      leaves: Leaf dictionary, in the file's order.
      meta: Metadata given to `encode`.

    >>> from compressjax.storage import encode
    >>> entries(encode({"w": np.array([0.0, 2.0])}, {"model": "toy"})).meta
    {'model': 'toy'}
    """

    leaves: dict[str, Entries]
    meta: dict[str, Any]


def entries(data: bytes, *, max_elements: int = MAX_ELEMENTS) -> Sparse:
    """Reads an artefact without unfolding its leaves.

    Args:
      data: What `encode` returned, or the contents of a file.
      max_elements: Refuse files that would unfold to more entries than this.

    Returns:
      The entries of every leaf; filled in, they are what `decode` returns.

    Raises:
      ValueError: As for `decode`.

    >>> from compressjax.storage import encode
    >>> leaf = entries(encode({"w": 2 * np.eye(30)})).leaves["w"]
    >>> leaf.positions[:3].tolist(), leaf.values[:3].tolist()
    ([0, 31, 62], [2.0, 2.0, 2.0])
    """
    parsed = parse(data, max_elements)
    with in_memory():
        leaves = {path: Entries(leaf.shape, leaf.positions, leaf.values) for path, leaf in parsed.leaves.items()}
    return Sparse(leaves, parsed.meta)
