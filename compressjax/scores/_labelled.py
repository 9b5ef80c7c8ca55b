"""Features with their labels, checked: what scores that need every sample at once begin with."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num


def labelled(
    features: Any, labels: Any
) -> tuple[Num[np.ndarray, "samples positions channels"], Int[np.ndarray, " samples"]]:
    """Features as (samples, positions, channels) and labels numbered without gaps, on the host.

    Args:
      features: (samples, ..., channels).
      labels: Class of every sample; samples of label -1 are left out.

    Returns:
      The features and the labels.

    Raises:
      ValueError: If shapes or labels do not fit, fewer than two classes are present, or features are not finite.

    >>> labelled(np.ones((3, 2)), np.array([4, -1, 7]))[1].tolist()
    [0, 1]
    """
    x, y = np.asarray(features), np.asarray(labels)
    if x.ndim < 2 or y.shape != x.shape[:1]:
        raise ValueError(
            f"Features of shape {x.shape} and labels of shape {y.shape}: give (samples, ..., channels) and one label "
            "per sample."
        )
    if not np.issubdtype(y.dtype, np.integer) or (y.size and y.min() < -1):
        raise ValueError(f"Labels of dtype {y.dtype} from {y.min()} on: give integers from 0, or -1 to leave out.")
    x, y = x[y >= 0], y[y >= 0]
    known, numbered = np.unique(y, return_inverse=True)
    if len(known) < 2:
        raise ValueError(f"Samples of {len(known)} classes were given: telling classes apart takes two of them.")
    if not np.isfinite(x).all():
        raise ValueError("Features are not finite: check the network.")
    return x.reshape(len(x), -1, x.shape[-1]), numbered.reshape(-1).astype(np.int32)


def memberships(labels: Int[np.ndarray, " samples"]) -> Float[np.ndarray, "samples classes"]:
    """One column per class, of length one: 1 / sqrt(n_c) where a sample belongs to it.

    >>> memberships(np.array([0, 1, 1, 1, 1], np.int32)).tolist()[1]
    [0.0, 0.5]
    """
    return np.eye(labels.max() + 1)[labels] / np.sqrt(np.bincount(labels))[None]
