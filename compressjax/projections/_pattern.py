"""Kernel patterns: every 3x3 kernel keeps its weights at the positions of one pattern of a small dictionary.

    S = {z : each kernel z[:, :, i, o] is zero outside some pattern p},
    project keeps, per kernel, the pattern p that maximises sum over p of x^2

Source: Ma et al., "PCONV: The Missing but Desirable Sparsity in DNN Weight Pruning for Real-Time Execution on Mobile
Devices", AAAI 2020 (arXiv 1909.05073); Niu et al., "PatDNN", ASPLOS 2020 (arXiv 2001.00138).
"""

from dataclasses import dataclass
from itertools import combinations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

# Positions count row by row, 4 is the centre.  The 2x2 corners and the four T shapes around the centre.
_CORNERS_AND_TS = (
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (3, 4, 6, 7),
    (4, 5, 7, 8),
    (1, 3, 4, 5),
    (1, 3, 4, 7),
    (1, 4, 5, 7),
    (3, 4, 5, 7),
)


@dataclass(frozen=True)
class Pattern:
    """Every 3x3 kernel keeps at most `entries` weights, at the positions of one dictionary pattern.

    Args:
      entries: Weights kept per kernel, 1 to 9.
      patterns: The dictionary: tuples of `entries` positions 0 to 8, counted row by row.  By default, for 4 entries,
        the four 2x2 corners and the four T shapes; otherwise all patterns with the centre.

    Raises:
      ValueError: If the settings are invalid, or the tensor is no kernel of shape (3, 3, in, out).

    >>> kernel = jnp.arange(9.0).reshape(3, 3, 1, 1)
    >>> Pattern().project(kernel)[:, :, 0, 0]
    Array([[0., 0., 0.],
           [0., 4., 5.],
           [0., 7., 8.]], dtype=float32)
    """

    entries: int = 4
    patterns: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.entries <= 9:
            raise ValueError(f"Pattern: entries={self.entries} must lie between 1 and the 9 positions of a 3x3 kernel.")
        if self.patterns is not None and not self.patterns:
            raise ValueError("Pattern: the dictionary is empty: give at least one pattern.")
        for pattern in self.patterns or ():
            if len(set(pattern)) != self.entries or len(pattern) != self.entries or not set(pattern) <= set(range(9)):
                raise ValueError(f"Pattern: {pattern} is not {self.entries} distinct positions between 0 and 8.")

    def dictionary(self) -> tuple[tuple[int, ...], ...]:
        """The patterns in use, in the order that breaks ties.

        >>> len(Pattern().dictionary()), len(Pattern(entries=5).dictionary())
        (8, 70)
        """
        if self.patterns is not None:
            return self.patterns
        if self.entries == 4:
            return _CORNERS_AND_TS
        around = [position for position in range(9) if position != 4]
        return tuple(tuple(sorted((4, *rest))) for rest in combinations(around, self.entries - 1))

    def choose(self, x: Float[Array, "kh kw in out"]) -> Array:
        """The index of the pattern each kernel keeps, int32 of shape (in, out); ties go to the earlier pattern."""
        flat = self._flat(x)
        wide = flat.astype(jnp.promote_types(flat.dtype, jnp.float32))
        finite = jnp.isfinite(wide)
        wide = jnp.where(finite, wide, jnp.zeros_like(wide))
        top = jnp.max(jnp.abs(wide), axis=0, keepdims=True)
        # A broken weight outweighs all others of its kernel, so that it stays visible.
        energy = jnp.where(finite, jnp.square(wide / jnp.where(top > 0, top, jnp.ones_like(top))), 16.0)
        score = jnp.einsum("pk,kio->pio", jnp.asarray(self._table(), wide.dtype), energy, precision="highest")
        # A pattern that loses nothing wins whatever underflowed in the squares: members project to themselves.
        score = jnp.where(self._covers(flat), jnp.inf, score)
        return jnp.argmax(score, axis=0).astype(jnp.int32)

    def support(self, x: Float[Array, "kh kw in out"]) -> Bool[Array, "kh kw in out"]:
        """The positions of each kernel's chosen pattern, exactly `entries` per kernel."""
        chosen = jnp.asarray(self._table())[self.choose(x)]
        return jnp.moveaxis(chosen, -1, 0).reshape(x.shape)

    def project(self, x: Float[Array, "kh kw in out"]) -> Float[Array, "kh kw in out"]:
        """`x` on its support, exact zero elsewhere; shape and dtype stay."""
        return jnp.where(self.support(x), x, jnp.zeros_like(x))

    def contains(self, x: Float[Array, "kh kw in out"]) -> Bool[Array, ""]:
        """Whether the non-zeros of every kernel lie within some pattern."""
        return jnp.all(jnp.any(self._covers(self._flat(x)), axis=0))

    def _table(self) -> np.ndarray:
        """Boolean (patterns, 9)."""
        table = np.zeros((len(self.dictionary()), 9), bool)
        for row, pattern in enumerate(self.dictionary()):
            table[row, list(pattern)] = True
        return table

    def _flat(self, x: Array) -> Array:
        if x.ndim != 4 or x.shape[:2] != (3, 3):
            raise ValueError(f"Pattern needs kernels of shape (3, 3, in, out), not {x.shape}: exempt the leaf.")
        return x.reshape(9, *x.shape[2:])

    def _covers(self, flat: Array) -> Array:
        """Boolean (patterns, in, out): whether a pattern holds all non-zeros of a kernel."""
        # Counted as a product, which keeps memory at patterns x kernels.
        outside = jnp.asarray(~self._table(), jnp.float32)
        return jnp.einsum("pk,kio->pio", outside, (flat != 0).astype(jnp.float32)) == 0
