r"""Every class against all others: the means, variances and mean maps that class-discriminative scores are made of.

The rest of class c is joined from the other classes as batches are (see `_class_sums`), not subtracted from the whole:

    v_Q = ( sum_{j != c} M[j] + D sum_{j != c} n_j (m_j - g_Q)^2 ) / (D n_Q)

Source: Liu, Wentzlaff, Kung, "Class-Discriminative CNN Compression", ICPR 2022 (arXiv 2110.10864).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from compressjax.scores._class_sums import ClassSums


class OneVsRest(NamedTuple):
    """A feature map seen class by class: P are the samples of the class, Q those of all others.

    Classes without samples are left out.  Float32, or float64 where x64 is on.

    Attributes:
      mean_p: Mean over all entries (samples and positions) of P.
      mean_q: The same of Q.
      var_p: Variance over all entries of P.
      var_q: The same of Q.
      count_p: Samples in P.
      count_q: Samples in Q.
      vector_p: Mean over the samples of P, position by position.
      vector_q: The same of Q.
      vector: Mean over all samples, position by position.
    """

    mean_p: Float[Array, "channels classes"]
    mean_q: Float[Array, "channels classes"]
    var_p: Float[Array, "channels classes"]
    var_q: Float[Array, "channels classes"]
    count_p: Float[Array, " classes"]
    count_q: Float[Array, " classes"]
    vector_p: Float[Array, "channels classes positions"]
    vector_q: Float[Array, "channels classes positions"]
    vector: Float[Array, "channels positions"]


def one_vs_rest(sums: ClassSums) -> OneVsRest:
    """The statistics of every class that was seen against the rest.

    Args:
      sums: From `class_add`, outside of `jit`.

    Returns:
      Statistics over the classes that have samples, in ascending order.

    Raises:
      ValueError: If fewer than two classes have samples, labels were no classes, or features were not finite.

    >>> from compressjax.scores import class_add, class_start
    >>> sums = class_add(class_start(3, 1), jnp.array([[1.0], [5.0], [7.0]]), jnp.array([0, 1, 1]))
    >>> found = one_vs_rest(sums)
    >>> found.mean_p, found.var_q
    (Array([[1., 6.]], dtype=float32), Array([[1., 0.]], dtype=float32))
    """
    count = np.asarray(sums.samples)
    (present,) = np.nonzero(count)
    if int(sums.strange):
        raise ValueError(
            f"{int(sums.strange)} labels are not between 0 and {len(count) - 1}: start with the true number of "
            "classes, and mark samples to leave out by -1."
        )
    if len(present) < 2:
        raise ValueError(
            f"Samples of {len(present)} of {len(count)} classes were seen: telling classes apart takes two of them."
        )
    if not (np.isfinite(sums.total).all() and np.isfinite(sums.spread).all()):
        wrong = np.flatnonzero(~(np.isfinite(sums.total).all((0, 1)) & np.isfinite(sums.spread).all(0)))
        raise ValueError(f"Features of channels {wrong[:8].tolist()} are not finite or too large: check the network.")
    return _one_vs_rest(sums, jnp.asarray(present, jnp.int32))


@jax.jit
def _one_vs_rest(sums: ClassSums, present: Int[Array, " present"]) -> OneVsRest:
    total, spread, positions = sums.total[present], sums.spread[present], sums.total.shape[1]
    count = sums.samples[present].astype(total.dtype)
    n = count[:, None]
    mean = total.mean(1) / n
    others = 1 - jnp.eye(len(present), dtype=total.dtype)
    rest = jnp.matmul(others, count, precision=lax.Precision.HIGHEST)
    mean_rest = jnp.matmul(others, n * mean, precision=lax.Precision.HIGHEST) / rest[:, None]

    def between(row: tuple[Array, Array]) -> Array:
        among, centre = row
        return jnp.sum((among[:, None] * n) * jnp.square(mean - centre[None]), 0)

    spread_rest = jnp.matmul(others, spread, precision=lax.Precision.HIGHEST)
    spread_rest += positions * lax.map(between, (others, mean_rest))
    whole, shift = total.sum(0), sums.shift
    vector_rest = (whole[None] - total) / rest[:, None, None]
    return OneVsRest(
        mean_p=(mean + shift[None]).T,
        mean_q=(mean_rest + shift[None]).T,
        var_p=(spread / (n * positions)).T,
        var_q=(spread_rest / (rest[:, None] * positions)).T,
        count_p=count,
        count_q=rest,
        vector_p=(total / n[..., None] + shift[None, None]).transpose(2, 0, 1),
        vector_q=(vector_rest + shift[None, None]).transpose(2, 0, 1),
        vector=(whole / count.sum() + shift[None]).T,
    )
