r"""Iterative pruning by any score: prune a little, score again, down to the budget.

With N entries at first, k of them to keep and n rounds::

    count_i = N (k / N)^(i / n)                        i = 1 ... n: the same share goes in every round
    mask_i  = the count_i best of score(tree with mask_{i-1}) among the entries still alive

One round is the usual one-shot pruning.  At extreme budgets a global one-shot choice empties whole layers; a score that
depends on what is left, looked at again in small steps, need not (Tanaka, Kunin, Yamins, Ganguli, "Pruning neural
networks without any data by iteratively conserving synaptic flow", NeurIPS 2020, arXiv 2006.05467; for SNIP: de Jorge
et al., "Progressive Skeletonization", ICLR 2021, arXiv 2006.09081).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from compressjax.masks._allocate import global_
from compressjax.masks._apply import apply, from_scores
from compressjax.trees import Tree


def iterative(
    score: Callable[[Tree], Mapping[str, Float[Array, "..."]]], tree: Tree, keep: int, *, rounds: int = 100
) -> dict[str, Bool[Array, "..."]]:
    """Masks that keep the globally best `keep` entries, found in several rounds.

    Args:
      score: From parameters to a leaf dictionary of scores (see `compressjax.scores`); the leaves it names are pruned.
        It is compiled, and called once per round.
      tree: Parameters before pruning.
      keep: How many entries to keep in total.
      rounds: Number of rounds.

    Returns:
      Leaf dictionary of masks.

    Raises:
      ValueError: If `keep` or `rounds` is out of range, or a score is not finite.

    >>> params = {"in": jnp.array([3.0, 2.0]), "out": jnp.array([1.0, 4.0])}
    >>> flow = lambda p: {path: p["in"] * p["out"] for path in p}  # of the two paths through one unit each
    >>> iterative(flow, params, 2, rounds=2)
    {'in': Array([False,  True], dtype=bool), 'out': Array([False,  True], dtype=bool)}
    """
    shapes = {path: leaf.shape for path, leaf in jax.eval_shape(lambda t: dict(score(t)), tree).items()}
    masks = {path: jnp.ones(shape, bool) for path, shape in shapes.items()}
    total = sum(mask.size for mask in masks.values())
    if not 1 <= keep <= total:
        raise ValueError(f"iterative: keep={keep} must lie between 1 and the {total} entries that are scored.")
    if rounds < 1:
        raise ValueError(f"iterative: rounds={rounds} must be at least 1.")

    @jax.jit
    def prune(
        tree: Any, masks: dict[str, Bool[Array, "..."]], count: Int[Array, ""]
    ) -> tuple[dict[str, Bool[Array, "..."]], dict[str, Bool[Array, ""]]]:
        found = {path: value.astype(jnp.float32) for path, value in score(apply(tree, masks)).items()}
        ranks = {path: jnp.where(masks[path], value, -jnp.inf) for path, value in found.items()}
        return from_scores(ranks, global_(ranks, count)), {path: jnp.all(jnp.isfinite(v)) for path, v in found.items()}

    finite = {path: True for path in masks}
    for number in range(1, rounds + 1):
        count = keep if number == rounds else round(total * (keep / total) ** (number / rounds))
        masks, fine = prune(tree, masks, jnp.int32(count))
        finite = {path: finite[path] & fine[path] for path in masks}
    for path, good in finite.items():
        if not good:
            raise ValueError(f"iterative: the scores of {path!r} are not all finite: scale the weights down first.")
    return masks
