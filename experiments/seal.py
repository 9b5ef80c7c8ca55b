"""Checksums in what a run writes, so that damage on disk is an error and not another result.

A record, a report and the progress of a checkpoint are JSON objects; each gets a last entry ``crc``, the CRC-32 of all
other entries.  That of a checkpoint covers its arrays too.  Objects without the entry are read as they stand: older
runs have none.
"""

import json
import zlib
from collections.abc import Mapping
from typing import Any

CRC = "crc"


def seal(values: Mapping[str, Any], start: int = 0) -> dict[str, Any]:
    """The values with their checksum as the last entry.

    Args:
      values: JSON-ready.
      start: Checksum of what belongs to them (see `checksum`).

    Returns:
      A dictionary that `unseal` takes, also after a round trip through JSON.

    >>> seal({"step": 1})
    {'step': 1, 'crc': 981963069}
    """
    return {**values, CRC: zlib.crc32(json.dumps(values).encode(), start)}


def unseal(values: Any, start: int = 0, *, required: bool = False) -> dict[str, Any]:
    """The values without their checksum, which must be right if there is one.

    Args:
      values: What `seal` returned.
      start: As for `seal`.
      required: Whether there must be one.

    Raises:
      ValueError: If it is not right, or absent though required, or the values are no JSON object.

    >>> unseal(seal({"step": 1}))
    {'step': 1}
    >>> unseal({**seal({"step": 1}), "step": 2})
    Traceback (most recent call last):
    ...
    ValueError: its checksum does not match its contents
    """
    if not isinstance(values, dict):
        raise ValueError(f"it holds a {type(values).__name__}, not an object")
    rest = {name: value for name, value in values.items() if name != CRC}
    if required and CRC not in values:
        raise ValueError("it has no checksum, unlike its neighbours")
    if CRC in values and values[CRC] != seal(rest, start)[CRC]:
        raise ValueError("its checksum does not match its contents")
    return rest


def checksum(arrays: Any) -> int:
    """CRC-32 of all leaves of a tree: dtypes, shapes and bytes.

    A leaf that is split over several hosts is left out: no process sees all of it.

    >>> import numpy as np
    >>> checksum({"w": np.zeros(2)}) == checksum({"w": np.zeros(2)}) != checksum({"w": np.ones(2)})
    True
    """
    import jax
    import numpy as np

    found = 0
    for leaf in jax.tree.leaves(arrays):
        if getattr(leaf, "is_fully_addressable", True) or leaf.is_fully_replicated:
            if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                leaf = jax.random.key_data(leaf)
            array = np.ascontiguousarray(leaf)
            found = zlib.crc32(f"{array.dtype}{array.shape}".encode(), found)
            found = zlib.crc32(array.reshape(-1).view(np.uint8).data, found)
    return found
