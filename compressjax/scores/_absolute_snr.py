r"""Signal-to-noise ratio of a class against the rest, averaged over classes.

    score = mean over classes of |g_P - g_Q| / (sqrt(v_P) + sqrt(v_Q) + r)         r = 1e-4

Source: Liu, Wentzlaff, Kung, "Class-Discriminative CNN Compression", ICPR 2022 (arXiv 2110.10864), after Golub et al.,
Science 286, 1999.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from compressjax.scores._one_vs_rest import OneVsRest


def absolute_snr(statistics: OneVsRest, ridge: float = 1e-4) -> Float[Array, " channels"]:
    """Distance of the class means over the sum of the standard deviations, the mean over classes.

    Args:
      statistics: From `one_vs_rest`.
      ridge: Added to the denominator, in units of the features.

    Returns:
      One score per channel; 0 for a channel that is constant.

    >>> from compressjax.scores import class_add, class_start, one_vs_rest
    >>> sums = class_add(class_start(2, 1), jnp.array([[0.0], [2.0], [7.0]]), jnp.array([0, 0, 1]))
    >>> absolute_snr(one_vs_rest(sums), ridge=1.0)
    Array([3.], dtype=float32)
    """
    s = statistics
    return jnp.mean(jnp.abs(s.mean_p - s.mean_q) / (jnp.sqrt(s.var_p) + jnp.sqrt(s.var_q) + ridge), 1)
