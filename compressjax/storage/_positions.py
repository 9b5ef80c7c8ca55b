"""Position codecs: where the non-zeros of a leaf are.

A codec turns a mask (any shape, True where an entry is non-zero) into bits and back.  Members are stateless; the
registry `CODECS` fixes their numbers in the file format, so new members go to its end.  Each has

    cost(support)          -> bits, from a formula, without encoding anything
    write(writer, support)
    read(reader, shape)    -> flat mask

`Context` predicts positions from those already coded.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np

from compressjax.storage import _context, _gaps, _packed
from compressjax.storage._coder import Reader, Writer
from compressjax.storage._memory import Memory


@dataclass(frozen=True, eq=False)
class Support:
    """The non-zero entries of a leaf.

    Attributes:
      mask: Flat bool array in C order.
      shape: The leaf's shape.
      memory: What the leaves before say.
    """

    mask: np.ndarray
    shape: tuple[int, ...]
    memory: Memory

    @cached_property
    def count(self) -> int:
        """Number of non-zeros."""
        return int(np.count_nonzero(self.mask))

    @cached_property
    def gaps(self) -> np.ndarray:
        """Runs of zeros before each non-zero (uint32)."""
        return _gaps.from_mask(self.mask, self.count)


@runtime_checkable
class PositionCodec(Protocol):
    """See the module docstring."""

    @property
    def name(self) -> str:
        """What `account` and the printer call it."""
        ...

    def cost(self, support: Support) -> float:
        """Bits it would take; infinity where it does not apply."""
        ...

    def write(self, writer: Writer, support: Support) -> None:
        """Codes the mask."""
        ...

    def read(self, reader: Reader, shape: tuple[int, ...]) -> np.ndarray:
        """The flat mask."""
        ...


@dataclass(frozen=True)
class Entropy:
    """Gaps under the geometric law of iid positions, range-coded: within a few bits of N H(k/N)."""

    name: str = "entropy"

    def cost(self, support: Support) -> float:
        """Closed form in the count, the sum and the largest of the gaps."""
        return _gaps.cost(support.gaps, support.mask.size)

    def write(self, writer: Writer, support: Support) -> None:
        """Count, digits per gap, digit planes."""
        _gaps.write(writer, support.gaps, support.mask.size)

    def read(self, reader: Reader, shape: tuple[int, ...]) -> np.ndarray:
        """The flat mask."""
        return _gaps.read(reader, _size(shape))


@dataclass(frozen=True)
class Bitmap:
    """One bit per entry."""

    name: str = "bitmap"

    def cost(self, support: Support) -> float:
        """N, rounded up to bytes."""
        return 8.0 * (-(-support.mask.size // 8))

    def write(self, writer: Writer, support: Support) -> None:
        """N bits of raw data."""
        writer.raw(np.packbits(support.mask).tobytes())

    def read(self, reader: Reader, shape: tuple[int, ...]) -> np.ndarray:
        """The flat mask."""
        size = _size(shape)
        data = np.frombuffer(reader.raw(-(-size // 8)), np.uint8)
        mask = np.unpackbits(data, count=size).view(np.bool_)
        reader.claim(int(np.count_nonzero(mask)))
        return mask


@dataclass(frozen=True)
class Relative:
    """Fixed-width gaps with fillers (Deep Compression), the width scanned per leaf."""

    name: str = "relative"

    def cost(self, support: Support) -> float:
        """(k + fillers) g for the best g."""
        return _packed.relative_cost(support.gaps, support.mask.size)

    def write(self, writer: Writer, support: Support) -> None:
        """Width, number of fields, fields."""
        _packed.write_relative(writer, support.gaps)

    def read(self, reader: Reader, shape: tuple[int, ...]) -> np.ndarray:
        """The flat mask."""
        return _packed.read_relative(reader, _size(shape))


@dataclass(frozen=True)
class Csr:
    """Compressed sparse rows over the last axis: row pointers and column numbers of fixed width."""

    name: str = "csr"

    def cost(self, support: Support) -> float:
        """Fields of k ceil(log2 columns) + (rows + 1) ceil(log2(k + 1)); leaves without a last axis do not apply."""
        return _packed.csr_cost(support.shape, support.count)

    def write(self, writer: Writer, support: Support) -> None:
        """Count, pointers, columns."""
        _packed.write_csr(writer, support.mask, support.shape)

    def read(self, reader: Reader, shape: tuple[int, ...]) -> np.ndarray:
        """The flat mask."""
        return _packed.read_csr(reader, shape)


@dataclass(frozen=True)
class Context:
    """One flag per entry, predicted from those before it in its row, column, kernel and neighbourhood.

    Where values are equally spaced, they are coded in the same scan (`_context`).
    """

    name: str = "context"

    def cost(self, support: Support) -> float:
        """By trial; infinite for leaves of more than 65,536 entries."""
        return _context.cost(support.mask, support.shape, support.memory, binary=True)

    def write(self, writer: Writer, support: Support) -> None:
        """N predicted flags."""
        _context.write(writer, support.mask, support.shape, binary=True)

    def read(self, reader: Reader, shape: tuple[int, ...]) -> np.ndarray:
        """The flat mask."""
        return _context.read(reader, shape, binary=True)


CODECS: tuple[PositionCodec, ...] = (Entropy(), Bitmap(), Relative(), Csr(), Context())


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))
