"""Weights as they leave vector memory: from codes, scales and places to float32 tiles.

The vector unit of older generations knows 32-bit numbers only, so codes are widened first.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

# Levels are compared one by one: a table in registers cannot be indexed.
LEVELS = 16


def levels(codes: jax.Array, bits: int, codebook: Any) -> list[jax.Array]:
    """Codes [rows, N] -> what they stand for, before the scale: one float32 tile, or the two halves of 4 bits.

    Args:
      codes: int8, as in `Quantized`.
      bits: 4 or 8.
      codebook: A reference to float32 scalars [levels], or None.
    """
    wide = codes.astype(jnp.int32)
    if codebook is None:
        # Shifting left, then right, extends the sign of the low nibble.
        tiles = [wide] if bits == 8 else [(wide << 28) >> 28, wide >> 4]
        return [tile.astype(jnp.float32) for tile in tiles]
    tiles = [wide & 255] if bits == 8 else [wide & 15, (wide >> 4) & 15]
    return [_look_up(tile, codebook) for tile in tiles]


def scaled(tile: jax.Array, scale: jax.Array) -> jax.Array:
    """[rows, N] times [groups, N], each scale for rows / groups rows that follow one another."""
    groups, size = scale.shape[0], tile.shape[0] // scale.shape[0]
    wide = scale.astype(jnp.float32)
    parts = [tile[i * size : (i + 1) * size] * wide[i : i + 1] for i in range(groups)]
    return parts[0] if groups == 1 else jnp.concatenate(parts, 0)


def planes(values: jax.Array, indices: jax.Array, m: int) -> list[jax.Array]:
    """N:M values and places [n, groups, N] -> the m dense tiles of the first, second ... input of every group."""
    pairs = [(v.astype(jnp.float32), i.astype(jnp.int32)) for v, i in zip(values, indices, strict=True)]
    return [functools.reduce(jnp.add, (jnp.where(i == j, v, 0.0) for v, i in pairs)) for j in range(m)]


def _look_up(codes: jax.Array, codebook: Any) -> jax.Array:
    out = jnp.zeros(codes.shape, jnp.float32)
    for level in range(codebook.shape[0]):
        out = jnp.where(codes == level, codebook[level], out)
    return out
