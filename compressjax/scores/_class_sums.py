r"""Sums over samples, class by class, from which every one-vs-rest score follows in one pass over the data.

Per channel, with x an entry (sample, position), y the label of its sample and s the channel's mean in the first batch::

    t[c, d] = sum_{y = c} (x[d] - s)          per position d
    m[c]    = mean over positions of t[c] / n[c]
    M[c]    = sum_{y = c, d} (x - s - m[c])^2

M is taken about the class mean of each batch, and batches are joined by

    M = M_a + M_b + D n_a n_b / (n_a + n_b) (m_a - m_b)^2

so that nothing cancels: E[x^2] - E[x]^2 in float32 loses every digit of a variance that is 1e-7 of the squared mean.

Source: Chan, Golub, LeVeque, "Algorithms for Computing the Sample Variance", The American Statistician 37, 1983.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Integer, Num


class ClassSums(NamedTuple):
    """What `class_add` has seen so far, float32 or, where x64 is on, float64.

    Attributes:
      samples: Samples of every class.
      shift: Mean of every channel in the first batch, from which everything else is measured.
      total: Sum over the samples of every class.
      spread: Sum of squared distances from the class mean, over samples and positions.
      strange: Labels seen that are no class and not -1.
    """

    samples: Int[Array, " classes"]
    shift: Float[Array, " channels"]
    total: Float[Array, "classes positions channels"]
    spread: Float[Array, "classes channels"]
    strange: Int[Array, ""]


def class_start(classes: int, channels: int, positions: int = 1) -> ClassSums:
    """Nothing seen yet.

    Args:
      classes: Number of classes; labels are 0 to ``classes - 1``.
      channels: Number of channels.
      positions: Positions of each: height times width of a feature map, 1 in a dense layer.

    Returns:
      Sums to pass to `class_add`.

    Raises:
      ValueError: If there are fewer than two classes, or no channels or positions.

    >>> class_start(3, 2).total.shape
    (3, 1, 2)
    """
    if classes < 2 or channels < 1 or positions < 1:
        raise ValueError(
            f"Class sums of {classes} classes, {channels} channels and {positions} positions: "
            "at least two classes, one channel and one position are needed."
        )
    zeros = lambda *shape: jnp.zeros(shape, jax.dtypes.canonicalize_dtype(jnp.float64))  # noqa: E731
    return ClassSums(
        jnp.zeros(classes, jnp.int32),
        zeros(channels),
        zeros(classes, positions, channels),
        zeros(classes, channels),
        jnp.zeros((), jnp.int32),
    )


def class_add(
    sums: ClassSums, features: Num[Array, "samples *positions channels"], labels: Integer[Array, " samples"]
) -> ClassSums:
    """Adds one batch; pure, so that it may run inside the jitted function that computes the features.

    Args:
      sums: From `class_start` or the batch before.
      features: Channels last, as `Net.taps` gives them; all axes in between are positions.
      labels: Class of every sample; -1 leaves a sample out, as padding.  Its features must be finite all the same.

    Returns:
      New sums.

    Raises:
      ValueError: If the shapes do not fit each other or the sums.

    >>> sums = class_add(class_start(2, 1), jnp.array([[1.0], [5.0], [7.0]]), jnp.array([0, 1, 1]))
    >>> sums.samples.tolist(), sums.spread.tolist()
    ([1, 2], [[0.0], [2.0]])
    """
    _, positions, channels = sums.total.shape
    if features.ndim < 2 or (math.prod(features.shape[1:-1]), features.shape[-1]) != (positions, channels):
        raise ValueError(
            f"Features of shape {features.shape} do not fit sums over {positions} positions of {channels} channels: "
            "give (samples, ..., channels) of the sizes of class_start."
        )
    if labels.shape != features.shape[:1]:
        raise ValueError(f"{features.shape[0]} samples have labels of shape {labels.shape}: give one label per sample.")
    # Unsigned labels have no -1 to be compared with.
    labels = jnp.asarray(labels).astype(jnp.promote_types(labels.dtype, jnp.int32))
    return _add(sums, features.reshape(-1, positions, channels), labels)


@jax.jit
def _add(sums: ClassSums, x: Num[Array, "samples positions channels"], labels: Int[Array, " samples"]) -> ClassSums:
    classes, positions, _ = sums.total.shape
    x = x.astype(sums.total.dtype)
    member = jax.nn.one_hot(labels, classes, dtype=x.dtype)  # a row of zeros for every label that is no class
    added = member.sum(0)
    new, old = added[:, None], sums.samples.astype(x.dtype)[:, None]
    centre = jnp.matmul(member.sum(1), x.mean(1), precision=lax.Precision.HIGHEST) / jnp.maximum(added.sum(), 1)
    shift = jnp.where(sums.samples.sum() == 0, centre, sums.shift)
    x = x - shift[None, None]
    total = jnp.einsum("nk,ndc->kdc", member, x, precision=lax.Precision.HIGHEST)
    mean, before = total.mean(1) / jnp.maximum(new, 1), sums.total.mean(1) / jnp.maximum(old, 1)
    own = jnp.matmul(member, mean, precision=lax.Precision.HIGHEST)  # the class mean of every sample
    squares = jnp.square(x - own[:, None]).sum(1)
    spread = jnp.matmul(member.T, squares, precision=lax.Precision.HIGHEST)
    joined = positions * old * new / jnp.maximum(old + new, 1) * jnp.square(mean - before)
    strange = jnp.sum((labels < -1) | (labels >= classes))
    return ClassSums(
        sums.samples + added.astype(jnp.int32),
        shift,
        sums.total + total,
        sums.spread + spread + joined,
        sums.strange + strange.astype(jnp.int32),
    )
