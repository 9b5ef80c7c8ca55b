"""Fixed-width position codecs: relative index with fillers, and compressed sparse rows.

Relative index (Han et al., "Deep Compression", ICLR 2016): each non-zero stores the run of zeros before it in g bits.
The largest field value 2^g - 1 is a filler: it stands for 2^g - 1 zeros and no value follows.  (The published
accounting, `compressjax.storage.bits.relative_index`, gives fillers a value field too; positions here do not depend on
values, so a filler costs g bits only.)  The width is scanned per leaf.
"""

import math

import numpy as np

from compressjax.storage._coder import Reader, Writer, number_bits

_WIDEST = 16
_CHUNK = 1 << 20  # fields per packing step, a multiple of 8


def pack(values: np.ndarray, width: int) -> bytes:
    """Unsigned integers as consecutive big-endian fields of `width` bits, padded to a byte at the end.

    >>> pack(np.array([1, 2, 3]), 4).hex()
    '1230'
    """
    shifts = np.arange(width - 1, -1, -1, dtype=np.uint32)
    pieces = []
    for start in range(0, values.size, _CHUNK):
        part = values[start : start + _CHUNK].astype(np.uint32)
        pieces.append(np.packbits(((part[:, None] >> shifts) & np.uint32(1)).astype(np.uint8)).tobytes())
    return b"".join(pieces)


def packed_bytes(count: int, width: int) -> int:
    """Length of `pack`'s result."""
    return -(-count * width // 8)


def unpack(data: memoryview | bytes, count: int, width: int) -> np.ndarray:
    """Inverse of `pack` (uint32).

    >>> unpack(bytes.fromhex("1230"), 3, 4)
    array([1, 2, 3], dtype=uint32)
    """
    out = np.zeros(count, np.uint32)
    octets = np.frombuffer(data, np.uint8)
    for start in range(0, count if width else 0, _CHUNK):
        part = out[start : start + _CHUNK]
        bits = np.unpackbits(octets[start * width // 8 :][: packed_bytes(part.size, width)], count=part.size * width)
        for column in bits.reshape(part.size, width).T:
            part <<= np.uint32(1)
            part |= column
    return out


def _fields(gaps: np.ndarray, width: int) -> int:
    """Number of fields, k + fillers."""
    filler = np.uint32(2**width - 1)
    return gaps.size + sum(
        int(np.sum(gaps[start : start + _CHUNK] // filler, dtype=np.int64)) for start in range(0, gaps.size, _CHUNK)
    )


def _width(gaps: np.ndarray, size: int) -> tuple[int, int]:
    """The gap width with the fewest bits, and those bits."""
    if not gaps.size:
        return 1, 0
    # Widths far from log2(mean gap) cannot win: half the fields would be fillers, or half the bits unused.
    middle = min(_WIDEST, (size // gaps.size).bit_length())
    options = range(max(1, middle - 4), min(_WIDEST, middle + 8) + 1)
    return min(((w, _fields(gaps, w) * w) for w in options), key=lambda pair: pair[1])


def relative_cost(gaps: np.ndarray, size: int) -> float:
    """Bits of `write_relative`."""
    width, bits = _width(gaps, size)
    return 8.0 * (-(-bits // 8)) + number_bits(bits // width) + 4


def write_relative(writer: Writer, gaps: np.ndarray) -> None:
    """Codes the width, the number of fields and the fields."""
    size = int(gaps.sum(dtype=np.int64)) + gaps.size
    width, bits = _width(gaps, size)
    count = bits // width
    filler = 2**width - 1
    fields = np.full(count, filler, np.uint32)
    # Field number of each non-zero: as many fillers before it as all gaps so far need.
    ends = np.cumsum(gaps // np.uint32(filler) + np.uint32(1), dtype=np.int64) - 1
    fields[ends] = gaps % np.uint32(filler)
    writer.integer(width - 1, _WIDEST)
    writer.number(count)
    writer.claim(gaps.size)
    writer.raw(pack(fields, width))


def read_relative(reader: Reader, size: int) -> np.ndarray:
    """The flat mask coded by `write_relative`."""
    width = reader.integer(_WIDEST) + 1
    count = reader.number()
    data = reader.raw(packed_bytes(count, width))
    fields = unpack(data, count, width).astype(np.int64)
    filler = fields == 2**width - 1
    places = np.cumsum(fields + ~filler) - 1  # a filler advances by its zeros only
    places = places[~filler]
    if places.size and places[-1] >= size:
        raise ValueError(f"The artefact places a non-zero beyond the {size} entries of its leaf: it is damaged.")
    reader.claim(places.size)
    mask = np.zeros(size, np.bool_)
    mask[places] = True
    return mask


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns: the last axis against the others."""
    return math.prod(shape[:-1]), shape[-1]


def _width_of(count: int) -> int:
    return (count - 1).bit_length()


def csr_cost(shape: tuple[int, ...], count: int) -> float:
    """Bits of `write_csr`; infinite for leaves of fewer than two axes."""
    if len(shape) < 2:
        return math.inf
    rows, columns = _matrix(shape)
    pointers = packed_bytes(rows + 1, _width_of(count + 1))
    return 8.0 * (pointers + packed_bytes(count, _width_of(columns))) + number_bits(count)


def write_csr(writer: Writer, mask: np.ndarray, shape: tuple[int, ...]) -> None:
    """Codes the count, rows + 1 pointers and k columns."""
    rows, columns = _matrix(shape)
    per_row = np.count_nonzero(mask.reshape(rows, columns), axis=1)
    pointers = np.concatenate([[0], np.cumsum(per_row)])
    count = int(pointers[-1])
    writer.number(count)
    writer.claim(count)
    writer.raw(pack(pointers, _width_of(count + 1)))
    writer.raw(pack(np.flatnonzero(mask) % columns, _width_of(columns)))


def read_csr(reader: Reader, shape: tuple[int, ...]) -> np.ndarray:
    """The flat mask coded by `write_csr`."""
    if len(shape) < 2:
        raise ValueError(f"The artefact stores a leaf of shape {shape} by rows: it is damaged.")
    rows, columns = _matrix(shape)
    count = reader.number()
    if not count:  # zero-width pointers would let a tiny file declare any number of rows
        raise ValueError("The artefact stores a leaf without non-zeros by rows: it is damaged.")
    reader.claim(count)
    width = _width_of(count + 1)
    pointers = unpack(reader.raw(packed_bytes(rows + 1, width)), rows + 1, width).astype(np.int64)
    width = _width_of(columns)
    column = unpack(reader.raw(packed_bytes(count, width)), count, width).astype(np.int64)
    per_row = np.diff(pointers)
    if pointers[0] or pointers[-1] != count or np.any(per_row < 0) or np.any(column >= columns):
        raise ValueError("The artefact has row pointers or columns out of range: it is damaged.")
    places = np.repeat(np.arange(rows) * columns, per_row) + column
    if np.any(np.diff(places) <= 0):  # two values for one entry
        raise ValueError("The artefact has columns out of order: it is damaged.")
    mask = np.zeros(rows * columns, np.bool_)
    mask[places] = True
    return mask
