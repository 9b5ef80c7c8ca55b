"""Masks from scores and counts, and their application.

A mask is a boolean array, True where a weight lives; masks of a network are a leaf dictionary.
"""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Shaped

from compressjax.projections._select import top_mask
from compressjax.trees import Tree, map_leaves


def top_k_mask(score: Shaped[Array, "..."], count: int | Int[Array, ""]) -> Bool[Array, "..."]:
    """Marks exactly the `count` entries of largest score; ties go to the lower index.

    Args:
      score: Any shape, signed or not.
      count: An int between 0 and ``score.size``, or an integer scalar array, traced or not, which is clipped to that
        range (for ramps inside one compiled step).

    Returns:
      Boolean mask of `score`'s shape.

    Raises:
      ValueError: If an int `count` is out of range.

    >>> top_k_mask(jnp.array([0.1, 0.7, 0.7, 0.3]), 1)
    Array([False,  True, False, False], dtype=bool)
    >>> import jax
    >>> jax.jit(top_k_mask)(jnp.array([0.1, 0.7, 0.7, 0.3]), 3).tolist()
    [False, True, True, True]
    """
    score = jnp.asarray(score)
    if isinstance(count, int):
        if not 0 <= count <= score.size:
            raise ValueError(f"count={count} must lie between 0 and the {score.size} entries of shape {score.shape}.")
        return top_mask(score, count)
    return top_mask(score, jnp.clip(jnp.asarray(count, jnp.int32), 0, score.size))


def from_scores(
    scores: Mapping[str, Shaped[Array, "..."]], counts: Mapping[str, int | Int[Array, ""]]
) -> dict[str, Bool[Array, "..."]]:
    """Masks that keep the best-scored `counts[path]` entries of every leaf.

    Args:
      scores: Leaf dictionary of scores (see `compressjax.scores`).
      counts: Leaf dictionary of how many entries to keep, from `uniform`, `erk`, `global_` or by hand.

    Returns:
      Leaf dictionary of masks, in the order of `scores`.

    Raises:
      ValueError: If the two dictionaries name different leaves, or a count exceeds its leaf.

    >>> from_scores({"fc": jnp.array([3.0, 1.0, 2.0])}, {"fc": 2})
    {'fc': Array([ True, False,  True], dtype=bool)}
    """
    odd = sorted(set(scores) ^ set(counts))
    if odd:
        where = "scores" if odd[0] in scores else "counts"
        raise ValueError(f"{odd[0]!r} is only in {where}: scores and counts must name the same leaves.")
    out = {}
    for path, score in scores.items():
        try:
            out[path] = top_k_mask(score, counts[path])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return out


def apply(tree: Tree, masks: Mapping[str, Bool[Array, "..."]]) -> Tree:
    """Sets the entries outside the masks to exactly 0.0; leaves without a mask pass through.

    Args:
      tree: Parameters.
      masks: Leaf dictionary of masks with their leaves' shapes.

    Returns:
      A tree of the same structure, shapes and dtypes.

    Raises:
      ValueError: If a mask names no leaf or has another shape than its leaf.

    >>> apply({"kernel": jnp.array([1.0, 2.0]), "bias": jnp.array([3.0])}, {"kernel": jnp.array([False, True])})
    {'bias': Array([3.], dtype=float32), 'kernel': Array([0., 2.], dtype=float32)}
    """

    def one(leaf: Array, mask: Array) -> Array:
        if jnp.shape(leaf) != jnp.shape(mask):
            raise ValueError(f"A mask of shape {jnp.shape(mask)} does not fit its leaf of shape {jnp.shape(leaf)}.")
        # Selection, not multiplication: NaN * 0 and -1 * 0 are not 0.0.
        return jnp.where(mask, leaf, jnp.zeros_like(leaf))

    return map_leaves(one, tree, masks)
