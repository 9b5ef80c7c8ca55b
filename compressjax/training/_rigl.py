r"""RigL: sparse training that grows weights where the gradient of the loss is largest.

    growth score = |dL/dw|, also at weights that are zero

Source: Evci, Gale, Menick, Castro, Elsen, "Rigging the Lottery: Making All Tickets Winners", ICML 2020 (arXiv
1911.11134).
"""

from collections.abc import Mapping

import optax
from jaxtyping import Array, Bool, Float, Int

from compressjax.scores import magnitude
from compressjax.training._dynamic_sparse import dynamic_sparse


def rigl(
    inner: optax.GradientTransformation,
    masks: Mapping[str, Bool[Array, "..."]],
    *,
    every: int,
    end: int,
    drop: float = 0.3,
) -> optax.GradientTransformationExtraArgs:
    """Dynamic sparse training by the gradient; see `dynamic_sparse` for what it does and raises.

    Args:
      inner: Any optimizer.
      masks: Leaf dictionary of the first masks, as from `compressjax.masks.random` with counts from `erk`.
      every: Steps between changes of the masks; the source takes 100.
      end: Step count from which the masks stay.
      drop: Share of the living weights that moves at first.

    Returns:
      An optax transform whose `update` needs `params`; its state is a `DynamicSparseState`.

    >>> import jax.numpy as jnp
    >>> params = {"w": jnp.array([3.0, 0.5, 0.0, 0.0])}
    >>> optimizer = rigl(optax.sgd(1.0), {"w": params["w"] != 0}, every=1, end=100, drop=0.75)
    >>> state = optimizer.init(params)
    >>> for _ in range(2):
    ...     updates, state = optimizer.update({"w": jnp.array([0.0, 0.0, 1.0, -2.0])}, state, params)
    ...     params = optax.apply_updates(params, updates)
    ...     print(params["w"], state.masks["w"])
    [3. 0. 0. 0.] [ True False False  True]
    [3. 0. 0. 2.] [ True False False  True]
    """

    def growth(gradients: dict[str, Array], count: Int[Array, ""]) -> dict[str, Float[Array, "..."]]:
        return magnitude(gradients)

    return dynamic_sparse(inner, masks, growth, every=every, end=end, drop=drop)
