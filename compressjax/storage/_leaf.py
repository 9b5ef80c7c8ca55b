"""One leaf: shape and dtype, the choice of codecs, and the reverse.

A leaf is stored as crop, support, values.  The support is *empty* (all zero), *full* (every entry of the block is
stored, zeros too) or one of the position codecs.  Or it is stored as *levels*: positions and integer multiples of a
scale in one scan (`_context`).  Each combination's size is computed, by formulas where there are any; the smallest is
written.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compressjax.storage import _context, _crop, _positions, _shape, _values
from compressjax.storage._coder import Reader, Writer, information
from compressjax.storage._dtypes import DTYPES, all_finite, nonzero
from compressjax.storage._memory import Memory
from compressjax.storage._positions import Context, PositionCodec, Support

# Priors of the header's symbols; each has room for members to come.
VERSION = 3
_DTYPES = np.array([48, 8, 4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], np.float64)
_SUPPORTS = dict.fromkeys((2, 3), np.array([8, 24, 16, 2, 2, 2, 8] + [1] * 8 + [64], np.float64))  # by version
_SUPPORTS[1] = np.array([8, 24, 32, 2, 2, 2] + [1] * 10, np.float64)
_EMPTY, _FULL, _FIRST = range(3)
_CONTEXT = Context()
_LEVELS = 15  # positions and values in one scan
_SMALL = 1 << 12
_MOST_ELEMENTS = (1 << 32) - 1


@dataclass(frozen=True, eq=False)
class _Choice:
    crop: _crop.Crop
    support: int
    mask: Support | None  # None for empty and full
    plan: _values.Plan | None
    values: np.ndarray
    bits: float  # that it takes


@dataclass(frozen=True, eq=False)
class _Levels:
    scale: np.float32 | None  # None for integer leaves
    codes: np.ndarray  # flat integers

    def cost(self, shape: tuple[int, ...], memory: Memory) -> float:
        """Bits that it takes."""
        kind = float(information(_SUPPORTS[VERSION])[_LEVELS])
        return kind + _values.scale_bits(self.scale) + _context.cost(self.codes, shape, memory)


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


def write(writer: Writer, array: np.ndarray, codecs: Sequence[PositionCodec]) -> None:
    """Codes one leaf by its cheapest combination.

    Args:
      writer: Where to.
      array: The leaf, of a dtype in `DTYPES`, finite, at most 2^32 - 1 entries and 32 axes.
      codecs: The position codecs to choose from.
    """
    writer.symbol(DTYPES.index(array.dtype), _DTYPES)
    _shape.write(writer, array.shape)
    flat = np.ascontiguousarray(array).reshape(-1)
    levels = _levels(flat) if _CONTEXT in codecs else None
    others = [codec for codec in codecs if levels is None or codec != _CONTEXT]
    choice = _choose(flat, array.shape, others, writer.memory) if others else None
    if levels is None or (choice and choice.bits <= levels.cost(array.shape, writer.memory)):
        assert choice is not None
        _write_choice(writer, choice)
    else:
        writer.symbol(_LEVELS, _SUPPORTS[VERSION])
        _values.write_scale(writer, levels.scale)
        _context.write(writer, levels.codes, array.shape)
    writer.memory.see(array.shape)


def _write_choice(writer: Writer, choice: _Choice) -> None:
    writer.symbol(choice.support, _SUPPORTS[VERSION])
    if choice.support == _EMPTY:
        return
    _crop.write(writer, choice.crop)
    if choice.mask is None:
        writer.claim(choice.values.size)
    else:
        _positions.CODECS[choice.support - _FIRST].write(writer, choice.mask)
    assert choice.plan is not None
    choice.plan.write(writer, choice.values)


def _levels(flat: np.ndarray) -> _Levels | None:
    """The leaf as levels, if it can be stored so."""
    grid = _values.on_grid(flat) if 0 < flat.size <= _context.LARGEST else None
    # Not by `abs`, under which the lowest int64 stays negative.
    if grid is None or grid[1].max() > _context.HIGHEST or grid[1].min() < -_context.HIGHEST:
        return None
    return _Levels(*grid)


def _choose(flat: np.ndarray, shape: tuple[int, ...], codecs: Sequence[PositionCodec], memory: Memory) -> _Choice:
    mask = nonzero(flat)
    count = int(np.count_nonzero(mask))
    crops = _crop.options(mask, shape) if count else [_crop.Crop(0, (), shape)]
    if not count:
        return _Choice(crops[0], _EMPTY, None, None, flat[:0], 0.0)

    sparse = flat if count == flat.size else flat[mask]
    sparse_plan = _values.plan(sparse, zero=False)
    costs = information(_SUPPORTS[VERSION])
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
                best, fewest = _Choice(crop, _FULL, None, plan, block, bits), bits
        if count == block_size:
            continue
        support = Support(crop.take(mask), crop.block, memory)
        for codec in codecs:
            if codec == _CONTEXT and crop.kept and flat.size <= _context.LARGEST:
                continue  # it is slow, and finds empty slices itself
            number = _FIRST + _positions.CODECS.index(codec)
            bits = crop.bits + costs[number] + codec.cost(support) + sparse_plan.bits
            if bits < fewest:
                best, fewest = _Choice(crop, number, support, sparse_plan, sparse, bits), bits
    if best is None:
        raise ValueError(f"No position codec applies to a leaf of shape {shape}: allow one more.")
    return best


def read(reader: Reader, path: str, max_elements: int) -> Stored:
    """The leaf coded by `write`; at most `max_elements` entries."""
    reader.charge(path, "header")
    dtype_number = reader.symbol(_DTYPES)
    if dtype_number >= len(DTYPES):
        raise ValueError(f"The artefact names an unknown dtype for leaf {path!r}: it is damaged.")
    dtype = DTYPES[dtype_number]
    shape = _shape.read(reader)
    if math.prod(max(axis, 1) for axis in shape) > max_elements:
        raise ValueError(
            f"Leaf {path!r} has shape {shape}: with it the artefact exceeds max_elements. "
            "Pass a larger max_elements if the file is to be trusted."
        )
    support = reader.symbol(_SUPPORTS[reader.version])
    out = _read_stored(reader, path, dtype, shape, support)
    reader.memory.see(shape)
    return out


def _read_stored(reader: Reader, path: str, dtype: np.dtype, shape: tuple[int, ...], support: int) -> Stored:
    if support == _EMPTY:
        size = math.prod(shape)
        return Stored(shape, _crop.Crop(0, (), shape), np.zeros(size, np.bool_), np.zeros(0, dtype), 0, "empty")
    if support == _LEVELS and reader.version > 1:
        codes, values = _values.read_multiples(reader, dtype, lambda: _context.read(reader, shape))
        mask = codes != 0
        return Stored(
            shape, _crop.Crop(0, (), shape), mask, values[mask], int(np.count_nonzero(mask)), "context + levels"
        )
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


def storable(array: np.ndarray, path: str) -> None:
    """Refuses what the format cannot hold.

    Raises:
      ValueError: Naming the leaf, for other dtypes, NaN or infinity, or too many entries or axes.
    """
    if array.dtype not in DTYPES:
        names = ", ".join(str(dtype) for dtype in DTYPES)
        raise ValueError(f"Leaf {path!r} has dtype {array.dtype}, which cannot be stored: cast it to one of {names}.")
    if array.size > _MOST_ELEMENTS or array.ndim > _shape.MOST_AXES:
        raise ValueError(f"Leaf {path!r} of shape {array.shape} is too large to store: split it.")
    if not all_finite(np.ascontiguousarray(array).reshape(-1)):
        raise ValueError(f"Leaf {path!r} holds NaN or infinity: repair the weights before storing them.")
