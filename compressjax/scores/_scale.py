"""Scales of a normalization: a channel matters as much as the factor it leaves the normalization with.

    score_c = sum over the scales s of channel c of |s|

It means something after training with `compressjax.training.slimming`, which moves the scales of spare channels to
zero, and for channels that a normalization follows; the others have no score and stay whole.

Source: Liu, Li, Shen, Huang, Yan, Zhang, "Learning Efficient Convolutional Networks through Network Slimming", ICCV
2017 (arXiv 1708.06519).
"""

from collections.abc import Iterable

from jaxtyping import Array, Float

from compressjax.projections import GroupLike, matching
from compressjax.scores._norms import l1
from compressjax.trees import Tree


def norm_scale(params: Tree, groups: Iterable[GroupLike], *patterns: str) -> dict[str, Float[Array, " size"]]:
    """Magnitude of each member's normalization scale, summed where it passes several normalizations.

    Args:
      params: Parameters.
      groups: Coupled groups.
      patterns: Globs of the scales' paths; ``"*scale"`` if none is given.

    Returns:
      Group name to (size,), float32 or wider, for the groups that have a scale.

    Raises:
      ValueError: If a pattern matches no place, or a group does not fit `params`.

    >>> import jax.numpy as jnp, numpy as np
    >>> from types import SimpleNamespace as Plain
    >>> place = Plain(path="norm/scale", axis=0, index=np.arange(2))
    >>> norm_scale({"norm": {"scale": jnp.array([-0.5, 1.0])}}, [Plain(name="c", size=2, members=[place])])
    {'c': Array([0.5, 1. ], dtype=float32)}
    """
    return l1(params, matching(groups, *(patterns or ("*scale",))))
