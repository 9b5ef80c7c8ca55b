"""From batches of labelled inputs to one score per member of every group.

`class_statistics` makes one pass for all scores of `OneVsRest`, and keeps sums only; `feature_scores` keeps the feature
maps themselves, for scores that need every sample at once.  Both take what `compressjax.channels.Net.taps` gives: a
function from parameters and inputs to {group name: tuple of arrays (samples, ..., members)}.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from compressjax.scores._class_sums import ClassSums, class_add, class_start
from compressjax.scores._one_vs_rest import OneVsRest, one_vs_rest
from compressjax.trees import Tree

Taps = Callable[..., Mapping[str, tuple[Any, ...]]]


def class_statistics(
    taps: Taps, params: Tree, batches: Iterable[Sequence[Any]], classes: int
) -> dict[str, tuple[OneVsRest, ...]]:
    """Statistics of every tap, class by class, in one pass over the data.

    Statistics of BatchNorm are those that `taps` uses, so trace the function that you mean: eval mode as a rule.

    Args:
      taps: Pure ``taps(params, *xs)`` to {group name: tuple of (samples, ..., members)}, as `Net.taps` gives.
      params: Parameters.
      batches: Tuples ``(*xs, labels)``, training data.  A batch smaller than the first is filled up with its last
        sample, which does not count.
      classes: Number of classes.

    Returns:
      Group name to one `OneVsRest` per tap.

    Raises:
      ValueError: If there is no batch, one is larger than the first, labels are no classes, fewer than two classes are
        present, or features are not finite.

    >>> taps = lambda params, x: {"g0": (x * params,)}
    >>> batch = (jnp.array([[1.0, 1.0], [5.0, 1.0]]), jnp.array([0, 1]))
    >>> class_statistics(taps, jnp.array([[1.0, 2.0]]), [batch], 2)["g0"][0].mean_p.tolist()
    [[1.0, 5.0], [2.0, 2.0]]
    """

    @jax.jit
    def step(params: Tree, sums: Any, xs: Any, labels: Array) -> Any:
        return {
            name: tuple(class_add(s, array, labels) for s, array in zip(sums[name], arrays, strict=True))
            for name, arrays in taps(params, *xs).items()
        }

    def start(array: jax.ShapeDtypeStruct) -> ClassSums:
        return class_start(classes, array.shape[-1], math.prod(array.shape[1:-1]))

    sums = None
    for xs, labels in _filled(batches):
        if sums is None:
            seen = jax.eval_shape(taps, params, *xs)
            sums = {name: tuple(map(start, arrays)) for name, arrays in seen.items()}
        sums = step(params, sums, xs, jnp.asarray(labels, jnp.int32))
    if sums is None:
        raise ValueError("class_statistics needs at least one batch (*xs, labels).")
    out = {}
    for name, found in sums.items():
        try:
            out[name] = tuple(map(one_vs_rest, found))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return out


def discriminative(
    statistics: Mapping[str, Sequence[OneVsRest]], score: Callable[[OneVsRest], Float[Array, " size"]]
) -> dict[str, Float[Array, " size"]]:
    """One score per member of every group: the mean over the places where it is read.

    Args:
      statistics: From `class_statistics`.
      score: `absolute_snr`, `fisher_ratio`, `symmetric_divergence`, `two_sample_t`, or any other function of a
        `OneVsRest`.

    Returns:
      Group name to (size,).

    Raises:
      ValueError: If a group has no statistics.

    >>> from compressjax.scores import fisher_ratio
    >>> taps = lambda params, x: {"g0": (x, 2 * x)}
    >>> batch = (jnp.array([[1.0, 1.0], [5.0, 1.0]]), jnp.array([0, 1]))
    >>> discriminative(class_statistics(taps, None, [batch], 2), lambda s: fisher_ratio(s, ridge=1.0))
    {'g0': Array([40.,  0.], dtype=float32)}
    """
    return {name: _mean(name, [score(one) for one in found]) for name, found in statistics.items()}


def feature_scores(
    taps: Taps,
    params: Tree,
    batches: Iterable[Sequence[Any]],
    score: Callable[[Any, Any], Any],
) -> dict[str, Float[Array, " size"]]:
    """Like `discriminative`, for scores that need the features of every sample at once.

    The features of all taps are held on the host: take few batches, or few groups at a time (``net.taps(["g1"])``).

    Args:
      taps: As in `class_statistics`.
      params: Parameters.
      batches: As in `class_statistics`.
      score: `discriminant_information`, `information_loss`, `mmd`, or any other function of features (samples, ...,
        members) and labels.

    Returns:
      Group name to (size,), the mean over taps.

    Raises:
      ValueError: If there is no batch, one is larger than the first, or `score` refuses the features or labels.

    >>> from compressjax.scores import mmd
    >>> taps = lambda params, x: {"g0": (x,)}
    >>> batch = (jnp.array([[1.0, 1.0], [5.0, 1.0]]), jnp.array([0, 1]))
    >>> feature_scores(taps, None, [batch], mmd)["g0"].round(2)
    Array([2., 0.], dtype=float32)
    """
    seen: dict[str, list[list[np.ndarray]]] = {}
    known: list[np.ndarray] = []
    compiled = jax.jit(taps)
    for xs, labels in _filled(batches):
        for name, arrays in compiled(params, *xs).items():
            for held, array in zip(seen.setdefault(name, [[] for _ in arrays]), arrays, strict=True):
                held.append(np.asarray(array)[labels >= 0])
        known.append(labels[labels >= 0])
    if not known:
        raise ValueError("feature_scores needs at least one batch (*xs, labels).")
    labels = np.concatenate(known)
    return {name: _mean(name, [score(np.concatenate(a), labels) for a in found]) for name, found in seen.items()}


def _filled(batches: Iterable[Sequence[Any]]) -> Iterator[tuple[tuple[Any, ...], np.ndarray]]:
    """Inputs and labels, small batches filled up to the size of the first by samples of label -1."""
    size = 0
    for batch in batches:
        if not isinstance(batch, (tuple, list)) or len(batch) < 2:
            raise ValueError(f"A batch is a {type(batch).__name__}: give tuples (*xs, labels).")
        *xs, labels = batch
        labels = np.asarray(labels)
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"Labels are {labels.dtype} of shape {labels.shape}: give one integer per sample.")
        ends = np.iinfo(np.int32)
        labels = np.clip(labels.astype(np.int64), ends.min, ends.max)  # which JAX would wrap; unsigned ones have no -1
        size = size or len(labels)
        lacking = size - len(labels)
        if lacking < 0 or not len(labels):
            raise ValueError(f"A batch has {len(labels)} samples, the first had {size}: none may be larger, or empty.")
        if lacking:
            labels = np.concatenate([labels, np.full(lacking, -1, labels.dtype)])
            xs = jax.tree.map(partial(_repeat_last, times=lacking), xs)
        yield tuple(xs), labels


def _repeat_last(x: Any, times: int) -> np.ndarray:
    return np.concatenate([x, np.repeat(np.asarray(x)[-1:], times, 0)])


def _mean(name: str, found: Sequence[Any]) -> Float[Array, " size"]:
    if not found:
        raise ValueError(f"{name} has no taps, so there is nothing to score: leave it out.")
    return jnp.mean(jnp.stack([jnp.asarray(one) for one in found]), 0)
