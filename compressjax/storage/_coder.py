"""One range coder for a whole file, a raw section beside it, and the bookkeeping of both.

All entropy-coded symbols of all leaves go through one range coder (Martin 1979; the implementation is `constriction`),
so that a file pays for termination once.  A symbol of probability p costs -log2(p) bits.  Incompressible data, such as
float32 weights, goes byte-aligned into the raw section at memory speed.

The coder emits 32-bit words.  Any number inside its final interval decodes alike, so `Writer.finish` takes the one with
the most trailing zero bytes and drops them; the reader supplies zeros past the end.

The reader trusts nothing: it refuses a count of symbols that the stream is too short to hold before it allocates.
"""

import math
from collections import defaultdict
from typing import Any, no_type_check

import constriction
import numpy as np

from compressjax.storage._logistic import CERTAIN
from compressjax.storage._memory import Memory

_CHUNK = 1 << 20  # symbols per call: bounds the int32 temporaries
_WORD = 1 << 16  # largest alphabet of one uniform symbol
_PRECISION = 24  # bits to which constriction rounds a probability
# Prior over the bit length of a header integer (0 to 48): dimensions and counts of real networks are small.
_LENGTHS = np.array([6] + [10] * 10 + [6] * 4 + [3] * 4 + [1] * 30, np.float64)
_ELEMENTS_FREE = 1 << 16
_ELEMENTS_PER_BYTE = 512
_TOLERANCE, _SLACK = 1.1, 64  # of a reader: how many bits of symbols it takes from a stream


def information(weights: np.ndarray) -> np.ndarray:
    """Bits per symbol of a categorical model, -log2 p, with the floor of 2^-24 that the coder grants every symbol."""
    floor = 2.0**-_PRECISION
    return -np.log2(weights / weights.sum() * (1 - weights.size * floor) + floor)


def _model(weights: np.ndarray) -> Any:
    # `perfect=False` is plain IEEE arithmetic in a fixed order: the same table on every machine.
    return constriction.stream.model.Categorical(np.ascontiguousarray(weights, np.float64), perfect=False)


def number_bits(value: int) -> float:
    """Cost in bits of `Writer.number(value)`."""
    length = int(value).bit_length()
    return float(information(_LENGTHS)[length]) + max(length - 1, 0)


def payable_elements(file_bytes: int) -> int:
    """How many non-zero entries a file of this many bytes may unfold to.

    Perfectly predictable entries cost no bits at all, so a file of 60 bytes could demand gigabytes.  A reader refuses
    more than 512 non-zero entries per byte beyond the first 65,536; a writer pads the file in that (degenerate) case.
    """
    return _ELEMENTS_FREE + _ELEMENTS_PER_BYTE * file_bytes


def padding_for(elements: int, file_bytes: int) -> int:
    """Bytes to append so that a file of `file_bytes` may hold `elements` non-zero entries."""
    return max(0, -(-(elements - _ELEMENTS_FREE) // _ELEMENTS_PER_BYTE) - file_bytes)


def zeros_for(words: int, stream_bytes: int) -> int:
    """Bytes to append to a stream that has lost more trailing zeros than a reader has slack for.

    Args:
      words: 32-bit words that the coder emitted.
      stream_bytes: What is left of them, as `Writer.finish` returned it.
    """
    wanted = 1.02 * 32 * (words + 1)  # two per cent: probabilities are rounded
    return max(0, math.ceil((wanted / _TOLERANCE - _SLACK) / 8) - stream_bytes)


class Writer:
    """Collects the symbols and raw bytes of a file."""

    def __init__(self) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()
        self._raw: list[bytes | memoryview] = []
        self.elements = 0  # non-zero entries announced so far
        self.memory = Memory()

    def symbols(self, values: np.ndarray, weights: np.ndarray) -> None:
        """Codes integers below len(weights), each with probability weights[value] / sum(weights)."""
        if weights.size < 2 or not values.size:
            return  # constriction has no alphabets of one symbol, and they carry nothing
        model = _model(weights)
        for start in range(0, values.size, _CHUNK):
            self._encoder.encode(values[start : start + _CHUNK].astype(np.int32), model)

    def symbol(self, value: int, weights: np.ndarray) -> None:
        """Codes one integer."""
        self.symbols(np.array([value]), weights)

    def uniform(self, values: np.ndarray, size: int) -> None:
        """Codes integers below `size`, equally likely; large ones in 16-bit pieces, low piece first."""
        if size > _WORD:
            values = values.astype(np.int64)
            self.uniform(values % _WORD, _WORD)
            self.uniform(values // _WORD, -(-size // _WORD))
        elif size > 1 and values.size:
            model = constriction.stream.model.Uniform(size)
            for start in range(0, values.size, _CHUNK):
                self._encoder.encode(values[start : start + _CHUNK].astype(np.int32), model)

    def integer(self, value: int, size: int) -> None:
        """Codes one integer below `size`, all equally likely."""
        self.uniform(np.array([value]), size)

    def number(self, value: int) -> None:
        """Codes a non-negative integer of unknown size: its bit length, then its bits below the leading one."""
        length = int(value).bit_length()
        self.symbol(length, _LENGTHS)
        if length > 1:
            self.integer(int(value) - (1 << (length - 1)), 1 << (length - 1))

    @no_type_check  # called once per bit
    def bit(self, value: int, one: int) -> None:
        """Codes one bit, which is 1 with probability `one` in units of 2^-16."""
        self._encoder.encode(value, _model(np.array([CERTAIN - one, one])))

    def raw(self, data: bytes | memoryview) -> None:
        """Appends bytes to the raw section."""
        self._raw.append(data)

    def claim(self, elements: int) -> None:
        """Announces that many non-zero entries."""
        self.elements += elements

    @property
    def words(self) -> int:
        """32-bit words that the range coder has emitted so far."""
        return int(self._encoder.pos()[0])

    def finish(self) -> tuple[list[bytes | memoryview], bytes]:
        """The raw section in pieces, and the shortest byte string that decodes to the symbols."""
        return self._raw, _seal(self._encoder)


def _seal(encoder: Any) -> bytes:
    """The final interval's number with the most trailing zero bytes, those dropped."""
    words = encoder.get_compressed()
    emitted, (lower, width) = encoder.pos()
    total = emitted + 2  # words once the 64-bit state is flushed in full
    point = int.from_bytes(words.astype(">u4").tobytes(), "big") << 32 * (total - words.size)
    # `lower` is the interval's low end modulo 2^64; `point` lies inside, which fixes the words above (with carries).
    low = point - (point - lower) % 2**64
    for shift in range(64, -1, -8):
        candidate = -(-low >> shift) << shift
        if candidate < low + width:
            return candidate.to_bytes(4 * total, "big").rstrip(b"\0")
    raise AssertionError("the interval is never empty")


class Reader:
    """Gives back what a `Writer` was given, and charges every bit to a stream.

    Attributes:
      ideal: (leaf, stream) -> information content in bits of the range-coded symbols.
      exact: (leaf, stream) -> bits of the raw section.
      version: Of the format the file is in.
      memory: What the leaves so far say about the next.
    """

    def __init__(self, raw: memoryview, stream: memoryview, file_bytes: int, version: int = 3) -> None:
        self.version = version
        self.memory = Memory()
        padded = bytes(stream) + bytes(-len(stream) % 4 + 8)
        self._decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, ">u4").astype(np.uint32))
        self._raw = raw
        self._offset = 0
        # Slack: dropped zeros, and the rounding of tiny probabilities.
        self._budget = _TOLERANCE * (8 * len(stream) + _SLACK)
        self._elements = payable_elements(file_bytes)
        self._account = ("", "metadata")
        self.ideal: defaultdict[tuple[str, str], float] = defaultdict(float)
        self.exact: defaultdict[tuple[str, str], int] = defaultdict(int)

    def charge(self, leaf: str, stream: str) -> None:
        """Everything read from now on belongs to this stream of this leaf."""
        self._account = (leaf, stream)

    def charge_stream(self, stream: str) -> None:
        """Everything read from now on belongs to this stream of the same leaf."""
        self._account = (self._account[0], stream)

    def afford(self, count: int, bits_each: float) -> None:
        """Refuses `count` symbols of at least `bits_each` if the rest of the stream cannot hold them."""
        if count * bits_each > self._budget:
            raise ValueError(f"The artefact declares {count} symbols, more than its data can hold: it is damaged.")

    def _spend(self, bits: float) -> None:
        self._budget -= bits
        self.ideal[self._account] += bits
        if self._budget < 0:
            raise ValueError("The artefact's symbols run past the end of its data: it is damaged.")

    def _decode(self, model: Any, count: int) -> np.ndarray:
        try:
            return self._decoder.decode(model, count)
        except AssertionError as error:
            raise ValueError("The artefact's entropy-coded data is not valid: it is damaged.") from error

    def symbols(self, count: int, weights: np.ndarray) -> np.ndarray:
        """Integers (int32, or the smallest unsigned type above 2^20 of them) coded by `Writer.symbols`."""
        kind = _dtype(count, weights.size)
        if weights.size < 2 or not count:
            return np.zeros(count, kind)
        cost = information(weights)
        self.afford(count, float(cost.min()))
        model = _model(weights)
        out: np.ndarray = np.empty(count, kind)
        for start in range(0, count, _CHUNK):
            part = self._decode(model, min(_CHUNK, count - start))
            self._spend(float(np.bincount(part, minlength=weights.size) @ cost))
            out[start : start + part.size] = part
        return out

    def symbol(self, weights: np.ndarray) -> int:
        """One integer coded by `Writer.symbol`."""
        return int(self.symbols(1, weights)[0])

    def uniform(self, count: int, size: int) -> np.ndarray:
        """Integers below `size` coded by `Writer.uniform`."""
        if size > _WORD:
            low = self.uniform(count, _WORD).astype(np.int64)
            out = low + _WORD * self.uniform(count, -(-size // _WORD)).astype(np.int64)
            if np.any(out >= size):
                raise ValueError("The artefact holds an integer beyond its declared range: it is damaged.")
            return out
        kind = _dtype(count, size)
        if size < 2 or not count:
            return np.zeros(count, kind)
        self.afford(count, math.log2(size))
        model = constriction.stream.model.Uniform(size)
        out = np.empty(count, kind)
        for start in range(0, count, _CHUNK):
            part = self._decode(model, min(_CHUNK, count - start))
            out[start : start + part.size] = part
        self._spend(count * math.log2(size))
        return out

    def integer(self, size: int) -> int:
        """One integer coded by `Writer.integer`."""
        return int(self.uniform(1, size)[0])

    def number(self) -> int:
        """One integer coded by `Writer.number`."""
        length = self.symbol(_LENGTHS)
        return (1 << (length - 1)) + self.integer(1 << (length - 1)) if length > 1 else length

    @no_type_check  # called once per bit
    def bit(self, one: int) -> int:
        """One bit coded by `Writer.bit`."""
        found = int(self._decode(_model(np.array([CERTAIN - one, one])), 1)[0])
        self._spend(-math.log2((one if found else CERTAIN - one) / CERTAIN))
        return found

    def raw(self, size: int) -> memoryview:
        """The next bytes of the raw section."""
        if size > len(self._raw) - self._offset:
            raise ValueError(f"The artefact declares {size} raw bytes, more than it holds: it is damaged.")
        self._offset += size
        self.exact[self._account] += 8 * size
        return self._raw[self._offset - size : self._offset]

    def claim(self, elements: int) -> None:
        """Refuses more non-zero entries than the file's length can pay for."""
        self._elements -= elements
        if self._elements < 0:
            raise ValueError(f"The artefact declares {elements} non-zero entries, more than its length allows.")

    def close(self) -> None:
        """Refuses left-over raw bytes."""
        if self._offset != len(self._raw):
            raise ValueError("The artefact holds raw bytes that belong to no leaf: it is damaged.")


def _dtype(count: int, size: int) -> type:
    if count <= _CHUNK or size > 1 << 16:
        return np.int32
    return np.uint8 if size <= 1 << 8 else np.uint16
