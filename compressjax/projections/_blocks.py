"""Structured sparsity in blocks: between single weights and whole filters.

    S = {z : at most keep groups g have z_g != 0},    project keeps the groups of largest ||x_g||_2

A group is a tile of a matrix (`Block`), one position of all kernels of a block (`BlockPunched`), or a row or a column
of a block (`BlockRows`, `BlockColumns`).  Groups of the whole layer compete, so that each block gets its own rate.

Sources: block-punched: Cai et al., "YOLObile", AAAI 2021 (arXiv 2009.05697); its code scores a group by a sum of norms
over channels, which is not the Euclidean projection, so it is not used here.  Rows and columns of blocks: Li et al.,
"BLK-REW: A Unified Block-based DNN Pruning Framework using Reweighted Regularization Method" (arXiv 2001.08357).
"""

from dataclasses import dataclass

from compressjax.projections._groups import Groups, at_least
from compressjax.projections._select import check_keep


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


def _check_width(width: int, name: str) -> None:
    if isinstance(width, bool) or not isinstance(width, int) or width < 1:
        raise ValueError(f"{name}: width={width!r} must be a positive int, the entries of one group.")


@dataclass(frozen=True)
class Block(Groups):
    """At most `keep` tiles of `block` = (inputs, outputs) entries of a matrix.

    Args:
      block: Tile size; must divide the matrix.
      keep: A count or a fraction of the tiles, over the whole matrix.

    Raises:
      ValueError: If the settings are invalid, the tensor is no matrix or the block does not divide it.

    >>> import jax.numpy as jnp
    >>> Block((1, 2), 1).project(jnp.array([[1.0, 1.0, 0.0, 2.0]]))
    Array([[0., 0., 0., 2.]], dtype=float32)
    """

    block: tuple[int, int]
    keep: int | float = 1.0

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
class BlockPunched(Groups):
    """Kernels are tiled into blocks of (inputs, outputs); inside a block all kernels keep the same positions.

    On a convolution kernel (kh, kw, in, out) a group is one pair of a block and a kernel position (kh, kw), that is
    b_in x b_out weights.  On a matrix (in, out), where kernels have one position, it is `BlockRows`: a group is one
    pair of a block and an input of it, that is 1 x b_out weights; b_in then only has to divide the inputs.  In both
    cases `keep` counts groups of the whole layer, so blocks compete with each other.

    Args:
      block: Block size in kernels, (inputs, outputs); must divide the layer.
      keep: A count or a fraction of the groups.

    Raises:
      ValueError: If the settings are invalid, the tensor has neither 2 nor 4 dimensions or the block does not divide
        it.

    >>> import jax.numpy as jnp
    >>> mask = BlockPunched((1, 2), 3).support(jnp.arange(18.0).reshape(3, 3, 1, 2))
    >>> mask[..., 0, 0].astype(int).tolist(), bool((mask[..., 0] == mask[..., 1]).all())
    ([[0, 0, 0], [0, 0, 0], [1, 1, 1]], True)
    """

    block: tuple[int, int]
    keep: int | float = 1.0

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


@dataclass(frozen=True)
class BlockRows(Groups):
    """Block-row pruning: tile the matrix into blocks `width` outputs wide; each loses whole rows, on its own.

    A group is one row of one block, 1 x `width` weights; how high the blocks are makes no difference.  A convolution
    kernel is one matrix (in, out) per position.  `keep` counts groups of the whole layer.

    Args:
      width: Outputs of a block; must divide the outputs.
      keep: A count or a fraction of the groups.

    Raises:
      ValueError: If the settings are invalid, the tensor has fewer than 2 dimensions or `width` does not divide it.

    >>> import jax.numpy as jnp
    >>> BlockRows(2, 2).project(jnp.array([[1.0, 1.0, 0.0, 3.0], [2.0, 0.0, 0.0, 0.0]]))
    Array([[0., 0., 0., 3.],
           [2., 0., 0., 0.]], dtype=float32)
    """

    width: int
    keep: int | float = 1.0

    def __post_init__(self) -> None:
        _check_width(self.width, "BlockRows")
        check_keep(self.keep)

    def _split(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        at_least(2, shape, "BlockRows")
        _divides((1, self.width), shape, "BlockRows")
        return (*shape[:-1], shape[-1] // self.width, self.width), (len(shape),)


@dataclass(frozen=True)
class BlockColumns(Groups):
    """Block-column pruning: tile the matrix into blocks `width` inputs high; each loses whole columns, on its own.

    A group is one column of one block, `width` x 1 weights; otherwise as `BlockRows`.

    Args:
      width: Inputs of a block; must divide the inputs.
      keep: A count or a fraction of the groups.

    Raises:
      ValueError: If the settings are invalid, the tensor has fewer than 2 dimensions or `width` does not divide it.

    >>> import jax.numpy as jnp
    >>> BlockColumns(2, 1).project(jnp.array([[1.0, 1.0], [2.0, 1.0], [0.0, 2.0], [0.0, 0.0]]))
    Array([[1., 0.],
           [2., 0.],
           [0., 0.],
           [0., 0.]], dtype=float32)
    """

    width: int
    keep: int | float = 1.0

    def __post_init__(self) -> None:
        _check_width(self.width, "BlockColumns")
        check_keep(self.keep)

    def _split(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        at_least(2, shape, "BlockColumns")
        _divides((self.width, 1), shape, "BlockColumns")
        return (*shape[:-2], shape[-2] // self.width, self.width, shape[-1]), (len(shape) - 1,)
