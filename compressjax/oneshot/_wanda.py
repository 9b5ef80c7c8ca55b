"""Wanda pruning: keep the weights of highest score |w_ij| ||X_i||, at their values.

For a `Cardinality` scores are compared within each output, all outputs keeping equally many (the first ones one more if
the count does not divide); structured sets choose by score as they would by magnitude.

Source: Sun, Liu, Bair, Kolter, "A Simple and Effective Pruning Approach for Large Language Models", ICLR 2024
(arXiv 2306.11695).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from compressjax import scores
from compressjax.oneshot._problem import check, split
from compressjax.oneshot._statistics import Statistics
from compressjax.projections import Cardinality, Constraint
from compressjax.projections._select import top_mask


def wanda(
    w: Float[Array, "inputs outputs"], statistics: Statistics, constraint: Constraint
) -> Float[Array, "inputs outputs"]:
    """Prunes by score; kept weights stay as they are, or go to their nearest levels.

    Args:
      w: Kernel.
      statistics: Of what enters the layer; only the diagonal is used.
      constraint: A set that selects entries, a quantizer (then nothing is selected), or `Both`.

    Returns:
      Weights in the set, in the dtype of `w`.

    Raises:
      ValueError: If the constraint does not select entries, or the inputs do not fit each other or are not finite.

    >>> import jax.numpy as jnp
    >>> from compressjax.oneshot import add, start
    >>> seen = add(start(2), jnp.array([[1.0, 9.0]]))
    >>> wanda(jnp.array([[2.0], [1.0]]), seen, Cardinality(1)).ravel()
    Array([0., 1.], dtype=float32)
    """
    check("wanda", w, statistics)
    sparsity, quantizer = split("wanda", constraint)
    if sparsity is not None:
        norms = jnp.sqrt(jnp.diagonal(statistics.hessian))
        score = scores.wanda({"w": w}, {"w": norms})["w"]
        chosen = _by_output(score, sparsity) if isinstance(sparsity, Cardinality) else sparsity.support(score)
        w = jnp.where(chosen, w, jnp.zeros_like(w))
    return w if quantizer is None else quantizer.project(w)


def _by_output(score: Float[Array, "inputs outputs"], sparsity: Cardinality) -> Bool[Array, "inputs outputs"]:
    """The best of every output, together exactly as many as `sparsity` keeps."""
    inputs, outputs = score.shape
    each, more = divmod(sparsity.count((inputs, outputs)), outputs)
    return jax.vmap(top_mask, in_axes=(1, 0), out_axes=1)(score, each + (jnp.arange(outputs) < more))
