"""Magnitude: the projection of the weights, whatever the data.  The baseline of the room.

    W' = argmin over S of ||W' - W||

Source: Han, Pool, Tran, Dally, "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015
(arXiv 1506.02626).
"""

from jaxtyping import Array, Float

from compressjax.oneshot._problem import check
from compressjax.oneshot._statistics import Statistics
from compressjax.projections import Constraint


def magnitude(
    w: Float[Array, "inputs outputs"], statistics: Statistics, constraint: Constraint
) -> Float[Array, "inputs outputs"]:
    """The nearest weights in the set; the statistics are not used.

    Args:
      w: Kernel.
      statistics: Of what enters the layer.
      constraint: Any set.

    Returns:
      The projection, in the dtype of `w`.

    Raises:
      ValueError: If the inputs do not fit each other or are not finite.

    >>> import jax.numpy as jnp
    >>> from compressjax.oneshot import add, start
    >>> from compressjax.projections import Cardinality
    >>> seen = add(start(2), jnp.array([[1.0, 9.0]]))
    >>> magnitude(jnp.array([[2.0], [1.0]]), seen, Cardinality(1)).ravel()
    Array([2., 0.], dtype=float32)
    """
    check("magnitude", w, statistics)
    return constraint.project(w)
