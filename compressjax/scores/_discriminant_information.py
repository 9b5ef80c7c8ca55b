r"""Discriminant information: how much of the scatter of features lies between the classes.

    DI = tr( (S + rho I)^-1 S_B )        S   = sum_n (x_n - mu)(x_n - mu)^T
                                         S_B = sum_c n_c (mu_c - mu)(mu_c - mu)^T        rho = 1e-4

For centred rows X and the class memberships Y, columns of length one, S = X^T X and S_B = X^T Y Y^T X, so that also

    DI = tr( Y^T K (K + rho I)^-1 Y )    K   = X X^T,

which is used where there are more features than samples.  DI lies between 0 and classes - 1, and never falls when a
feature is added.

`discriminant_information` takes the feature map of one channel as the features; `information_loss` takes the channels
of a layer, each averaged over its positions, and asks what DI loses without one of them.  That takes one inverse for
all of them: with W = (S + rho I)^-1 X^T Y,

    DI - DI without k = ||W[k]||^2 / [(S + rho I)^-1][k, k]

Everything is float64 on the host: rho is 1e-4 beside scatters of thousands.

Source: Hou, Kung, "A Feature-map Discriminant Perspective for Pruning Deep Neural Networks", 2020 (arXiv 2005.13796);
Liu, Wentzlaff, Kung, "Class-Discriminative CNN Compression", ICPR 2022 (arXiv 2110.10864).
"""

import numpy as np
from jaxtyping import Array, Float, Int, Num

from compressjax.scores._labelled import labelled, memberships

Features = Num[Array, "samples *positions channels"] | Num[np.ndarray, "samples *positions channels"]
Labels = Int[Array, " samples"] | Int[np.ndarray, " samples"]


def discriminant_information(features: Features, labels: Labels, ridge: float = 1e-4) -> Float[np.ndarray, " channels"]:
    """Discriminant information of the feature map of every channel alone.

    Time grows with samples x positions x the smaller of both, per channel: pool large maps, or take fewer samples.

    Args:
      features: Channels last; all axes between samples and channels are positions.
      labels: Class of every sample; samples of label -1 are left out.
      ridge: rho, in units of the features squared; positive.

    Returns:
      One score per channel, float64, at least 0 and less than the number of classes - 1.

    Raises:
      ValueError: If shapes or labels do not fit, fewer than two classes are present, features are not finite, or
        `ridge` is not positive.

    >>> x = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])  # the first channel is the class
    >>> discriminant_information(x, np.array([1, 1, 0, 0])).round(3)
    array([1., 0.])
    """
    _check(ridge)
    x, y = labelled(features, labels)
    member = memberships(y)
    return np.array([_information(x[..., c].astype(np.float64), member, ridge) for c in range(x.shape[-1])])


def information_loss(features: Features, labels: Labels, ridge: float = 1e-4) -> Float[np.ndarray, " channels"]:
    """What the discriminant information of a layer loses without each of its channels.

    Unlike all other scores of this kind it sees redundancy: of two equal channels neither is missed.

    Args:
      features: Channels last; each is averaged over all axes between samples and channels.
      labels: Class of every sample; samples of label -1 are left out.
      ridge: rho, in units of the features squared; positive.

    Returns:
      One score per channel, float64, at least 0.

    Raises:
      ValueError: If shapes or labels do not fit, fewer than two classes are present, features are not finite, or
        `ridge` is not positive.

    >>> x = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> information_loss(x, np.array([1, 1, 0, 0])).round(3)
    array([1., 0.])
    """
    _check(ridge)
    x, y = labelled(features, labels)
    rows = x.mean(1, dtype=np.float64)
    rows -= rows.mean(0, keepdims=True)
    inverse = np.linalg.inv(rows.T @ rows + ridge * np.eye(rows.shape[1]))
    weights = inverse @ (rows.T @ memberships(y))
    return np.square(weights).sum(1) / np.diagonal(inverse)


def _check(ridge: float) -> None:
    if not ridge > 0:
        raise ValueError(f"ridge is {ridge}: it must be positive, because constant features have no scatter.")


def _information(
    rows: Float[np.ndarray, "samples features"], member: Float[np.ndarray, "samples classes"], ridge: float
) -> float:
    """DI of one set of features, by the smaller of the two systems."""
    rows = rows - rows.mean(0, keepdims=True)
    if rows.shape[1] <= len(rows):
        between = rows.T @ member
        return float(np.sum(between * np.linalg.solve(rows.T @ rows + ridge * np.eye(rows.shape[1]), between)))
    gram = rows @ rows.T
    member = member - member.mean(0, keepdims=True)  # changes nothing but rounding, which rho would magnify
    return float(np.sum(member * np.linalg.solve(gram + ridge * np.eye(len(rows)), gram @ member)))
