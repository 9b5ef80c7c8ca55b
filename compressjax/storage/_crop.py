"""Dense structured storage: whole slices of zeros are left out of a leaf before its positions are coded.

Two shapes of structure are tried.  *Axes*: an index along any axis at which everything is zero is dropped (filters,
channels, kernel rows).  *Matrix*: the leaf is seen as (everything but the last axis) x (last axis), and zero rows and
columns of that matrix are dropped ("filter shapes": one position across all filters).  One bit per index says which
remain.  When all entries of the remaining block are kept, this is the structured format of the literature: rows kept x
columns kept x b bits and two bitmaps.
"""

import math
from dataclasses import dataclass

import numpy as np

from compressjax.storage._coder import Reader, Writer

_MODES = np.array([14, 1, 1], np.float64)
_NONE, _AXES, _MATRIX = range(3)


@dataclass(frozen=True, eq=False)
class Crop:
    """What remains of a leaf.

    Attributes:
      mode: How the leaf is indexed: not at all, by its axes, or as a matrix.
      kept: Bool array per axis of the (re)shaped leaf; empty for no crop.
      view: Shape of the leaf as indexed.
    """

    mode: int
    kept: tuple[np.ndarray, ...]
    view: tuple[int, ...]

    @property
    def bits(self) -> float:
        """Cost of the bitmaps."""
        return float(sum(flags.size for flags in self.kept))

    @property
    def block(self) -> tuple[int, ...]:
        """Shape of what remains."""
        return tuple(int(flags.sum()) for flags in self.kept) if self.kept else self.view

    def take(self, flat: np.ndarray) -> np.ndarray:
        """The remaining block of a flat array, flat (a view if nothing is dropped)."""
        return flat.reshape(self.view)[np.ix_(*self.kept)].reshape(-1) if self.kept else flat

    def put(self, block: np.ndarray) -> np.ndarray:
        """Inverse of `take`, zeros elsewhere; flat."""
        if not self.kept:
            return block
        out = np.zeros(self.view, block.dtype)
        out[np.ix_(*self.kept)] = block.reshape(self.block)
        return out.reshape(-1)


def _view(mode: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return (math.prod(shape[:-1]), shape[-1]) if mode == _MATRIX else shape


def options(mask: np.ndarray, shape: tuple[int, ...]) -> list[Crop]:
    """No crop, and those crops that drop something.

    Args:
      mask: Flat mask of the non-zeros.
      shape: The leaf's shape.
    """
    out = [Crop(_NONE, (), shape)]
    modes = (_AXES, _MATRIX) if len(shape) > 2 else (_AXES,) if len(shape) == 2 else ()
    for mode in modes:
        view = _view(mode, shape)
        grid = mask.reshape(view)
        kept = tuple(
            np.asarray(grid.any(axis=tuple(a for a in range(len(view)) if a != axis))) for axis in range(len(view))
        )
        if not all(flags.all() for flags in kept):
            out.append(Crop(mode, kept, view))
    return out


def write(writer: Writer, crop: Crop) -> None:
    """Codes the mode and the bitmaps."""
    writer.symbol(crop.mode, _MODES)
    for flags in crop.kept:
        writer.uniform(flags, 2)


def read(reader: Reader, shape: tuple[int, ...]) -> Crop:
    """The crop coded by `write`."""
    mode = reader.symbol(_MODES)
    if mode == _NONE:
        return Crop(mode, (), shape)
    if len(shape) < 2:
        raise ValueError(f"The artefact drops slices of a leaf of shape {shape}: it is damaged.")
    reader.charge_stream("positions")
    view = _view(mode, shape)
    return Crop(mode, tuple(reader.uniform(size, 2).astype(np.bool_) for size in view), view)
