r"""Welch's t of a class against the rest, averaged over classes.

    score = mean over classes of |g_P - g_Q| / sqrt(v_P / n_P + v_Q / n_Q + r)         r = 1e-4

n counts samples, not entries; v is the variance over all entries, divided by their number.

Source: Liu, Wentzlaff, Kung, "Class-Discriminative CNN Compression", ICPR 2022 (arXiv 2110.10864).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from compressjax.scores._one_vs_rest import OneVsRest


def two_sample_t(statistics: OneVsRest, ridge: float = 1e-4) -> Float[Array, " channels"]:
    """Distance of the class means over its standard error, the mean over classes.

    Args:
      statistics: From `one_vs_rest`.
      ridge: Added to the squared standard error, in units of the features squared.

    Returns:
      One score per channel; 0 for a channel that is constant.

    >>> from compressjax.scores import class_add, class_start, one_vs_rest
    >>> sums = class_add(class_start(2, 1), jnp.array([[0.0], [2.0], [7.0]]), jnp.array([0, 0, 1]))
    >>> two_sample_t(one_vs_rest(sums), ridge=3.5)
    Array([3.], dtype=float32)
    """
    s = statistics
    error = s.var_p / s.count_p[None] + s.var_q / s.count_q[None] + ridge
    return jnp.mean(jnp.abs(s.mean_p - s.mean_q) / jnp.sqrt(error), 1)
