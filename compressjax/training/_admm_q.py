r"""ADMM-Q: how far Z follows the projection at a refresh of `admm`.

Level sets are discrete: the projection jumps, and ADMM settles wherever it no longer does.  With V = W + U and P the
projection, Z' = P(V) is ADMM itself (ADMM-Q), and two variants leave poor points more easily::

    soft      Z' = V + min(1, strength / (rho ||V - P(V)||)) (P(V) - V)      norm over the leaf
    random    Z' = P(V) where a coin of probability `share` says so, else the old Z

The soft one is the proximal step of ``strength`` times the *distance* to the set: Z is not feasible until the weights
are near.  The source's unscaled multiplier is rho U.

Source: Huang, Singhania, Sanjabi, Mitra, Razaviyayn, "Alternating Direction Method of Multipliers for Quantization",
AISTATS 2021 (arXiv 2009.03482).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Leaves = Mapping[str, Float[Array, "..."]]


@runtime_checkable
class Approach(Protocol):
    """A rule for Z at a refresh, on leaf dictionaries."""

    def __call__(
        self,
        point: Leaves,
        projected: Leaves,
        previous: Leaves,
        rho: Mapping[str, Float[Array, ""]],
        count: Int[Array, ""],
    ) -> dict[str, Float[Array, "..."]]:
        """V, P(V), the old Z, the penalty by path and the step count -> the new Z."""
        ...


@dataclass(frozen=True)
class SoftProjection:
    """Goes towards the projection by a bounded distance (ADMM-S).

    Args:
      strength: beta, positive: Z moves by beta / rho at most, per leaf.

    Raises:
      ValueError: If `strength` is not positive.

    >>> soft = SoftProjection(0.5)
    >>> v, z = {"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([0.0, 0.0])}
    >>> soft(v, z, z, {"w": jnp.float32(0.2)}, jnp.int32(1))["w"]
    Array([1.5, 2. ], dtype=float32)
    """

    strength: float

    def __post_init__(self) -> None:
        if not self.strength > 0.0:
            raise ValueError(f"SoftProjection: strength={self.strength} must be positive.")

    def __call__(
        self,
        point: Leaves,
        projected: Leaves,
        previous: Leaves,
        rho: Mapping[str, Float[Array, ""]],
        count: Int[Array, ""],
    ) -> dict[str, Float[Array, "..."]]:
        """The point moved towards its projection."""
        return {path: self._move(point[path], projected[path], rho[path]) for path in point}

    def _move(
        self, point: Float[Array, "..."], projected: Float[Array, "..."], rho: Float[Array, ""]
    ) -> Float[Array, "..."]:
        pull = rho * jnp.sqrt(jnp.sum(jnp.square((projected - point).astype(jnp.float32))))
        share = self.strength / jnp.where(pull == 0.0, 1.0, pull)
        moved = point + share.astype(point.dtype) * (projected - point)
        return jnp.where(pull <= self.strength, projected, moved)


@dataclass(frozen=True)
class RandomProjection:
    """Refreshes a random share of Z and leaves the rest (ADMM-R).

    Args:
      share: Probability with which an entry is projected, in (0, 1].
      seed: Of the coins, which follow from it, the step count and the leaf: a resumed run draws the same.

    Raises:
      ValueError: If `share` is not a probability above 0.

    >>> v, z = {"w": jnp.full(8, 0.9)}, {"w": jnp.zeros(8)}
    >>> RandomProjection(0.5)(v, {"w": jnp.ones(8)}, z, {"w": jnp.float32(1)}, jnp.int32(32))["w"].sum() < 8
    Array(True, dtype=bool)
    """

    share: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.share <= 1.0:
            raise ValueError(f"RandomProjection: share={self.share} must lie in (0, 1].")

    def __call__(
        self,
        point: Leaves,
        projected: Leaves,
        previous: Leaves,
        rho: Mapping[str, Float[Array, ""]],
        count: Int[Array, ""],
    ) -> dict[str, Float[Array, "..."]]:
        """The projection where the coin says so, else the old Z."""
        step = jax.random.fold_in(jax.random.key(self.seed), count)
        out = {}
        for index, (path, target) in enumerate(projected.items()):
            coins = jax.random.bernoulli(jax.random.fold_in(step, index), self.share, target.shape)
            out[path] = jnp.where(coins, target, previous[path])
        return out
