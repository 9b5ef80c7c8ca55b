"""Structured sparsity: whole groups of entries live or die together.

    S = {z : at most keep groups g have z_g != 0},    project keeps the groups of largest ||x_g||_2

The score is the true l2 norm, which makes the projection exact: the squared distance is the energy removed.  Layouts
are Flax's: convolution kernels (kh, kw, in, out), dense kernels (in, out).

`keep` left out means all groups.  Such a set holds every tensor; it names a way of grouping, for penalties that find
out themselves how many groups to keep (`compressjax.training.group_lasso`).

Sources: Wen, Wu, Wang, Chen, Li, "Learning Structured Sparsity in Deep Neural Networks", NeurIPS 2016 (arXiv
1608.03665), and Zhang et al., "StructADMM" (arXiv 1807.11091).
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from compressjax.projections._select import budget, check_keep, scale_of, top_mask


class Groups:
    """Common to all sets of groups: the array is reshaped so that each group spans some axes of it.

    >>> isinstance(Filters(), Groups), Filters().contains(jnp.ones((3, 2)))
    (True, Array(True, dtype=bool))
    """

    keep: int | float  # declared only: each set says where the field stands in its constructor

    def _split(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The reshaped shape and the axes of it that lie within one group."""
        raise TypeError("abstract")  # pragma: no cover

    def groups(self, shape: tuple[int, ...]) -> int:
        """How many groups a tensor of this shape has.

        >>> Filters(1).groups((3, 3, 16, 32)), Columns(1).groups((3, 3, 16, 32))
        (32, 144)
        """
        split, within = self._split(shape)
        total = 1
        for axis, length in enumerate(split):
            total *= 1 if axis in within else length
        return total

    def count(self, shape: tuple[int, ...]) -> int:
        """How many groups of a tensor of this shape are kept."""
        return budget(self.keep, self.groups(shape), f"groups of {self} on shape {shape}")

    def energies(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Squared l2 norm of every group, float32 or wider; axes within a group have length 1.

        >>> Filters().energies(jnp.array([[1.0, 3.0], [2.0, 0.0]]))
        Array([[5., 9.]], dtype=float32)
        """
        split, within = self._split(x.shape)
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32)).reshape(split)
        return jnp.sum(jnp.square(wide), axis=within, keepdims=True)

    def spread(self, values: Shaped[Array, "..."], shape: tuple[int, ...]) -> Shaped[Array, "..."]:
        """One number per group, laid out as `energies` does, on every entry of its group.

        >>> Filters().spread(jnp.array([[5.0, 9.0]]), (2, 2))
        Array([[5., 9.],
               [5., 9.]], dtype=float32)
        """
        split, _ = self._split(shape)
        return jnp.broadcast_to(values, split).reshape(shape)

    def support(self, x: Float[Array, "..."]) -> Bool[Array, "..."]:
        """All entries of the kept groups."""
        split, within = self._split(x.shape)
        chosen = top_mask(_energy(x.reshape(split), within), self.count(x.shape))
        return jnp.broadcast_to(chosen, split).reshape(x.shape)

    def project(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """`x` on its support, exact zero elsewhere; shape and dtype stay."""
        return jnp.where(self.support(x), x, jnp.zeros_like(x))

    def contains(self, x: Float[Array, "..."]) -> Bool[Array, ""]:
        """Whether at most `keep` groups have a non-zero entry."""
        split, within = self._split(x.shape)
        alive = jnp.any(x.reshape(split) != 0, axis=within)
        return jnp.sum(alive, dtype=jnp.int32) <= self.count(x.shape)


@partial(jax.jit, static_argnames="within")
def _energy(x: Float[Array, "..."], within: tuple[int, ...]) -> Float[Array, "..."]:
    """Squared l2 norms up to a common factor, with reduced axes kept; positive exactly where the group is not zero."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    energy = jnp.sum(jnp.square(wide / scale_of(wide)), axis=within, keepdims=True)
    # A tiny group must still win over an all-zero one, or a member of the set would not project to itself.
    alive = jnp.any(x != 0, axis=within, keepdims=True)
    return jnp.where(alive, jnp.maximum(energy, jnp.finfo(wide.dtype).tiny), energy)


def at_least(rank: int, shape: tuple[int, ...], name: str) -> None:
    """Raises `ValueError` for a tensor of fewer dimensions."""
    if len(shape) < rank:
        raise ValueError(f"{name} needs at least {rank} dimensions, not shape {shape}: assign it to kernels only.")


@dataclass(frozen=True)
class _Slices(Groups):
    """Groups that `keep` alone describes."""

    keep: int | float = 1.0

    def __post_init__(self) -> None:
        check_keep(self.keep)


@dataclass(frozen=True)
class Filters(_Slices):
    """At most `keep` filters: slices along the last axis, each with all weights of one output unit.

    Args:
      keep: A count or a fraction of the outputs.

    Raises:
      ValueError: If `keep` is invalid or exceeds the outputs, or the tensor has fewer than 2 dimensions.

    >>> Filters(1).project(jnp.array([[1.0, 3.0], [2.0, 0.0]]))
    Array([[0., 3.],
           [0., 0.]], dtype=float32)
    """

    def _split(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        at_least(2, shape, "Filters")
        return shape, tuple(range(len(shape) - 1))


@dataclass(frozen=True)
class Channels(_Slices):
    """At most `keep` input channels: slices along the axis before the last, each with all weights of one input.

    Args:
      keep: A count or a fraction of the inputs.

    Raises:
      ValueError: If `keep` is invalid or exceeds the inputs, or the tensor has fewer than 2 dimensions.

    >>> Channels(1).project(jnp.array([[1.0, 3.0], [2.0, 0.0]]))
    Array([[1., 3.],
           [0., 0.]], dtype=float32)
    """

    def _split(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        at_least(2, shape, "Channels")
        return shape, tuple(axis for axis in range(len(shape)) if axis != len(shape) - 2)


@dataclass(frozen=True)
class Columns(_Slices):
    """At most `keep` columns (filter shapes): one position (kh, kw, in) across all filters.

    On a dense kernel a column is one input, as for `Channels`.

    Args:
      keep: A count or a fraction of the positions.

    Raises:
      ValueError: If `keep` is invalid or exceeds the positions, or the tensor has fewer than 2 dimensions.

    >>> Columns(0.1).count((5, 5, 20, 50))
    50
    """

    def _split(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        at_least(2, shape, "Columns")
        return shape, (len(shape) - 1,)
