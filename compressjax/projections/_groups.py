"""Structured sparsity: whole groups of entries live or die together.

    S = {z : at most keep groups g have z_g != 0},    project keeps the groups of largest ||x_g||_2

The score is the true l2 norm, which makes the projection exact: the squared distance is the energy removed.  Layouts
are Flax's: convolution kernels (kh, kw, in, out), dense kernels (in, out).

Sources: filters, channels and columns (filter shapes): Wen, Wu, Wang, Chen, Li, "Learning Structured Sparsity in Deep
Neural Networks", NeurIPS 2016 (arXiv 1608.03665), and Zhang et al., "StructADMM" (arXiv 1807.11091).  Block-punched:
Cai et al., "YOLObile", AAAI 2021 (arXiv 2009.05697); its code scores a group by a sum of norms over channels, which is
not the Euclidean projection, so it is not used here.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from compressjax.projections._select import budget, check_keep, scale_of, top_mask


class _Groups:
    """Common to all: the array is reshaped so that each group spans some axes of it."""

    keep: int | float  # declared only: each set says where the field stands in its constructor

    def _split(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The reshaped shape and the axes of it that lie within one group."""
        raise TypeError("abstract")  # pragma: no cover

    def groups(self, shape: tuple[int, ...]) -> int:
        """How many groups a tensor of this shape has.

        >>> Filters(1).groups((3, 3, 16, 32)), BlockPunched((4, 8), 1).groups((3, 3, 16, 32))
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


def _at_least(rank: int, shape: tuple[int, ...], name: str) -> None:
    if len(shape) < rank:
        raise ValueError(f"{name} needs at least {rank} dimensions, not shape {shape}: assign it to kernels only.")


def _check_block(block: tuple[int, int]) -> None:
    if len(block) != 2 or any(isinstance(b, bool) or not isinstance(b, int) or b < 1 for b in block):
        raise ValueError(f"block={block} must be two positive ints, (inputs, outputs).")


def _divides(block: tuple[int, int], shape: tuple[int, ...], name: str) -> None:
    for size, length, what in zip(block, shape[-2:], ("inputs", "outputs"), strict=True):
        if length % size:
            raise ValueError(
                f"{name}: a block of {size} {what} does not divide the {length} {what} of shape {shape}: "
                "choose a divisor or exempt the leaf."
            )


@dataclass(frozen=True)
class _Slices(_Groups):
    """Groups that `keep` alone describes."""

    keep: int | float

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
        _at_least(2, shape, "Filters")
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
        _at_least(2, shape, "Channels")
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
        _at_least(2, shape, "Columns")
        return shape, (len(shape) - 1,)


@dataclass(frozen=True)
class Block(_Groups):
    """At most `keep` tiles of `block` = (inputs, outputs) entries of a matrix.

    Args:
      block: Tile size; must divide the matrix.
      keep: A count or a fraction of the tiles, over the whole matrix.

    Raises:
      ValueError: If the settings are invalid, the tensor is no matrix or the block does not divide it.

    >>> Block((1, 2), 1).project(jnp.array([[1.0, 1.0, 0.0, 2.0]]))
    Array([[0., 0., 0., 2.]], dtype=float32)
    """

    block: tuple[int, int]
    keep: int | float

    def __post_init__(self) -> None:
        _check_block(self.block)
        check_keep(self.keep)

    def _split(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if len(shape) != 2:
            raise ValueError(f"Block needs a matrix (in, out), not shape {shape}: use BlockPunched for convolutions.")
        _divides(self.block, shape, "Block")
        rows, columns = self.block
        return (shape[0] // rows, rows, shape[1] // columns, columns), (1, 3)


@dataclass(frozen=True)
class BlockPunched(_Groups):
    """Kernels are tiled into blocks of (inputs, outputs); inside a block all kernels keep the same positions.

    On a convolution kernel (kh, kw, in, out) a group is one pair of a block and a kernel position (kh, kw), that is
    b_in x b_out weights.  On a matrix (in, out), where kernels have one position, it is block-row pruning: a group is
    one pair of a block and an input of it, that is 1 x b_out weights; b_in then only has to divide the inputs.  In both
    cases `keep` counts groups of the whole layer, so blocks compete with each other.

    Args:
      block: Block size in kernels, (inputs, outputs); must divide the layer.
      keep: A count or a fraction of the groups.

    Raises:
      ValueError: If the settings are invalid, the tensor has neither 2 nor 4 dimensions or the block does not divide
        it.

    >>> mask = BlockPunched((1, 2), 3).support(jnp.arange(18.0).reshape(3, 3, 1, 2))
    >>> mask[..., 0, 0].astype(int).tolist(), bool((mask[..., 0] == mask[..., 1]).all())
    ([[0, 0, 0], [0, 0, 0], [1, 1, 1]], True)
    """

    block: tuple[int, int]
    keep: int | float

    def __post_init__(self) -> None:
        _check_block(self.block)
        check_keep(self.keep)

    def _split(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if len(shape) not in (2, 4):
            raise ValueError(f"BlockPunched needs a kernel (kh, kw, in, out) or (in, out), not shape {shape}.")
        _divides(self.block, shape, "BlockPunched")
        rows, columns = self.block
        if len(shape) == 2:
            return (shape[0], shape[1] // columns, columns), (2,)
        return (*shape[:2], shape[2] // rows, rows, shape[3] // columns, columns), (3, 5)
