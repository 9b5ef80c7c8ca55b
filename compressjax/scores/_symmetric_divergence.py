r"""Symmetric divergence of a class and the rest, each taken as a normal distribution; averaged over classes.

    score = mean over classes of  1/2 (v_P / (v_Q + r) + v_Q / (v_P + r))
                                + 1/2 (g_P - g_Q)^2 / (v_P + v_Q + r) - 1         r = 0.05

Unlike the other scores it also sees classes that differ in variance alone.  The ridge is large: below a variance of
about 0.05 a channel counts as constant, so features must be of order one.

Source: Liu, Wentzlaff, Kung, "Class-Discriminative CNN Compression", ICPR 2022 (arXiv 2110.10864), where it is the
default.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from compressjax.scores._one_vs_rest import OneVsRest


def symmetric_divergence(statistics: OneVsRest, ridge: float = 0.05) -> Float[Array, " channels"]:
    """How far the distributions of a class and of the rest are apart, the mean over classes.

    Args:
      statistics: From `one_vs_rest`.
      ridge: Added to the denominators, in units of the features squared.

    Returns:
      One score per channel; -1, the least that there is, for a channel that is constant.

    >>> from compressjax.scores import class_add, class_start, one_vs_rest
    >>> sums = class_add(class_start(2, 1), jnp.array([[0.0], [2.0], [7.0]]), jnp.array([0, 0, 1]))
    >>> symmetric_divergence(one_vs_rest(sums), ridge=1.0)
    Array([8.5], dtype=float32)
    """
    s = statistics
    variances = s.var_p / (s.var_q + ridge) + s.var_q / (s.var_p + ridge)
    means = jnp.square(s.mean_p - s.mean_q) / (s.var_p + s.var_q + ridge)
    return jnp.mean(0.5 * (variances + means) - 1, 1)
