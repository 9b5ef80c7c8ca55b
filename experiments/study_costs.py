"""What the networks of `experiments.storage_study` cost on paper, and the advantage that single weights would need.

At b bits a structured network of ratio R_s takes S bits.  Single weights with a codec take U(R) bits at ratio R, which
fall as R rises.  They are level at the R with U(R) = S: R / R_s is the *required advantage*.  Where the advantage that
training reaches at equal accuracy is smaller, structure is cheaper to store.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from compressjax import masks, projections, trees
from compressjax.storage import bits as formulas
from experiments.study_config import kernels

CODECS = ("bitmap", "relative", "csr", "entropy")
GRID = tuple(float(ratio) for ratio in np.geomspace(1.25, 2000.0, 48))


def formats(params: Any, rules: Mapping[str, projections.Constraint], bits: int) -> dict[str, float]:
    """Bits of all kernels by every codec, "native" included where the kinds of sparsity have a format of their own.

    Args:
      params: A pruned network.
      rules: The sets that its kernels lie in, by path; kernels without one are dense.
      bits: Per value.

    Returns:
      Codec -> bits, values included, biases not.
    """
    leaves = {path: np.asarray(leaf) for path, leaf in trees.leaves(params).items() if path.endswith("kernel")}
    each = [_leaf(leaf, rules.get(path), bits) for path, leaf in leaves.items()]
    return {codec: float(sum(found[codec] for found in each)) for codec in (*CODECS, "native")}


def _leaf(leaf: np.ndarray, rule: projections.Constraint | None, bits: int) -> dict[str, int | float]:
    found = formulas.compare_formats(leaf != 0, bits)
    return {**found, "native": min(found.values()) if rule is None else native(leaf, rule, bits)}


def native(leaf: np.ndarray, rule: projections.Constraint, bits: int) -> float:
    """Bits of a layer in the format made for its set; for single weights the smallest of all codecs.

    >>> native(np.tile([[1.0, 0.0], [0.0, 0.0]], (4, 3)), projections.Submatrix(3, 4), 8)
    110
    """
    alive = leaf != 0
    match rule:
        case projections.NM():
            return formulas.nm(int(alive.sum()), rule.m, bits)
        case projections.BlockPunched():
            groups = int((np.asarray(rule.energies(jnp.asarray(leaf))) > 0).sum())
            size = leaf.size // rule.groups(leaf.shape)
            return formulas.block_punched(groups * size, 1, rule.groups(leaf.shape), bits)
        case projections.Submatrix():
            matrix = alive.reshape(-1, leaf.shape[-1])
            columns, filters = (int(matrix.any(axis).sum()) for axis in (1, 0))
            return formulas.structured(len(matrix), leaf.shape[-1], columns, filters, bits)
    return min(formulas.compare_formats(alive, bits).values())


def single_weights(params: Any, widths: Sequence[int]) -> dict[int, dict[str, list[float]]]:
    """Bits of the dense network pruned by magnitude to every ratio of `GRID`, with the allocation of the study.

    Sizes depend on how many weights stay in each layer, and hardly on which: no training is needed for them.

    Returns:
      Bits per value -> codec -> bits per ratio of the grid.
    """
    leaves = {path: np.asarray(leaf) for path, leaf in trees.leaves(params).items() if path.endswith("kernel")}
    shapes = kernels(trees.shapes(params))
    order = {path: np.argsort(-np.abs(leaf), axis=None, kind="stable") for path, leaf in leaves.items()}
    out: dict[int, dict[str, list[float]]] = {width: {codec: [] for codec in CODECS} for width in widths}
    for ratio in GRID:
        kept = {}
        for path, count in masks.erk(shapes, 1 / ratio).items():
            flat = np.zeros(leaves[path].size, bool)
            flat[order[path][:count]] = True
            kept[path] = flat.reshape(shapes[path])
        for width in widths:
            each = [formulas.compare_formats(mask, width) for mask in kept.values()]
            for codec in CODECS:
                out[width][codec].append(float(sum(found[codec] for found in each)))
    return out


def level(sizes: Sequence[float], wanted: float) -> float | None:
    """The ratio of `GRID` at which sizes have fallen to `wanted`, interpolated; None if they never do.

    >>> round(level([2e6 / ratio for ratio in GRID], 1e5), 3)
    20.0
    >>> level([1e6] * len(GRID), 1e5) is None
    True
    """
    if sizes[0] <= wanted:
        return 1.0
    for (r0, s0), (r1, s1) in zip(zip(GRID, sizes, strict=True), zip(GRID[1:], sizes[1:], strict=True), strict=False):
        if s1 <= wanted < s0:
            share = math.log(s0 / wanted) / math.log(s0 / s1)
            return math.exp(math.log(r0) + share * math.log(r1 / r0))
    return None


def required(
    sizes: Mapping[int, Mapping[str, Sequence[float]]], structured: Mapping[int, float], ratio: float
) -> dict[str, dict[int, float | None]]:
    """The required advantage: codec -> bits per value -> level ratio over `ratio`.

    Args:
      sizes: From `single_weights`.
      structured: Bits per value -> bits of the structured network.
      ratio: Of the structured network.
    """
    out: dict[str, dict[int, float | None]] = {}
    for codec in CODECS:
        found = {width: level(sizes[width][codec], bits) for width, bits in structured.items()}
        out[codec] = {width: None if at is None else at / ratio for width, at in found.items()}
    return out
