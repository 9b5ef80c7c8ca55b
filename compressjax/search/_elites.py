r"""MAP-Elites archive: the best design of every cell of a grid over what designs are like.

Descriptors (multiply-adds and parameters, say) choose a cell; a cell keeps the candidate with the smallest fitness.
The whole trade-off stays, one elite per cell, instead of one best.  Adding a batch is one pure function: of several
candidates for one cell the best enters, ties go to the first and to what is there already.

A failure never enters: neither a fitness that is not finite or is `FAILED`, nor a descriptor outside the grid.

Source: Mouret and Clune, "Illuminating search spaces by mapping elites", 2015 (arXiv 1504.04909).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from compressjax.search._evaluate import FAILED


class Elites(NamedTuple):
    """The archive: a tree of arrays.

    Attributes:
      edges: Per descriptor the edges of its cells, (cells + 1,) rising.
      genomes: (cells of all descriptors, size); not-a-number where a cell is empty.
      fitness: (cells,); infinite where a cell is empty.
      descriptors: (cells, number of descriptors); not-a-number where a cell is empty.
    """

    edges: tuple[Float[Array, " ends"], ...]
    genomes: Float[Array, "cells size"]
    fitness: Float[Array, " cells"]
    descriptors: Float[Array, "cells kinds"]


def elites_start(size: int, edges: Sequence[Any]) -> Elites:
    """An empty archive.

    Args:
      size: Length of a genome.
      edges: Per descriptor the edges of its cells, rising and finite; unequal ones (powers of two) are fine.

    Returns:
      An archive for `elites_add`.

    Raises:
      ValueError: If there is no descriptor, or its edges are not at least two rising finite numbers.

    >>> elites_start(3, [[0.0, 1.0, 2.0], [0.0, 10.0]]).fitness
    Array([inf, inf], dtype=float32)
    """
    real = jnp.result_type(float)
    arrays = [np.asarray(ends, real) for ends in edges]  # edges that differ in float64 alone are one
    if not arrays:
        raise ValueError("An archive needs the edges of at least one descriptor.")
    for number, ends in enumerate(arrays):
        if ends.ndim != 1 or len(ends) < 2 or not np.all(np.isfinite(ends)) or not np.all(np.diff(ends) > 0):
            raise ValueError(f"The edges of descriptor {number} are {ends}: give at least two rising finite numbers.")
    cells = int(np.prod([len(ends) - 1 for ends in arrays]))
    return Elites(
        tuple(jnp.asarray(ends, real) for ends in arrays),
        jnp.full((cells, size), jnp.nan, real),
        jnp.full((cells,), jnp.inf, real),
        jnp.full((cells, len(arrays)), jnp.nan, real),
    )


@jax.jit
def elites_add(
    elites: Elites,
    genomes: Float[Array, "members size"],
    fitness: Float[Array, " members"],
    descriptors: Float[Array, "members kinds"],
) -> Elites:
    """Adds a batch.

    Args:
      elites: From `elites_start` or before.
      genomes: Candidates.
      fitness: Smaller is better.
      descriptors: What each candidate is like, one column per descriptor; a number on an edge is in the cell above it,
        on the last edge in the cell below.

    Returns:
      The new archive.

    Raises:
      ValueError: If the batch does not fit the archive.

    >>> archive = elites_start(1, [[0.0, 1.0, 2.0]])
    >>> genomes, kinds = jnp.array([[1.0], [2.0], [3.0]]), jnp.array([[0.5], [0.6], [1.5]])
    >>> archive = elites_add(archive, genomes, jnp.array([5.0, 4.0, jnp.nan]), kinds)
    >>> archive.fitness, archive.genomes[0]
    (Array([ 4., inf], dtype=float32), Array([2.], dtype=float32))
    """
    count, cells = fitness.shape[0] if fitness.ndim else 0, len(elites.fitness)
    shapes = genomes.shape, fitness.shape, descriptors.shape
    wanted = (count, elites.genomes.shape[1]), (count,), (count, len(elites.edges))
    if shapes != wanted:  # an index beyond the last column would read the last
        raise ValueError(
            f"The batch has genomes {shapes[0]}, fitness {shapes[1]} and descriptors {shapes[2]}: to this archive "
            f"{wanted[0]}, {wanted[1]} and {wanted[2]} can be added."
        )
    if not count:
        return elites
    cell, able = jnp.zeros(count, jnp.int32), jnp.isfinite(fitness) & (fitness < FAILED)
    able &= jnp.all(jnp.isfinite(genomes), axis=1)
    for kind, ends in enumerate(elites.edges):
        value = descriptors[:, kind]
        able &= (value >= ends[0]) & (value <= ends[-1])
        place = jnp.searchsorted(ends, value, side="right") - 1
        cell = cell * (len(ends) - 1) + jnp.clip(place, 0, len(ends) - 2).astype(jnp.int32)
    cell = jnp.where(able, cell, cells)  # one cell beyond, for what must not enter
    values = jnp.where(able, fitness, jnp.inf)
    best = jax.ops.segment_min(values, cell, cells + 1)
    number = jnp.where(values == best[cell], jnp.arange(count), count)
    first = jnp.clip(jax.ops.segment_min(number, cell, cells + 1)[:cells], 0, count - 1)
    better = best[:cells] < elites.fitness
    return Elites(
        elites.edges,
        jnp.where(better[:, None], genomes[first], elites.genomes),
        jnp.where(better, best[:cells], elites.fitness),
        jnp.where(better[:, None], descriptors[first], elites.descriptors),
    )
