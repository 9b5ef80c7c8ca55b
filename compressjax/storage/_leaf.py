"""One leaf: shape and dtype, the choice of codecs, and the reverse.

A leaf is stored as crop, support, values.  The support is *empty* (all zero), *full* (every entry of the block is
stored, zeros too) or one of the position codecs.  Each combination's size is computed from formulas; the smallest is
written.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compressjax.storage import _crop, _positions, _values
from compressjax.storage._coder import Reader, Writer, information
from compressjax.storage._dtypes import DTYPES, all_finite, nonzero
from compressjax.storage._positions import PositionCodec, Support

# Priors of the header's symbols; each has room for members to come.
_DTYPES = np.array([48, 8, 4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], np.float64)
_NDIM = np.array([8, 64, 48, 8, 64, 8, 4] + [1] * 26, np.float64)
_SAME = np.array([1, 7], np.float64)  # whether a kernel has as many outputs as the bias before it
_SUPPORTS = np.array([8, 24, 32, 2, 2, 2] + [1] * 10, np.float64)
_EMPTY, _FULL, _FIRST = range(3)
_SMALL = 1 << 12
_MOST_ELEMENTS = (1 << 32) - 1


@dataclass(frozen=True, eq=False)
class _Choice:
    crop: _crop.Crop
    support: int
    mask: Support | None  # None for empty and full
    plan: _values.Plan | None
    values: np.ndarray


@dataclass(frozen=True, eq=False)
class Stored:
    """A leaf read back, still as it is stored: a block of the leaf, entries of the block, and their values.

    Attributes:
      shape: Of the leaf.
      crop: Where the block lies.
      mask: Flat mask over the block: which of its entries are stored; None if all are.
      values: The stored entries, flat.
      nonzeros: Entries other than +0.
      codec: The names of what stored it, for printing.
    """

    shape: tuple[int, ...]
    crop: _crop.Crop
    mask: np.ndarray | None
    values: np.ndarray
    nonzeros: int
    codec: str

    @property
    def size(self) -> int:
        """Entries of the leaf, zeros included."""
        return math.prod(self.shape)

    @property
    def array(self) -> np.ndarray:
        """The whole leaf."""
        block = self.values
        if self.mask is not None:
            block = np.zeros(self.mask.size, self.values.dtype)
            block[self.mask] = self.values
        return self.crop.put(block).reshape(self.shape)

    @property
    def positions(self) -> np.ndarray | None:
        """Flat positions of the values in the leaf, ascending, int64; None if every entry is stored."""
        if not self.crop.kept:
            return None if self.mask is None else np.flatnonzero(self.mask)
        where = np.zeros(1, np.int64)
        for flags in self.crop.kept:
            where = (where[:, None] * flags.size + np.flatnonzero(flags)[None, :]).reshape(-1)
        return where if self.mask is None else where[self.mask]


def write(writer: Writer, array: np.ndarray, before: tuple[int, ...], codecs: Sequence[PositionCodec]) -> None:
    """Codes one leaf by its cheapest combination.

    Args:
      writer: Where to.
      array: The leaf, of a dtype in `DTYPES`, finite, at most 2^32 - 1 entries and 32 axes.
      before: Shape of the leaf before it, which predicts this one's.
      codecs: The position codecs to choose from.
    """
    writer.symbol(DTYPES.index(array.dtype), _DTYPES)
    _write_shape(writer, array.shape, before)
    choice = _choose(np.ascontiguousarray(array).reshape(-1), array.shape, codecs)
    writer.symbol(choice.support, _SUPPORTS)
    if choice.support == _EMPTY:
        return
    _crop.write(writer, choice.crop)
    if choice.mask is None:
        writer.claim(choice.values.size)
    else:
        _positions.CODECS[choice.support - _FIRST].write(writer, choice.mask)
    assert choice.plan is not None
    choice.plan.write(writer, choice.values)


def _choose(flat: np.ndarray, shape: tuple[int, ...], codecs: Sequence[PositionCodec]) -> _Choice:
    mask = nonzero(flat)
    count = int(np.count_nonzero(mask))
    crops = _crop.options(mask, shape) if count else [_crop.Crop(0, (), shape)]
    if not count:
        return _Choice(crops[0], _EMPTY, None, None, flat[:0])

    sparse = flat if count == flat.size else flat[mask]
    sparse_plan = _values.plan(sparse, zero=False)
    costs = information(_SUPPORTS)
    best, fewest = None, math.inf
    for crop in crops:
        block_size = math.prod(crop.block)
        # By the chain rule of entropy, storing zeros among the values gains at most the side information: only
        # nearly full and small blocks are worth a second look.
        if count == block_size or count > 0.9 * block_size or block_size <= _SMALL:
            block = sparse if count == block_size else crop.take(flat)
            plan = _values.plan(block, zero=True)
            bits = crop.bits + costs[_FULL] + plan.bits
            if bits < fewest:
                best, fewest = _Choice(crop, _FULL, None, plan, block), bits
        if count == block_size:
            continue
        support = Support(crop.take(mask), crop.block)
        for codec in codecs:
            number = _FIRST + _positions.CODECS.index(codec)
            bits = crop.bits + costs[number] + codec.cost(support) + sparse_plan.bits
            if bits < fewest:
                best, fewest = _Choice(crop, number, support, sparse_plan, sparse), bits
    if best is None:
        raise ValueError(f"No position codec applies to a leaf of shape {shape}: allow one more.")
    return best


def read(reader: Reader, path: str, before: tuple[int, ...], max_elements: int) -> Stored:
    """The leaf coded by `write`; at most `max_elements` entries."""
    reader.charge(path, "header")
    dtype_number = reader.symbol(_DTYPES)
    if dtype_number >= len(DTYPES):
        raise ValueError(f"The artefact names an unknown dtype for leaf {path!r}: it is damaged.")
    dtype = DTYPES[dtype_number]
    shape = _read_shape(reader, before)
    if math.prod(max(axis, 1) for axis in shape) > max_elements:
        raise ValueError(
            f"Leaf {path!r} has shape {shape}: with it the artefact exceeds max_elements. "
            "Pass a larger max_elements if the file is to be trusted."
        )
    support = reader.symbol(_SUPPORTS)
    if support == _EMPTY:
        size = math.prod(shape)
        return Stored(shape, _crop.Crop(0, (), shape), np.zeros(size, np.bool_), np.zeros(0, dtype), 0, "empty")
    if support - _FIRST >= len(_positions.CODECS):
        raise ValueError(f"The artefact names an unknown position codec for leaf {path!r}: it is damaged.")

    crop = _crop.read(reader, shape)
    size = math.prod(crop.block)
    mask = None
    if support == _FULL:
        reader.claim(size)
        where = "structured" if crop.kept else "full"
        reader.charge(path, "header")
        values, how = _values.read(reader, dtype, size, zero=True)
        nonzeros = int(np.count_nonzero(nonzero(values)))
    else:
        codec = _positions.CODECS[support - _FIRST]
        where = f"structured + {codec.name}" if crop.kept else codec.name
        reader.charge(path, "positions")
        mask = codec.read(reader, crop.block)
        reader.charge(path, "header")
        nonzeros = int(np.count_nonzero(mask))
        values, how = _values.read(reader, dtype, nonzeros, zero=False)
    return Stored(shape, crop, mask, values, nonzeros, f"{where} + {how}")


def _write_shape(writer: Writer, shape: tuple[int, ...], before: tuple[int, ...]) -> None:
    writer.symbol(len(shape), _NDIM)
    for axis, size in enumerate(shape):
        if axis == len(shape) - 1 > 0 and before:
            writer.symbol(int(size == before[-1]), _SAME)
            if size == before[-1]:
                continue
        writer.number(size)


def _read_shape(reader: Reader, before: tuple[int, ...]) -> tuple[int, ...]:
    ndim = reader.symbol(_NDIM)
    shape = []
    for axis in range(ndim):
        same = axis == ndim - 1 > 0 and bool(before) and reader.symbol(_SAME)
        shape.append(before[-1] if same else reader.number())
    return tuple(shape)


def storable(array: np.ndarray, path: str) -> None:
    """Refuses what the format cannot hold.

    Raises:
      ValueError: Naming the leaf, for other dtypes, NaN or infinity, or too many entries or axes.
    """
    if array.dtype not in DTYPES:
        names = ", ".join(str(dtype) for dtype in DTYPES)
        raise ValueError(f"Leaf {path!r} has dtype {array.dtype}, which cannot be stored: cast it to one of {names}.")
    if array.size > _MOST_ELEMENTS or array.ndim >= _NDIM.size:
        raise ValueError(f"Leaf {path!r} of shape {array.shape} is too large to store: split it.")
    if not all_finite(np.ascontiguousarray(array).reshape(-1)):
        raise ValueError(f"Leaf {path!r} holds NaN or infinity: repair the weights before storing them.")
