r"""Label hierarchies: classes that a network confuses become one coarse class.

From the confusion matrix, rows normalised to F, a distance between classes and clusters of them::

    d_ij = ((1 - F_ij) + (1 - F_ji)) / 2,  d_ii = 0
    W = 1 - d                                       affinity: the mean rate of confusion, 1 with itself
    L = I - D^(-1/2) W D^(-1/2),  D = diag(W 1)     normalised Laplacian
    rows of the k eigenvectors of L with the smallest eigenvalues, scaled to length 1, into k-means

Early layers are then scored with coarse labels, late ones with fine labels (`label_levels`): what tells animals from
vehicles is found before what tells cats from dogs.

k-means starts from every class in turn, its other centres the points farthest from those before, and keeps the tightest
clusters: no random numbers, and the order of the classes does not matter.

Source: the label hierarchies of class-discriminative compression (CDC); Ng, Jordan, Weiss, "On Spectral Clustering:
Analysis and an Algorithm", NIPS 2001, for the clusters.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Integer, Num

Matrix = Float[np.ndarray, "classes classes"]


def confusion_matrix(
    labels: Integer[Any, " n"], predictions: Integer[Any, " n"], classes: int
) -> Int[np.ndarray, "c c"]:
    """Counts of (label, prediction), labels in rows.

    Args:
      labels: True classes, from validation data.
      predictions: What a trained network says.
      classes: Number of classes.

    Returns:
      (classes, classes), int64.

    Raises:
      ValueError: If a class number is out of range, or the vectors differ in length.

    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    true, said = (_class_numbers(what, x, classes) for what, x in (("labels", labels), ("predictions", predictions)))
    if true.shape != said.shape:
        raise ValueError(f"There are {len(true)} labels and {len(said)} predictions: give one prediction per label.")
    return np.bincount(true * classes + said, minlength=classes * classes).reshape(classes, classes)


def confusion_distance(confusion: Num[Any, "classes classes"]) -> Matrix:
    """Distance between classes: 1 less the mean rate at which they are taken for each other.

    Args:
      confusion: Counts or rates, true classes in rows.

    Returns:
      (classes, classes), float64: symmetric, in [0, 1], 0 on the diagonal.

    Raises:
      ValueError: If the matrix is not square, a number is negative or not finite, or a row is empty.

    >>> confusion_distance(np.array([[3, 1], [0, 4]])).tolist()
    [[0.0, 0.875], [0.875, 0.0]]
    """
    counts = np.asarray(confusion, np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size:
        raise ValueError(f"The confusion matrix has shape {counts.shape}: it must be (classes, classes).")
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError("The confusion matrix holds numbers that are negative or not finite: give counts or rates.")
    rows = counts.sum(axis=1)
    if not rows.all():
        raise ValueError(
            f"Row {int(np.flatnonzero(rows == 0)[0])} of the confusion matrix is empty: every class needs a sample."
        )
    rates = counts / rows[:, None]
    distance = ((1 - rates) + (1 - rates.T)) / 2
    np.fill_diagonal(distance, 0.0)
    return distance


def class_clusters(confusion: Num[Any, "classes classes"], clusters: int) -> Int[np.ndarray, " classes"]:
    """Clusters of classes that are taken for each other, by spectral clustering.

    Args:
      confusion: Counts or rates, true classes in rows; of a trained network on validation data.
      clusters: Number of clusters, 1 to the number of classes.

    Returns:
      (classes,) int32: the cluster of each class, numbered in the order in which the classes meet them.

    Raises:
      ValueError: As `confusion_distance`; if `clusters` is out of range, or the classes fall into more parts that are
        never confused than there are to be clusters.

    >>> confusion = np.array([[8, 0, 2, 0], [0, 9, 0, 1], [3, 0, 7, 0], [0, 1, 0, 9]])
    >>> class_clusters(confusion, 2).tolist()
    [0, 1, 0, 1]
    """
    affinity = 1 - confusion_distance(confusion)
    classes = len(affinity)
    whole = isinstance(clusters, (int, np.integer)) and not isinstance(clusters, bool)
    if not whole or not 1 <= clusters <= classes:
        raise ValueError(f"clusters={clusters!r} must be a whole number from 1 to the {classes} classes.")
    parts = _parts(affinity > 0)
    if parts > clusters:
        raise ValueError(
            f"The classes fall into {parts} parts that are never confused with each other, more than clusters="
            f"{clusters}: nothing says which to join. Ask for more clusters, or add a small number to every count."
        )
    scale = 1 / np.sqrt(affinity.sum(axis=1))
    laplacian = np.eye(classes) - scale[:, None] * affinity * scale[None, :]
    points = np.linalg.eigh(laplacian)[1][:, :clusters]
    points = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-300)
    return _renumbered(_k_means(points, int(clusters)))


def coarse_labels(labels: Int[Any, "*n"], groups: Int[Any, " classes"]) -> Int[np.ndarray, "*n"]:
    """The coarse class of every label.

    Args:
      labels: Fine class numbers.
      groups: The coarse class of each fine one, as from `class_clusters` or from a data set's own superclasses.

    Returns:
      Like `labels`, int32.

    Raises:
      ValueError: If a label has no entry in `groups`, or `groups` is no vector of class numbers.

    >>> coarse_labels(np.array([3, 0, 2]), np.array([0, 1, 0, 1])).tolist()
    [1, 0, 0]
    """
    table = np.asarray(groups)
    if table.ndim != 1 or not np.issubdtype(table.dtype, np.integer) or (table < 0).any():
        raise ValueError(f"groups has shape {table.shape} and dtype {table.dtype}: give one number >= 0 per class.")
    return table.astype(np.int32)[_class_numbers("labels", labels, len(table))]


def label_levels(
    depths: Mapping[str, int | float], coarse: Int[Any, " n"], fine: Int[Any, " n"], threshold: float = 0.5
) -> dict[str, Int[Any, " n"]]:
    """Which labels each group is scored with: coarse early, fine late.

    Args:
      depths: Group name to where it stands in the network: any number that grows with depth, such as the number of its
        block; groups of one block have the same.
      coarse: Coarse labels.
      fine: Fine labels.
      threshold: Share of the different depths, from the first, that get coarse labels: 0 gives all fine labels, 1 all
        coarse ones.  A share between two depths counts the one it reaches into, so that half of 27 blocks is 14.

    Returns:
      Group name to `coarse` or `fine`.

    Raises:
      ValueError: If `threshold` is out of range, a depth is not finite, or the labels differ in shape.

    >>> levels = label_levels({"g0": 0, "g1": 1, "g2": 2, "g3": 3}, np.array([0, 0]), np.array([0, 1]))
    >>> [labels.tolist() for labels in levels.values()]
    [[0, 0], [0, 0], [0, 1], [0, 1]]
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold={threshold} is a share and must lie in [0, 1].")
    for name, depth in depths.items():
        if not np.isfinite(depth):
            raise ValueError(f"The depth of {name!r} is {depth}: it must be a finite number.")
    if np.shape(coarse) != np.shape(fine):
        raise ValueError(f"coarse has shape {np.shape(coarse)}, fine {np.shape(fine)}: they label the same samples.")
    order = sorted(set(depths.values()))
    early = set(order[: int(np.ceil(threshold * len(order) - 1e-9))])
    return {name: coarse if depth in early else fine for name, depth in depths.items()}


def _class_numbers(what: str, labels: Any, classes: int) -> np.ndarray:
    array = np.asarray(labels)
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"The {what} are {array.dtype}: give whole numbers.")
    if array.size and (array.min() < 0 or array.max() >= classes):
        raise ValueError(f"The {what} run from {array.min()} to {array.max()}: they must lie in 0..{classes - 1}.")
    return array.astype(np.int64)  # class numbers are multiplied, which bytes have no room for


def _parts(linked: np.ndarray) -> int:
    """Number of connected components."""
    reach = linked
    for _ in range(max(1, len(linked)).bit_length()):
        reach = reach @ reach
    return len(np.unique(reach, axis=0))


def _k_means(points: np.ndarray, k: int) -> np.ndarray:
    """The tightest clusters over one start per point, each with its farthest points as centres."""
    best, least = np.zeros(len(points), int), (k, np.inf)
    for start in range(len(points)):
        centres, nearest = points[start : start + 1], _squares(points, points[start : start + 1])[:, 0]
        while len(centres) < k:
            far = points[np.argmax(nearest)][None]
            centres, nearest = np.concatenate([centres, far]), np.minimum(nearest, _squares(points, far)[:, 0])
        found = np.full(len(points), -1)
        for _ in range(100):
            squares = _squares(points, centres)
            moved = squares.argmin(axis=1)
            if np.array_equal(moved, found):
                break
            found = moved
            # A centre that lost all its points stays where it was.
            own = [found == i for i in range(k)]
            centres = np.stack([points[o].mean(axis=0) if o.any() else c for o, c in zip(own, centres, strict=True)])
        # Missing clusters count first; rounding makes no difference between starts.
        spread = (k - len(np.unique(found)), round(float(_squares(points, centres).min(axis=1).sum()), 9))
        if spread < least:
            best, least = found, spread
    return best


def _squares(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return np.square(points[:, None] - centres[None]).sum(axis=2)


def _renumbered(found: np.ndarray) -> np.ndarray:
    first = np.unique(found, return_index=True)[1]
    order = {int(found[i]): number for number, i in enumerate(sorted(first))}
    return np.asarray([order[int(i)] for i in found], np.int32)
