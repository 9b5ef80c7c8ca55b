"""Value codecs: what the stored entries of a leaf are.

    raw     the numbers themselves, in the narrowest dtype that holds them exactly, in the raw section
    grid    integers j, where every value is float32(q) * float32(j) to the last bit (equally spaced levels; for integer
            leaves the values themselves); one scale q per leaf
    table   at most 256 distinct values, listed, and an index into the list per entry

Integers and indices are range-coded under a model of `_models`.  The scale and the table are bit patterns without the
trailing zeros they share, so that levels exact in bfloat16 or float16 cost 16 or 19 bits instead of 32.

`plan` compares the three by formula and returns the cheapest.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from compressjax.storage import _models
from compressjax.storage._coder import Reader, Writer, number_bits
from compressjax.storage._dtypes import (
    all_finite,
    exactly,
    from_little_endian,
    is_float,
    little_endian,
    narrower,
    patterns,
)

_KINDS = np.array([2, 10, 3, 1], np.float64)  # prior over raw, grid, table and one to come
_RAW, _GRID, _TABLE = range(3)
NAMES = ("raw", "grid", "table")
_MOST_LEVELS = 256
_WIDEST_GRID = 4096  # integers between the lowest and highest level
_SCALE_TRIES = 64  # the smallest level may be up to 64 q
_CLOSE = {2: -6, 4: -20, 8: -20}  # log2 of how far from integers quotients of levels may be, by bytes per level
_SCAN = 1 << 20
_USUAL_EXPONENT = 123  # of float32: scales are near 2^-4


@runtime_checkable
class Plan(Protocol):
    """A fitted value codec: knows its cost, and can write the values it was fitted to."""

    @property
    def bits(self) -> float:
        """Cost of everything `write` writes."""
        ...

    def write(self, writer: Writer, values: np.ndarray) -> None:
        """Codes the values."""
        ...


@dataclass(frozen=True, eq=False)
class _Raw:
    dtype: np.dtype  # what is stored, at most as wide as the leaf's
    option: int
    bits: float

    def write(self, writer: Writer, values: np.ndarray) -> None:
        writer.symbol(_RAW, _KINDS)
        writer.integer(self.option, len(narrower(values.dtype)) + 1)
        writer.raw(little_endian(values.astype(self.dtype, copy=False)))


@dataclass(frozen=True, eq=False)
class _Grid:
    scale: np.float32 | None  # None for integer leaves
    low: int
    high: int
    zero: bool
    levels: np.ndarray  # sorted bit patterns present
    integers: np.ndarray  # j of each level
    model: _models.Model
    bits: float

    def write(self, writer: Writer, values: np.ndarray) -> None:
        writer.symbol(_GRID, _KINDS)
        if self.scale is not None:
            _write_patterns(writer, patterns(np.array([self.scale])), 31)
        writer.number(_zigzag(self.low))
        writer.number(self.high - self.low)
        _models.write(writer, self.model)
        symbols = np.searchsorted(_alphabet(self.low, self.high, self.zero), self.integers)
        _write_codes(writer, values, self.levels, symbols, self.model.weights)


@dataclass(frozen=True, eq=False)
class _Table:
    levels: np.ndarray  # sorted bit patterns
    model: _models.Model
    bits: float

    def write(self, writer: Writer, values: np.ndarray) -> None:
        writer.symbol(_TABLE, _KINDS)
        writer.integer(self.levels.size - 1, _MOST_LEVELS)
        _write_patterns(writer, self.levels, 8 * self.levels.itemsize)
        _models.write(writer, self.model)
        _write_codes(writer, values, self.levels, np.arange(self.levels.size), self.model.weights)


def plan(values: np.ndarray, zero: bool) -> Plan:
    """The cheapest way to store a non-empty flat array.

    Args:
      values: Flat, contiguous, of a storable dtype.
      zero: Whether +0 may occur.

    Returns:
      The plan with the fewest bits.
    """
    options: list[Plan] = [_plan_raw(values)]
    found = distinct(values)
    if found is not None:
        levels, counts = found
        options.append(_plan_table(levels, counts))
        if (grid := _plan_grid(values.dtype, levels, counts, zero)) is not None:
            options.append(grid)
    return min(options, key=lambda option: option.bits)


def distinct(values: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The distinct bit patterns of a flat array, sorted, and how often each occurs; None if more than 256.

    >>> levels, counts = distinct(np.array([2, 1, 2], np.int8))
    >>> levels.tolist(), counts.tolist()
    ([1, 2], [1, 2])
    """
    bits = patterns(values)
    levels = bits[:1]
    for start in range(0, bits.size, _SCAN):
        part = bits[start : start + _SCAN]
        while (unknown := part[levels[np.minimum(np.searchsorted(levels, part), levels.size - 1)] != part]).size:
            levels = np.union1d(levels, unknown[:4096])  # a few at a time: unpruned weights are all distinct
            if levels.size > _MOST_LEVELS:
                return None
    counts = np.zeros(levels.size, np.int64)
    for start in range(0, bits.size, _SCAN):
        counts += np.bincount(np.searchsorted(levels, bits[start : start + _SCAN]), minlength=levels.size)
    return levels, counts


def _plan_raw(values: np.ndarray) -> Plan:
    for option, dtype in enumerate(narrower(values.dtype), start=1):
        if exactly(values, dtype):
            return _Raw(dtype, option, 8.0 * values.size * dtype.itemsize + 2)
    return _Raw(values.dtype, 0, 8.0 * values.size * values.dtype.itemsize + 2)


def _plan_table(levels: np.ndarray, counts: np.ndarray) -> Plan:
    model = _models.fit(counts, None)
    return _Table(levels, model, _pattern_bits(levels, 8 * levels.itemsize) + 8 + model.side_bits + model.data_bits)


def _plan_grid(dtype: np.dtype, levels: np.ndarray, counts: np.ndarray, zero: bool) -> Plan | None:
    scale: np.float32 | None = None
    if is_float(dtype):
        fitted = equally_spaced(levels.view(dtype))
        if fitted is None:
            return None
        scale, integers = fitted
    else:
        # Unsigned 64-bit values beyond int64 come out negative here, and wrap back when read.
        integers = levels.view(dtype).astype(np.int64)
    low, high = int(integers.min()), int(integers.max())
    if high - low >= _WIDEST_GRID or max(abs(low), abs(high)) >= 1 << 15:
        return None
    alphabet = _alphabet(low, high, zero)
    table = np.zeros(alphabet.size, np.int64)
    table[np.searchsorted(alphabet, integers)] = counts
    model = _models.fit(table, alphabet)
    side = number_bits(_zigzag(low)) + number_bits(high - low) + model.side_bits
    if scale is not None:
        side += _pattern_bits(patterns(np.array([scale])), 31)
    return _Grid(scale, low, high, zero, levels, integers, model, side + model.data_bits)


def equally_spaced(levels: np.ndarray) -> tuple[np.float32, np.ndarray] | None:
    """A float32 scale q and integers j with float32(q j) equal to every level to the last bit, if there are any.

    The smallest non-zero magnitude is taken for 1, 2, .. 64 steps of q in turn; the first that fits wins, which makes
    q the largest possible.

    >>> equally_spaced(np.array([-0.5, 0.25, 0.75], np.float32))
    (np.float32(0.25), array([-2,  1,  3]))
    """
    wide = levels.astype(np.float64)
    magnitudes = np.abs(wide[wide != 0])
    if not magnitudes.size:
        return None
    smallest, largest = magnitudes.min(), magnitudes.max()
    if smallest / _SCALE_TRIES <= 2.0**-126 or largest >= 2.0**127:
        return None  # subnormal scales and overflowing products are not worth a special case
    multiples = wide / smallest * np.arange(1, _SCALE_TRIES + 1)[:, None]  # j of every level, for each number of steps
    near = np.all(np.abs(multiples - np.rint(multiples)) <= np.abs(multiples) * 2.0 ** _CLOSE[levels.itemsize], axis=1)
    near &= largest / smallest * np.arange(1, _SCALE_TRIES + 1) < _WIDEST_GRID
    for steps in 1 + np.flatnonzero(near):
        # Rounding of q * steps hides q's last bits: the neighbours of the quotient are candidates too.
        scales = np.float32(smallest / steps) * (1 + np.arange(-2, 3) * 2.0**-23).astype(np.float32)
        for scale in scales[[2, 1, 3, 0, 4]]:
            integers = np.rint(wide / np.float64(scale)).astype(np.int64)
            if np.array_equal(patterns(_on_grid(scale, integers, levels.dtype)), patterns(levels)):
                return scale, integers
    return None


def _on_grid(scale: np.float32, integers: np.ndarray, dtype: np.dtype) -> np.ndarray:
    with np.errstate(over="ignore", under="ignore"):
        return (scale * integers.astype(np.float32)).astype(dtype)


def on_grid(values: np.ndarray) -> tuple[np.float32 | None, np.ndarray] | None:
    """Values as a scale (None for integers) and flat int64 multiples of it, if that is exact to the last bit."""
    found = distinct(values)
    if found is None:
        return None
    levels = found[0].view(values.dtype)
    if is_float(values.dtype):
        spaced = equally_spaced(levels)
        if spaced is None:
            return None
        scale, integers = spaced
    else:
        scale, integers = None, levels.astype(np.int64)
    return scale, integers[np.searchsorted(found[0], patterns(values))]


def write_scale(writer: Writer, scale: np.float32 | None) -> None:
    """Codes a scale: the distance of its exponent from 2^-4, how many bits its mantissa needs, and those."""
    if scale is None:
        return
    bits = int(patterns(np.array([scale]))[0])
    fraction = bits & 0x7FFFFF
    width = 23 - min(_trailing(np.array([fraction]), 23), 23)
    writer.number(_zigzag((bits >> 23) - _USUAL_EXPONENT))
    writer.integer(width, 24)
    writer.integer(fraction >> (23 - width), 1 << width)


def scale_bits(scale: np.float32 | None) -> float:
    """Cost of `write_scale`."""
    if scale is None:
        return 0.0
    bits = int(patterns(np.array([scale]))[0])
    width = 23 - _trailing(np.array([bits & 0x7FFFFF]), 23)
    return number_bits(_zigzag((bits >> 23) - _USUAL_EXPONENT)) + math.log2(24) + width


def read_multiples(
    reader: Reader, dtype: np.dtype, read_codes: Callable[[], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """A scale if the dtype has one, integers, and the values that they mean."""
    reader.charge_stream("codebook")
    scale = _read_scale(reader) if is_float(dtype) else None
    codes = read_codes()
    if scale is not None:
        return codes, _checked(_on_grid(scale, codes, dtype))
    values = codes.astype(dtype)
    if not np.array_equal(values.astype(np.int64), codes):
        raise ValueError(f"The artefact holds a level that dtype {dtype} cannot: it is damaged.")
    return codes, values


def _read_scale(reader: Reader) -> np.float32:
    exponent = _unzigzag(reader.number()) + _USUAL_EXPONENT
    width = reader.integer(24)
    fraction = reader.integer(1 << width) << (23 - width)
    if not 0 < exponent < 255:
        raise ValueError("The artefact holds a scale that is no number: it is damaged.")
    return np.array([exponent << 23 | fraction], np.uint32).view(np.float32)[0]


def _alphabet(low: int, high: int, zero: bool) -> np.ndarray:
    """The integers low..high, without 0 unless `zero`."""
    out = np.arange(low, high + 1)
    return out if zero else out[out != 0]


def _zigzag(value: int) -> int:
    """0, -1, 1, -2, 2 ... -> 0, 1, 2, 3, 4 ..."""
    return 2 * value if value >= 0 else -2 * value - 1


def _unzigzag(value: int) -> int:
    return value // 2 if value % 2 == 0 else -(value // 2) - 1


def _trailing(bits: np.ndarray, width: int) -> int:
    """Zero bits that end all patterns."""
    union = int(np.bitwise_or.reduce(bits))
    return (union & -union).bit_length() - 1 if union else width


def _pattern_bits(bits: np.ndarray, width: int) -> float:
    return math.log2(width + 1) + bits.size * (width - _trailing(bits, width))


def _write_patterns(writer: Writer, bits: np.ndarray, width: int) -> None:
    """Codes patterns of `width` bits without the trailing zeros they share."""
    shift = _trailing(bits, width)
    writer.integer(shift, width + 1)
    for word in range(shift, width, 16):  # 16 bits at a time: 64-bit patterns exceed signed arithmetic
        piece = min(16, width - word)
        shifted = bits.astype(np.uint64) >> np.uint64(word)
        writer.uniform((shifted & np.uint64((1 << piece) - 1)).astype(np.int64), 1 << piece)


def _read_patterns(reader: Reader, count: int, width: int, dtype: np.dtype) -> np.ndarray:
    shift = reader.integer(width + 1)
    out = np.zeros(count, np.uint64)
    for word in range(shift, width, 16):
        out |= reader.uniform(count, 1 << min(16, width - word)).astype(np.uint64) << np.uint64(word)
    return out.astype(dtype)


def _write_codes(
    writer: Writer, values: np.ndarray, levels: np.ndarray, symbols: np.ndarray, weights: np.ndarray
) -> None:
    """Codes each value by the symbol of its level."""
    bits = patterns(values)
    for start in range(0, bits.size, _SCAN):
        writer.symbols(symbols[np.searchsorted(levels, bits[start : start + _SCAN])], weights)


def read(reader: Reader, dtype: np.dtype, count: int, zero: bool) -> tuple[np.ndarray, str]:
    """The values coded by a plan, as a fresh flat array, and the codec's name."""
    kind = reader.symbol(_KINDS)
    if kind >= len(NAMES):
        raise ValueError("The artefact names an unknown value codec: it is damaged.")
    readers: tuple[Callable[[Reader, np.dtype, int, bool], np.ndarray], ...] = (_read_raw, _read_grid, _read_table)
    return readers[kind](reader, dtype, count, zero), NAMES[kind]


def _read_raw(reader: Reader, dtype: np.dtype, count: int, zero: bool) -> np.ndarray:
    del zero
    options = narrower(dtype)
    option = reader.integer(len(options) + 1)
    stored = options[option - 1] if option else dtype
    reader.charge_stream("values")
    values = from_little_endian(reader.raw(count * stored.itemsize), stored).astype(dtype, copy=False)
    return _checked(values)


def _read_grid(reader: Reader, dtype: np.dtype, count: int, zero: bool) -> np.ndarray:
    reader.charge_stream("codebook")
    scale = _read_patterns(reader, 1, 31, np.dtype(np.uint32)).view(np.float32)[0] if is_float(dtype) else None
    low = _unzigzag(reader.number())
    high = low + reader.number()
    if high - low >= _WIDEST_GRID or max(abs(low), abs(high)) >= 1 << 15:
        raise ValueError(f"The artefact declares levels {low} to {high}, more than the format allows: it is damaged.")
    alphabet = _alphabet(low, high, zero)
    if not alphabet.size:
        raise ValueError("The artefact declares no levels at all: it is damaged.")
    if scale is not None:
        table = _on_grid(scale, alphabet, dtype)
    else:
        table = alphabet.astype(dtype)
        if not np.array_equal(table.astype(np.int64), alphabet):
            raise ValueError(f"The artefact declares levels {low} to {high} for dtype {dtype}: it is damaged.")
    return _read_codes(reader, count, _checked(table), _models.read(reader, alphabet.size, alphabet))


def _read_table(reader: Reader, dtype: np.dtype, count: int, zero: bool) -> np.ndarray:
    del zero
    reader.charge_stream("codebook")
    size = reader.integer(_MOST_LEVELS) + 1
    bits = _read_patterns(reader, size, 8 * dtype.itemsize, np.dtype(f"u{dtype.itemsize}"))
    if dtype == np.bool_ and np.any(bits > 1):
        raise ValueError("The artefact declares a truth value other than 0 and 1: it is damaged.")
    return _read_codes(reader, count, _checked(bits.view(dtype)), _models.read(reader, size, None))


def _read_codes(reader: Reader, count: int, table: np.ndarray, weights: np.ndarray) -> np.ndarray:
    reader.charge_stream("values")
    return table[reader.symbols(count, weights)]


def _checked(values: np.ndarray) -> np.ndarray:
    if not all_finite(values):
        raise ValueError("The artefact holds a number that is not finite: it is damaged.")
    return values
