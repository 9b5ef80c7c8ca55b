r"""Discriminant component analysis (DCA): the directions of features that tell classes apart.

With S_B and S_W the scatter between and within classes of flattened features, per sample, and s the largest eigenvalue
of S_W::

    (S_B + S_W + (rho + rho') I) v = lambda (S_W + rho I) v,   rho = 0.02 s,  rho' = 0.1 rho

The v with the largest lambda are kept.  They have v^T (S_W + rho I) v = 1, so that a projected feature varies about as
much within a class whatever the layer's scale, and the sign that makes the class mean farthest from the mean of all
positive, so that a student and a teacher that agree on the classes agree on signs.  S_B has rank classes - 1: further
directions tell nothing apart.

The problem is (features x features).  With fewer samples than features it is solved in the samples' span, where all
scatter lies; for larger ones pool before (a 16x16x32 map has 8192 features, pooled to 4x4 it has 512).

Source: S.-Y. Kung, "Discriminant component analysis for privacy protection and visualization of big data", Multimedia
Tools and Applications, 2015; its use for distillation: class-discriminative compression (CDC).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


class ScatterSums(NamedTuple):
    """What `scatter_add` has seen so far.

    Attributes:
      counts: Samples per class, float32 or wider.
      means: Mean per class.
      within: Scatter around the class means, summed over samples.
    """

    counts: Float[Array, " classes"]
    means: Float[Array, "classes features"]
    within: Float[Array, "features features"]


class Discriminants(NamedTuple):
    """Directions that tell classes apart.

    Attributes:
      directions: One per column, the best first.
      values: Their lambda, at most 1.1 where classes do not differ.
    """

    directions: Float[Array, "features k"]
    values: Float[Array, " k"]


def scatter_start(classes: int, features: int) -> ScatterSums:
    """Nothing seen yet.

    Args:
      classes: Number of classes, 2 or more.
      features: Number of flattened features.

    Returns:
      Sums to pass to `scatter_add`.

    Raises:
      ValueError: If there are fewer than 2 classes, or no feature.

    >>> scatter_start(2, 3).within.shape
    (3, 3)
    """
    if classes < 2 or features < 1:
        raise ValueError(f"classes={classes} must be at least 2 and features={features} at least 1.")
    return ScatterSums(jnp.zeros(classes), jnp.zeros((classes, features)), jnp.zeros((features, features)))


def scatter_add(sums: ScatterSums, features: Float[Array, "n *shape"], labels: Int[Array, " n"]) -> ScatterSums:
    """Adds one batch; pure, so that it may run under `jit`.

    Means and scatter are merged (Chan, Golub and LeVeque), so that nothing cancels.

    Args:
      sums: From `scatter_start` or the batch before.
      features: (n, ...), flattened here.
      labels: Class numbers; a number out of range is left out.

    Returns:
      New sums.

    Raises:
      ValueError: If features and labels do not fit the sums.

    >>> sums = scatter_add(scatter_start(2, 1), jnp.array([[0.0], [2.0], [5.0]]), jnp.array([0, 0, 1]))
    >>> sums.means.ravel().tolist(), sums.within.tolist()
    ([1.0, 5.0], [[2.0]])
    """
    x = flat(features).astype(sums.means.dtype)
    if x.shape[1] != sums.means.shape[1] or labels.shape != x.shape[:1]:
        raise ValueError(
            f"The features have shape {features.shape} and the labels {labels.shape}; the sums are over "
            f"{sums.means.shape[1]} features per sample."
        )
    member = jax.nn.one_hot(labels, len(sums.counts), dtype=x.dtype)
    counts = member.sum(axis=0)
    means = (member.T @ x) / jnp.maximum(counts, 1)[:, None]
    # Rows of no class count nothing.
    centred = (x - member @ means) * member.sum(axis=1, keepdims=True)
    total = sums.counts + counts
    apart = means - sums.means
    weight = sums.counts * counts / jnp.maximum(total, 1)
    return ScatterSums(
        total,
        sums.means + apart * (counts / jnp.maximum(total, 1))[:, None],
        sums.within + centred.T @ centred + apart.T @ (apart * weight[:, None]),
    )


def scatter_discriminants(sums: ScatterSums, k: int | None = None, *, ridge: float = 0.02) -> Discriminants:
    """Directions from streamed sums; solved on the host in float64.

    Args:
      sums: From `scatter_add`.
      k: Number of directions; by default the number of classes less one.
      ridge: rho as a share of the largest eigenvalue of S_W.

    Returns:
      The directions, float32 or as wide as the sums.

    Raises:
      ValueError: If a class has no sample, `k` or `ridge` is out of range, or nothing varies within classes.

    >>> x = jnp.array([[0.0, 1.0], [0.0, -1.0], [4.0, 1.0], [4.0, -1.0]])
    >>> found = scatter_discriminants(scatter_add(scatter_start(2, 2), x, jnp.array([0, 0, 1, 1])))
    >>> abs(float(found.directions[0, 0])) > 1, bool(jnp.isclose(found.directions[1, 0], 0.0))
    (True, True)
    """
    counts, means, within = (np.asarray(part, np.float64) for part in sums)
    vectors, values = _solve(counts, means, within / max(counts.sum(), 1), k, ridge)
    return _as(sums.means.dtype, vectors, values)


def discriminants(
    features: Float[Any, "n *shape"],
    labels: Int[Any, " n"],
    classes: int,
    k: int | None = None,
    *,
    ridge: float = 0.02,
) -> Discriminants:
    """Directions from features at hand; in the samples' span where that is the smaller problem.

    Works on the host in float64.

    Args:
      features: (n, ...), flattened here.
      labels: Class numbers.
      classes: Number of classes.
      k: Number of directions; by default the number of classes less one.
      ridge: rho as a share of the largest eigenvalue of S_W.

    Returns:
      The directions, float32 or as wide as the features.

    Raises:
      ValueError: If features and labels do not fit, a label is out of range, a class has no sample, `k` or `ridge` is
        out of range, or nothing varies within classes.

    >>> x = np.array([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0], [4.0, 1.0, 0.0], [4.0, -1.0, 0.0]])
    >>> np.abs(discriminants(x, np.array([0, 0, 1, 1]), 2).directions.ravel()).round(2)
    array([7.07, 0.  , 0.  ], dtype=float32)
    """
    dtype = jnp.promote_types(jax.dtypes.result_type(features), jnp.float32)
    x, y = np.asarray(features, np.float64), np.asarray(labels)
    if x.ndim < 2 or y.shape != x.shape[:1] or not len(y):
        raise ValueError(f"The features have shape {x.shape} and the labels {y.shape}: give (n, ...) and (n,).")
    if classes < 2 or y.min() < 0 or y.max() >= classes:
        raise ValueError(f"The labels run from {y.min()} to {y.max()}: they must lie in 0..{classes - 1}.")
    x = x.reshape(len(x), -1)
    basis = None
    if x.shape[1] > len(x):
        basis = _span(x - x.mean(axis=0))
        x = x @ basis
    counts = np.bincount(y, minlength=classes).astype(np.float64)
    means = np.zeros((classes, x.shape[1]))
    np.add.at(means, y, x)
    means /= np.maximum(counts, 1)[:, None]
    centred = x - means[y]
    vectors, values = _solve(counts, means, centred.T @ centred / len(x), k, ridge)
    return _as(dtype, vectors if basis is None else basis @ vectors, values)


def flat(features: Float[Array, "n *shape"]) -> Float[Array, "n features"]:
    """One row per sample.

    Args:
      features: (n, ...).

    Returns:
      (n, features), in row-major order.

    >>> flat(jnp.ones((2, 3, 4))).shape
    (2, 12)
    """
    return jnp.reshape(features, (features.shape[0], -1))


def _solve(
    counts: np.ndarray, means: np.ndarray, within: np.ndarray, k: int | None, ridge: float
) -> tuple[np.ndarray, np.ndarray]:
    """The generalised eigenproblem, by whitening the right-hand side."""
    if not counts.all():
        raise ValueError(f"Class {int(np.flatnonzero(counts == 0)[0])} has no sample: give at least one of each.")
    if not (np.isfinite(means).all() and np.isfinite(within).all()):
        raise ValueError("The features hold values that are not finite: no direction can be found.")
    most = within.shape[0]
    k = min(len(counts) - 1, most) if k is None else k
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= most:
        raise ValueError(f"k={k!r} must be a whole number from 1 to {most}: there are no more directions.")
    if not ridge > 0 or not np.isfinite(ridge):
        raise ValueError(f"ridge={ridge} must be finite and above 0.")
    size, axes = np.linalg.eigh(within)
    if not size[-1] > 0:
        raise ValueError("Nothing varies within classes, so directions cannot be weighed: give more samples.")
    rho = ridge * size[-1]
    whitener = axes / np.sqrt(np.maximum(size, 0) + rho)[None, :]
    apart = (means - (counts @ means / counts.sum())[None, :]) * np.sqrt(counts / counts.sum())[:, None]
    between = (apart @ whitener).T @ (apart @ whitener)
    # In the whitened basis S_W + rho I is the identity, and rho' I what rho' makes of it.
    left = between + np.eye(most) + 0.1 * rho * np.diag(1 / (np.maximum(size, 0) + rho))
    values, vectors = np.linalg.eigh(left)
    vectors = whitener @ vectors[:, ::-1][:, :k]
    places = apart @ vectors
    sign = np.sign(places[np.argmax(np.abs(places), axis=0), np.arange(k)])
    return vectors * np.where(sign == 0, 1.0, sign)[None, :], values[::-1][:k]


def _span(centred: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the rows of a wide matrix."""
    basis = np.linalg.qr(centred.T)[0]
    small = centred @ basis
    size, axes = np.linalg.eigh(small.T @ small)
    return basis @ axes[:, size > 1e-12 * size[-1]] if size[-1] > 0 else basis[:, :1]


def _as(dtype: Any, vectors: np.ndarray, values: np.ndarray) -> Discriminants:
    return Discriminants(jnp.asarray(vectors, dtype), jnp.asarray(values, dtype))
