"""Entropy-coded positions: the gaps between non-zeros, digit by digit.

If each of N entries is non-zero with probability k/N, independently, the run of zeros g before a non-zero is geometric,
P(g) ~ x^g with x = 1 - k/N.  Write g in base 256: x^g is the product of (x^(256^i))^(digit i), so the digits are
*independent*, digit i again (truncated) geometric with parameter x^(256^i).  Coding each digit with its own table of
256 symbols therefore costs exactly the entropy of iid positions, about N H(k/N) bits, in time proportional to k, not N.
Only k itself (log2(N + 1) bits) and the number of digits of the largest gap (2 bits) are stored beside them.

Reference: Golomb, "Run-length encodings", IEEE Trans. Inf. Theory 1966.
"""

import numpy as np

from compressjax.storage._coder import Reader, Writer, information

_BLOCK = 1 << 18  # gaps per block; part of the format, since digit planes alternate block by block
_SCAN = 1 << 22  # mask entries per scan: bounds the int64 temporaries
_BASE = 256
_MOST_DIGITS = 4


def from_mask(mask: np.ndarray, count: int) -> np.ndarray:
    """Runs of zeros before each of the `count` True entries of a flat mask (uint32).

    >>> from_mask(np.array([False, True, True, False, False, True]), 3)
    array([1, 0, 2], dtype=uint32)
    """
    out = np.empty(count, np.uint32)
    last, filled = -1, 0
    for start in range(0, mask.size, _SCAN):
        found = np.flatnonzero(mask[start : start + _SCAN]) + start
        if found.size:
            out[filled : filled + found.size] = np.diff(found, prepend=last) - 1
            last, filled = found[-1], filled + found.size
    return out


def to_mask(blocks: list[np.ndarray], size: int) -> np.ndarray:
    """The flat mask with these gaps, given in consecutive pieces.

    >>> to_mask([np.array([1, 0]), np.array([2])], 7).astype(int)
    array([0, 1, 1, 0, 0, 1, 0])
    """
    mask = np.zeros(size, np.bool_)
    last = -1
    for block in blocks:
        places = last + np.cumsum(block.astype(np.int64) + 1)
        if places.size and places[-1] >= size:
            raise ValueError(f"The artefact places a non-zero beyond the {size} entries of its leaf: it is damaged.")
        mask[places] = True
        last = int(places[-1]) if places.size else last
    return mask


def _tables(count: int, size: int, digits: int) -> list[np.ndarray]:
    """The weights of each digit, x^(256^i d) for d = 0..255, by multiplication only (reproducible)."""
    x = 1.0 - count / size
    tables = []
    for _ in range(digits):
        powers = np.cumprod(np.concatenate([[1.0], np.full(_BASE, x)]))
        tables.append(powers[:_BASE])
        x = float(powers[_BASE])
    return tables


def _digits(largest: int) -> int:
    return max(1, -(-largest.bit_length() // 8))


def cost(gaps: np.ndarray, size: int) -> float:
    """Bits of the gaps of a mask of `size` entries: sum of -log2 P over all digits, plus count and digit number.

    Evaluated as -sum(g) log2 x + k log2 Z, with Z the tables' sums: no pass over the digits.
    """
    head = np.log2(size + 1) + 2 if size else 2.0
    if not gaps.size:
        return float(head)
    count, total = gaps.size, int(gaps.sum(dtype=np.int64))
    zeros = np.log2(1 - count / size) if count < size else 0.0  # no gaps, no zeros to pay for
    normaliser = sum(np.log2(t.sum()) for t in _tables(count, size, _digits(int(gaps.max()))))
    return float(head - total * zeros + count * normaliser)


def write(writer: Writer, gaps: np.ndarray, size: int) -> None:
    """Codes the gaps of a mask of `size` entries."""
    digits = _digits(int(gaps.max())) if gaps.size else 1
    writer.integer(gaps.size, size + 1)
    writer.integer(digits - 1, _MOST_DIGITS)
    writer.claim(gaps.size)
    if not gaps.size:
        return
    tables = _tables(gaps.size, size, digits)
    for start in range(0, gaps.size, _BLOCK):
        block = gaps[start : start + _BLOCK]
        for place, table in enumerate(tables):
            writer.symbols((block >> np.uint32(8 * place)) & np.uint32(_BASE - 1), table)


def read(reader: Reader, size: int) -> np.ndarray:
    """The flat mask coded by `write`."""
    count = reader.integer(size + 1)
    digits = reader.integer(_MOST_DIGITS) + 1
    reader.claim(count)
    if not count:
        return np.zeros(size, np.bool_)
    tables = _tables(count, size, digits)
    reader.afford(count, sum(float(information(table).min()) for table in tables))

    blocks = []
    for start in range(0, count, _BLOCK):
        length = min(_BLOCK, count - start)
        block = np.zeros(length, np.uint32)
        for place, table in enumerate(tables):
            block |= reader.symbols(length, table).astype(np.uint32) << np.uint32(8 * place)
        blocks.append(block)
    return to_mask(blocks, size)
