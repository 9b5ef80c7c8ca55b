r"""SET, sparse evolutionary training: weights that stay small are replaced by others at random.

    growth score = a uniform random number

It needs no gradient of dead weights, and so is the control beside RigL.

Source: Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse connectivity inspired by
network science", Nature Communications 9, 2018 (arXiv 1707.04780).  The share that moves falls along half a cosine
here, as in the comparison of Evci et al., ICML 2020.
"""

from collections.abc import Mapping

import jax
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from compressjax.training._dynamic_sparse import dynamic_sparse


def set_(
    inner: optax.GradientTransformation,
    masks: Mapping[str, Bool[Array, "..."]],
    key: PRNGKeyArray,
    *,
    every: int,
    end: int,
    drop: float = 0.3,
) -> optax.GradientTransformationExtraArgs:
    """Dynamic sparse training at random; see `dynamic_sparse` for what it does and raises.

    Args:
      inner: Any optimizer.
      masks: Leaf dictionary of the first masks.
      key: From `jax.random.key`.  The step count is folded into it, so that a resumed run makes the same choices.
      every: Steps between changes of the masks.
      end: Step count from which the masks stay.
      drop: Share of the living weights that moves at first.

    Returns:
      An optax transform whose `update` needs `params`; its state is a `DynamicSparseState`.

    >>> import jax.numpy as jnp
    >>> params = {"w": jnp.array([3.0, 0.5, 0.0, 0.0])}
    >>> optimizer = set_(optax.sgd(1.0), {"w": params["w"] != 0}, jax.random.key(0), every=1, end=100, drop=0.75)
    >>> _, state = optimizer.update({"w": jnp.zeros(4)}, optimizer.init(params), params)
    >>> bool(state.masks["w"][0]), int(state.masks["w"].sum())
    (True, 2)
    """

    def growth(gradients: dict[str, Array], count: Int[Array, ""]) -> dict[str, Float[Array, "..."]]:
        now = jax.random.fold_in(key, count)
        return {
            path: jax.random.uniform(jax.random.fold_in(now, number), gradient.shape)
            for number, (path, gradient) in enumerate(gradients.items())
        }

    return dynamic_sparse(inner, masks, growth, every=every, end=end, drop=drop)
