"""Magnitude: a weight matters as much as it is large.

    score(w) = |w|

Source: Han, Pool, Tran, Dally, "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015
(arXiv 1506.02626).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from compressjax.trees import Tree, leaves


def magnitude(tree: Tree) -> dict[str, Float[Array, "..."]]:
    """The absolute value of every leaf.

    Args:
      tree: Any pytree of arrays; a leaf dictionary to score only some leaves.

    Returns:
      Leaf dictionary of scores, shapes and dtypes as the leaves.

    >>> magnitude({"fc": {"kernel": jnp.array([-2.0, 1.0])}})
    {'fc/kernel': Array([2., 1.], dtype=float32)}
    """
    return {path: jnp.abs(leaf) for path, leaf in leaves(tree).items()}
