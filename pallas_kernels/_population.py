"""Many sparse matrices of one shape in one product: populations of masks, one launch.

Side by side they are one wide matrix; on the diagonal they are one matrix that keeps their inputs apart.  So a
population needs no kernel of its own.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pallas_kernels._matmul import matmul
from pallas_kernels._pytree import pytree, static
from pallas_kernels.block_sparse import BlockSparse


@pytree
class Population:
    """P block-sparse matrices [K, N] as one; made by `stack`.

    Attributes:
      weights: `BlockSparse` of shape (K, P N), or (P K, P N) if every member has inputs of its own.
      shape: (K, N) of a member.
      size: P.
      shared: Whether all members read the same inputs.
    """

    weights: Any
    shape: tuple[int, int] = static()
    size: int = static()
    shared: bool = static()


def stack(members: Sequence[BlockSparse], *, shared: bool = True) -> Population:
    """Puts matrices of one shape and one block size together.

    Args:
      members: Concrete packed weights; their patterns may differ, also in the number of blocks.
      shared: Whether all will be multiplied with the same inputs.

    Returns:
      The population, for `population_matmul`.

    Raises:
      ValueError: If there are none, or shapes, blocks or dtypes differ, or blocks do not divide the shape.
    """
    if not members:
        raise ValueError("stack: there are no members.")
    first = members[0]
    for i, w in enumerate(members):
        if (w.shape, w.block, w.dtype) != (first.shape, first.block, first.dtype):
            raise ValueError(
                f"stack: member {i} is {w.shape} in blocks {w.block} of {w.dtype}; member 0 is {first.shape} in blocks "
                f"{first.block} of {first.dtype}."
            )
    if first.padded != first.shape:
        raise ValueError(f"stack: blocks of {first.block} do not divide {first.shape}; pad the weights first.")
    tall, wide = first.grid
    rows = np.concatenate([np.asarray(w.rows) + (0 if shared else p * tall) for p, w in enumerate(members)])
    columns = np.concatenate([np.asarray(w.columns) + p * wide for p, w in enumerate(members)])
    values = jnp.concatenate([w.dequantize().values for w in members])
    live = np.concatenate([np.asarray(w.live) for w in members])
    count = len(members)
    shape = (first.shape[0] * (1 if shared else count), first.shape[1] * count)
    return Population(BlockSparse.from_blocks(values, rows, columns, shape, live), first.shape, count, shared)


def population_matmul(x: Float[Array, "... K"], population: Population, **how: Any) -> Float[Array, "P ... N"]:
    """``x @ w`` for every member: one product.

    Args:
      x: [..., K] if the inputs are shared, [P, ..., K] otherwise.
      population: Made by `stack`.
      **how: As for `matmul`; a bias has [P * N] entries, member by member.

    Returns:
      One result per member, stacked in front.

    Raises:
      ValueError: If shapes do not fit.

    >>> one = BlockSparse.from_dense(np.array([[1.0], [2.0]]), (1, 1))
    >>> both = stack([one, one.with_values(-one.values)])
    >>> population_matmul(jnp.ones(2), both).tolist()
    [[3.0], [-3.0]]
    """
    size, (k, n) = population.size, population.shape
    if population.shared:
        lead = x.shape[:-1]
    else:
        if x.ndim < 2 or x.shape[0] != size:
            raise ValueError(f"population_matmul: x has shape {x.shape}; {size} members need [{size}, ..., {k}].")
        lead = x.shape[1:-1]
        x = jnp.moveaxis(x, 0, -2).reshape(*lead, size * k)
    y = matmul(x, population.weights, **how)
    return jnp.moveaxis(y.reshape(*lead, size, n), -2, 0)
