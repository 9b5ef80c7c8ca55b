r"""Fronts of several objectives: non-dominated sorting, crowding, hypervolume.

a dominates b if it is nowhere worse and somewhere better.  Front 0 is dominated by none, front 1 only by front 0, and
so on.  A member's crowding distance is, summed over objectives, the gap between its neighbours on its own front,
relative to the front's range; the ends of a front are infinitely far out.

A candidate with an objective that is not finite, or is `FAILED`, is on the last front, and never on `front`.

Source: Deb, Pratap, Agarwal, Meyarivan, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE TEVC 2002.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from compressjax.search._evaluate import FAILED


@jax.jit
def non_dominated_ranks(fitness: Float[Array, "members objectives"]) -> Int[Array, " members"]:
    """The number of each member's front.

    Two objectives are swept in order of the first; more are peeled front by front from a members² matrix.

    Args:
      fitness: Smaller is better.

    Returns:
      0 for members that none dominates; int32.

    >>> non_dominated_ranks(jnp.array([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0], [jnp.nan, 0.0]]))
    Array([0, 0, 1, 2], dtype=int32)
    """
    able = _able(fitness)
    ranks = _swept(fitness, able) if fitness.shape[1] == 2 else _peeled(fitness, able)
    return jnp.where(able, ranks, 1 + jnp.max(jnp.where(able, ranks, -1)))


def _swept(fitness: Array, able: Array) -> Array:
    """Two objectives: a member is on the first front whose last member, the lowest one so far, does not dominate it."""
    fitness = jnp.where(able[:, None], fitness, jnp.inf)
    order = jnp.lexsort((fitness[:, 1], fitness[:, 0]))
    points = fitness[order]
    again = jnp.concatenate([jnp.zeros(1, bool), jnp.all(points[1:] == points[:-1], axis=1)])

    def place(carry: tuple[Array, Array], member: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        lowest, before = carry  # of each front, rising with its number
        height, equal = member
        rank = jnp.where(equal, before, jnp.sum(lowest <= height, dtype=jnp.int32))
        return (lowest.at[rank].set(height, mode="drop"), rank), rank

    start = (jnp.full(len(points), jnp.inf, points.dtype), jnp.int32(0))
    _, ranks = jax.lax.scan(place, start, (points[:, 1], again))
    return jnp.zeros_like(ranks).at[order].set(ranks)


def _peeled(fitness: Array, able: Array) -> Array:
    """Any number of objectives: what none of the rest dominates, again and again."""
    fitness = jnp.where(able[:, None], fitness, jnp.inf)
    no_worse = jnp.all(fitness[:, None] <= fitness[None], axis=-1)
    dominates = no_worse & ~no_worse.T  # equal ones dominate each other in neither direction

    def left(carry: tuple[Array, Array, Array]) -> Array:
        return jnp.any(carry[1])

    def peel(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        ranks, active, number = carry
        free = active & ~jnp.any(dominates & active[:, None], axis=0)
        return jnp.where(free, number, ranks), active & ~free, number + 1

    count = len(fitness)
    start = (jnp.zeros(count, jnp.int32), jnp.ones(count, bool), jnp.int32(0))
    return jax.lax.while_loop(left, peel, start)[0]


@jax.jit
def crowding_distances(
    fitness: Float[Array, "members objectives"], ranks: Int[Array, " members"]
) -> Float[Array, " members"]:
    """How far each member's neighbours on its front are.

    Args:
      fitness: Smaller is better.
      ranks: From `non_dominated_ranks`.

    Returns:
      Larger is lonelier; infinite at the ends of a front, 0 where an objective is not finite.

    >>> fitness = jnp.array([[0.0, 4.0], [1.0, 2.0], [4.0, 0.0]])
    >>> crowding_distances(fitness, jnp.zeros(3, int))
    Array([inf,  2., inf], dtype=float32)
    """
    count = len(fitness)
    able = _able(fitness)

    def one(values: Array) -> Array:
        values = jnp.where(able, values, 0.0)
        order = jnp.lexsort((values, ranks))
        value, rank = values[order], ranks[order]
        low = jax.ops.segment_min(values, ranks, count)[rank]
        high = jax.ops.segment_max(values, ranks, count)[rank]
        inside = jnp.arange(count)
        before, after = jnp.maximum(inside - 1, 0), jnp.minimum(inside + 1, count - 1)
        between = (inside > 0) & (inside < count - 1) & (rank[before] == rank) & (rank[after] == rank)
        gap = (value[after] - value[before]) / jnp.where(high > low, high - low, 1.0)
        return jnp.zeros_like(value).at[order].set(jnp.where(between, gap, jnp.inf))

    return jnp.where(able, jnp.sum(jax.vmap(one, in_axes=1)(fitness), axis=0), 0.0)


def front(fitness: Float[Array, "members objectives"]) -> Bool[Array, " members"]:
    """Whether each member is dominated by none; failures never are on the front.

    Args:
      fitness: Smaller is better.

    Returns:
      A mask.

    >>> front(jnp.array([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0]]))
    Array([ True,  True, False], dtype=bool)
    """
    return (non_dominated_ranks(fitness) == 0) & _able(fitness)


def hypervolume(fitness: Any, reference: tuple[float, float]) -> float:
    """The area that a set of two-objective points dominates below a reference point.

    Args:
      fitness: (members, 2), smaller is better; points that are not finite or not below the reference add nothing.
      reference: The corner.

    Returns:
      The area, in the product of both units.

    Raises:
      ValueError: If there are not two objectives.

    >>> hypervolume(np.array([[0.0, 1.0], [1.0, 0.0]]), (2.0, 2.0))
    3.0
    """
    points = np.asarray(fitness, float)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"fitness has the shape {points.shape}: it must be (members, 2), two objectives.")
    points = points[np.all(np.isfinite(points) & (points < np.asarray(reference)), axis=1)]
    total, ceiling = 0.0, reference[1]
    for x, y in points[np.lexsort((points[:, 1], points[:, 0]))]:
        if y < ceiling:
            total += (reference[0] - x) * (ceiling - y)
            ceiling = y
    return float(total)


def _able(fitness: Array) -> Array:
    return jnp.all(jnp.isfinite(fitness) & (fitness < FAILED), axis=1)
