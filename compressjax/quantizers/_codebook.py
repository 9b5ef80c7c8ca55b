"""Free levels: the best 2^bits values, found by one-dimensional k-means.

    S = {z : the non-zero z_i take at most 2^bits distinct values}

The nearest point assigns each entry to the nearest of k centroids that minimise sum (x_i - c(i))^2.  In one dimension
clusters are intervals of the sorted values, so dynamic programming finds the global optimum in O(k n^2).  That is done
on the entries themselves up to 512 of them, and otherwise on 512 cells (fine where the density to the power 1/3 is
large, as the optimal quantizer is), followed by Lloyd's iteration on 65,536 bins and once on all entries.  There is no
random start.

Source: Han, Mao, Dally, "Deep Compression", ICLR 2016 (arXiv 1510.00149); dynamic programming: Wang, Song,
"Ckmeans.1d.dp", The R Journal 3(2), 2011; density rule: Panter, Dite, Proc. IRE 39(1), 1951.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from compressjax.quantizers._base import LevelSet, check_bits, distinct, histogram, rounded, unit

_CELLS = 512


@dataclass(frozen=True)
class Codebook(LevelSet):
    """Non-zero entries take at most 2^bits distinct values.

    Up to 512 entries the projection is exact (to float32 rounding); larger tensors get a near-optimal codebook (a fixed
    point of Lloyd's iteration up to histogram resolution, started from the dynamic programme on 512 cells).

    Args:
      bits: Bits per non-zero weight, 1 to 8.

    Raises:
      ValueError: If `bits` is out of range.

    >>> Codebook(1).project(jnp.array([1.0, 3.0, 0.0, -4.0, -6.0]))
    Array([ 2.,  2.,  0., -5., -5.], dtype=float32)
    """

    bits: int

    def __post_init__(self) -> None:
        check_bits(self.bits)

    def fit(self, x: Float[Array, "..."]) -> Float[Array, "levels"]:
        """The 2^bits centroids, sorted; a tensor with fewer distinct non-zeros has its largest value repeated."""
        clusters = 1 << self.bits
        exact, member = distinct(x, clusters)
        value, unit_ = unit(x.reshape(-1))
        if value.size <= _CELLS:
            value = jnp.sort(value)
            levels = _optimum((value != 0).astype(value.dtype), value, clusters)
        else:
            levels = _lloyd(value, _coarse(value, clusters))
        levels = rounded(levels * unit_, x.dtype)
        # A centroid at exactly zero would prune its cluster: move it to the smallest normal number.
        levels = jnp.where(levels == 0, jnp.finfo(x.dtype).tiny, levels)
        return jnp.where(member, exact, jnp.sort(levels))

    def contains(self, x: Float[Array, "..."]) -> Bool[Array, ""]:
        """Whether the non-zeros take at most 2^bits distinct values."""
        return distinct(x, 1 << self.bits)[1]


@partial(jax.jit, static_argnames="clusters")
def _optimum(count: Float[Array, "cells"], total: Float[Array, "cells"], clusters: int) -> Float[Array, "clusters"]:
    """The best split of sorted cells into intervals, maximising sum over intervals of total^2 / count.

    Surplus clusters repeat the last centroid.
    """
    zero = jnp.zeros(1, total.dtype)
    n = jnp.concatenate([zero, jnp.cumsum(count)])
    s = jnp.concatenate([zero, jnp.cumsum(total)])
    # gain[i, j]: cells i .. j-1 as one cluster.
    n_ij, s_ij = n[None, :] - n[:, None], s[None, :] - s[:, None]
    gain = jnp.where(n_ij > 0, s_ij * (s_ij / jnp.where(n_ij > 0, n_ij, 1)), 0)
    ends = jnp.arange(n.size)
    gain = jnp.where(ends[:, None] <= ends[None, :], gain, -jnp.inf)

    def extend(value: Array, _: None) -> tuple[Array, Array]:
        sums = value[:, None] + gain
        return jnp.max(sums, axis=0), jnp.argmax(sums, axis=0)

    _, cuts = lax.scan(extend, gain[0], None, length=clusters - 1)

    def back(end: Array, cut: Array) -> tuple[Array, tuple[Array, Array]]:
        return cut[end], (cut[end], end)

    first, (begin, end) = lax.scan(back, jnp.int32(n.size - 1), cuts.astype(jnp.int32), reverse=True)
    begin = jnp.concatenate([jnp.zeros(1, jnp.int32), begin])
    end = jnp.concatenate([first[None], end])
    size = n[end] - n[begin]
    mean = (s[end] - s[begin]) / jnp.where(size > 0, size, 1)
    # Empty clusters take the largest centroid, or 1 when all entries are zero.
    top = jnp.max(jnp.where(size > 0, mean, -jnp.inf))
    filler = jnp.where(jnp.isfinite(top), top, jnp.ones_like(top))
    return jnp.sort(jnp.where(size > 0, mean, filler))


@partial(jax.jit, static_argnames="clusters")
def _coarse(value: Float[Array, "n"], clusters: int) -> Float[Array, "clusters"]:
    """Levels of a large tensor from its histogram: dynamic programme on cells, then Lloyd on the bins."""
    count, total = histogram(value)
    weight = count.astype(jnp.float32)
    mean = jnp.where(count > 0, total / jnp.maximum(weight, 1), 0.0)
    # A bin's share of cells: width^(2/3) count^(1/3); its width grows as its distance from zero.
    share = jnp.cbrt(jnp.square(jnp.abs(mean)) * weight)
    place = jnp.cumsum(share)
    cell = jnp.clip(place / jnp.maximum(place[-1], jnp.finfo(jnp.float32).tiny) * _CELLS, 0, _CELLS - 1)
    cell = cell.astype(jnp.int32)
    levels = _optimum(
        jax.ops.segment_sum(weight, cell, num_segments=_CELLS),
        jax.ops.segment_sum(total, cell, num_segments=_CELLS),
        clusters,
    )
    return lax.fori_loop(0, 8, lambda _, levels: _means(mean, weight, total, levels), levels).astype(value.dtype)


@jax.jit
def _lloyd(value: Float[Array, "n"], levels: Float[Array, "clusters"]) -> Float[Array, "clusters"]:
    """One Lloyd step on all entries."""
    return _means(value, (value != 0).astype(value.dtype), value, levels)


def _means(
    value: Float[Array, "n"], weight: Float[Array, "n"], total: Float[Array, "n"], levels: Float[Array, "clusters"]
) -> Float[Array, "clusters"]:
    """Centroids of the entries nearest to each level; an empty cluster keeps its level."""
    border = levels[1:] / 2 + levels[:-1] / 2
    index = jnp.searchsorted(border, value)
    n = jax.ops.segment_sum(weight, index, num_segments=levels.size)
    s = jax.ops.segment_sum(total, index, num_segments=levels.size)
    return jnp.where(n > 0, s / jnp.maximum(n, 1), levels)
