"""Wanda: a weight matters as much as it is large and its input is active.

    score(w_ij) = |w_ij| ||X_i||_2         X_i: what input i was on the calibration data

Squared, it is the error of the layer's output if this weight alone is removed and the others stay.

Source: Sun, Liu, Bair, Kolter, "A Simple and Effective Pruning Approach for Large Language Models", ICLR 2024
(arXiv 2306.11695), which compares the scores of one output at a time.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from compressjax.trees import Tree, leaves


def wanda(tree: Tree, norms: Mapping[str, Float[Array, " inputs"]]) -> dict[str, Float[Array, "inputs outputs"]]:
    """The absolute value of every weight times the norm of its input.

    Args:
      tree: Any pytree with kernels (inputs, outputs).
      norms: Leaf dictionary of input norms; `compressjax.oneshot` measures them.  Only these leaves are scored.

    Returns:
      Leaf dictionary of scores in float32 or wider.

    Raises:
      ValueError: If a path is unknown, or norms and kernel do not fit.

    >>> wanda({"kernel": jnp.array([[-2.0], [1.0]])}, {"kernel": jnp.array([1.0, 3.0])})
    {'kernel': Array([[2.],
           [3.]], dtype=float32)}
    """
    known = leaves(tree)
    return {path: _score(path, known.get(path), norm) for path, norm in norms.items()}


def _score(path: str, kernel: Any, norm: Float[Array, " inputs"]) -> Float[Array, "inputs outputs"]:
    if kernel is None:
        raise ValueError(f"wanda: there are norms for {path!r}, but no such leaf.")
    shape = jnp.shape(kernel)
    if len(shape) != 2 or shape[0] != norm.shape[0]:
        raise ValueError(
            f"wanda: {path!r} has the shape {shape}, which does not fit the norms of {norm.shape[0]} inputs: "
            "pass the kernel as a matrix (inputs, outputs)."
        )
    wide = jnp.promote_types(jnp.result_type(kernel), jnp.float32)
    return jnp.abs(jnp.asarray(kernel, wide)) * norm.astype(wide)[:, None]
