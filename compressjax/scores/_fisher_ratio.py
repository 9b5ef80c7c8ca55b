r"""Fisher's discriminant ratio of a class against the rest, averaged over classes.

    score = mean over classes of (g_P - g_Q)^2 / (v_P + v_Q + r)         r = 1e-4

Source: Liu, Wentzlaff, Kung, "Class-Discriminative CNN Compression", ICPR 2022 (arXiv 2110.10864).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from compressjax.scores._one_vs_rest import OneVsRest


def fisher_ratio(statistics: OneVsRest, ridge: float = 1e-4) -> Float[Array, " channels"]:
    """Squared distance of the class means over the sum of the variances, the mean over classes.

    Args:
      statistics: From `one_vs_rest`.
      ridge: Added to the denominator, in units of the features squared.

    Returns:
      One score per channel; 0 for a channel that is constant.

    >>> from compressjax.scores import class_add, class_start, one_vs_rest
    >>> sums = class_add(class_start(2, 1), jnp.array([[0.0], [2.0], [7.0]]), jnp.array([0, 0, 1]))
    >>> fisher_ratio(one_vs_rest(sums), ridge=1.0)
    Array([18.], dtype=float32)
    """
    s = statistics
    return jnp.mean(jnp.square(s.mean_p - s.mean_q) / (s.var_p + s.var_q + ridge), 1)
