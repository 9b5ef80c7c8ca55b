"""Lottery-ticket rewinding: the survivors of pruning go back to what they were early in training.

    W <- M * W_earlier

With `earlier` the initial parameters this is the lottery ticket of Frankle and Carbin, ICLR 2019 (arXiv 1803.03635);
with those of a few hundred steps later it works for larger networks too: Frankle, Dziugaite, Roy, Carbin, "Linear Mode
Connectivity and the Lottery Ticket Hypothesis", ICML 2020 (arXiv 1912.05671).  The optimizer and its learning-rate
schedule start again.  Starting only those again, from the trained weights, is learning-rate rewinding (Renda, Frankle,
Carbin, ICLR 2020, arXiv 2003.02389) and needs nothing but `masked`.
"""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Bool

from compressjax import trees
from compressjax.masks import apply


def rewind(params: trees.Tree, earlier: trees.Tree, masks: Mapping[str, Bool[Array, "..."]]) -> trees.Tree:
    """The earlier parameters, with zeros where the masks have them.

    Args:
      params: Trained parameters; only structure, shapes and dtypes are read.
      earlier: Parameters of the same network at initialisation or early in training.
      masks: Leaf dictionary, True where a weight survives; leaves it does not name go back as a whole.

    Returns:
      A tree built like `params`.

    Raises:
      ValueError: If `earlier` has other leaves or shapes than `params`, or a mask does not fit its leaf.

    >>> start = {"w": jnp.array([1.0, 2.0]), "b": jnp.zeros(1)}
    >>> trained = {"w": jnp.array([0.1, 5.0]), "b": jnp.array([2.0])}
    >>> rewind(trained, start, {"w": jnp.array([False, True])})
    {'b': Array([0.], dtype=float32), 'w': Array([0., 2.], dtype=float32)}
    """
    known, before = trees.leaves(params), trees.leaves(earlier)
    for path in [*known, *(path for path in before if path not in known)]:
        if path not in known or path not in before:
            missing = "the earlier parameters" if path in known else "the trained parameters"
            raise ValueError(f"rewind: {path!r} is not in {missing}: give two states of one network.")
        if jnp.shape(known[path]) != jnp.shape(before[path]):
            raise ValueError(
                f"rewind: {path!r} has shape {jnp.shape(known[path])} now and {jnp.shape(before[path])} earlier: "
                "give two states of one network."
            )
    back = {path: jnp.asarray(before[path], jnp.asarray(leaf).dtype) for path, leaf in known.items()}
    return apply(trees.update(params, back), masks)
