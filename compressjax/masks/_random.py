"""Random masks: where sparse training from scratch starts, and the control that every chosen mask has to beat."""

from collections.abc import Mapping

import jax
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from compressjax.masks._allocate import Shapes
from compressjax.masks._apply import from_scores


def random(
    key: PRNGKeyArray, shapes: Shapes, counts: Mapping[str, int | Int[Array, ""]]
) -> dict[str, Bool[Array, "..."]]:
    """Masks that keep `counts[path]` entries of every leaf, all choices equally likely.

    Args:
      key: From `jax.random.key`; the n-th leaf draws from the n-th key folded from it.
      shapes: Leaf dictionary of shapes, as from `compressjax.trees.shapes`.
      counts: Leaf dictionary of how many entries to keep, from `uniform`, `erk` or by hand.

    Returns:
      Leaf dictionary of masks, in the order of `shapes`.

    Raises:
      ValueError: If the two dictionaries name different leaves, or a count exceeds its leaf.

    >>> from compressjax.masks import erk
    >>> shapes = {"conv": (3, 3, 1, 8), "fc": (100, 10)}
    >>> found = random(jax.random.key(0), shapes, erk(shapes, 0.2))
    >>> {path: int(mask.sum()) for path, mask in found.items()}
    {'conv': 26, 'fc': 188}
    """
    # Integers of 32 bits rather than floats, whose 24 bits would tie in large leaves; ties favour low indices.
    bits = {path: jax.random.bits(jax.random.fold_in(key, n), shape) for n, (path, shape) in enumerate(shapes.items())}
    return from_scores(bits, counts)
