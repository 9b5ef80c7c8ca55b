r"""SynFlow: how much of the network's flow from input to output passes through a weight; needs no data.

    R = sum of apply(|W|, ones)        score(w) = |w| dR/d|w|

In a network without biases R is the sum over all paths of the product of their weights, and score(w) the part of R on
paths through w.  The scores of every layer then add up to the same R, so that in small steps no layer empties first:
use it with `compressjax.masks.iterative` (the source takes 100 rounds).

Biases and normalizations.  All leaves are replaced by their magnitudes, biases and scales included.  Biases start paths
of their own; at initialisation they are zero and do not matter, later set them to zero first.  Batch normalization must
be in eval mode and hold its initial statistics, mean 0 and variance 1, which make it a scale; layer normalization is no
scale and must be left out of `apply`.  Activations must pass positive values, as ReLU does.

Source: Tanaka, Kunin, Yamins, Ganguli, "Pruning neural networks without any data by iteratively conserving synaptic
flow", NeurIPS 2020 (arXiv 2006.05467).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from compressjax.trees import Tree, leaves


def synflow(apply: Callable[[Tree, Any], Any], params: Tree, example: Any) -> dict[str, Float[Array, "..."]]:
    """Synaptic flow through every weight.

    Args:
      apply: Network as a function of parameters and inputs, in eval mode.
      params: Parameters, floating-point leaves.
      example: Inputs, arrays or `jax.ShapeDtypeStruct`; only shapes and dtypes are read.  One example is enough.

    Returns:
      Leaf dictionary of scores, shapes and dtypes as the leaves.  The product over many layers may overflow; scaling
      the weights of a network of equal depth down does not change the ranks.

    Raises:
      ValueError: If the inputs are no floating-point numbers.

    >>> params = {"a": jnp.array([[2.0, -1.0]]), "b": jnp.array([[3.0], [1.0]])}
    >>> synflow(lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"], params, jnp.zeros((1, 1)))
    {'a': Array([[6., 1.]], dtype=float32), 'b': Array([[6.],
           [1.]], dtype=float32)}
    """
    for path, leaf in leaves(example).items():
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(
                f"synflow sends ones through the network, but the input {path!r} holds {leaf.dtype}: start after the "
                "embedding, with an apply that takes its floating-point output."
            )
    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), example)
    positive = jax.tree.map(jnp.abs, params)

    def flow(positive: Tree) -> Float[Array, ""]:
        return sum((jnp.sum(out) for out in jax.tree.leaves(apply(positive, ones))), start=jnp.zeros(()))

    known = leaves(positive)
    return {path: known[path] * slope for path, slope in leaves(jax.grad(flow)(positive)).items()}
