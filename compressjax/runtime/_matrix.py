"""The entries of a matrix, and every packed form made from them.

A dense leaf and a leaf of an artefact are the same thing here, a list of entries (row, column, value), so that the
second is packed without its dense form at any time.  Positions are 64-bit: with many weights left, the lists are larger
than the dense leaf would be.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np

import pallas_kernels as pk
from compressjax.runtime._formats import As

_INDEX_BYTES = 12  # of a block: its row, its column, its place in the other order


@dataclass(frozen=True, eq=False)
class Matrix:
    """The entries of a matrix [K, N] that exist; all others are zero.

    Attributes:
      shape: (K, N).
      positions: Row-major positions of the entries, ascending, int64 [n].
      values: [n], finite floats; zeros may be among them (weights that exist and are zero now).

    >>> Matrix((2, 2), np.array([3]), np.ones(1, np.float32)).rows.tolist()
    [1]
    """

    shape: tuple[int, int]
    positions: np.ndarray
    values: np.ndarray

    @cached_property
    def rows(self) -> np.ndarray:
        """Input of each entry."""
        return self.positions // self.shape[1]

    @cached_property
    def columns(self) -> np.ndarray:
        """Output of each entry."""
        return self.positions % self.shape[1]

    @cached_property
    def levels(self) -> "Levels | None":
        """The codes of its values, zero among them, if 8 bits are enough."""
        return fit_levels(np.append(self.values, np.zeros(1, self.values.dtype)))

    def size(self, form: As) -> int | None:
        """Bytes of `form`, but for its few pointers; None if it cannot hold these entries."""
        (k, n), item = self.shape, self.values.dtype.itemsize
        bits = self.levels.bits_for(form.block[0] if form.block else k) if form.levels and self.levels else form.bits
        if form.levels and bits is None:
            return None
        scale = 0 if bits is None else item
        if form.block:
            count, (bk, bn) = int(_stored(_exists(self, form.block)).sum()), form.block
            return count * (bk * bn * (bits or 8 * item) // 8 + bn * scale + _INDEX_BYTES)
        if form.channels:
            sizes = [np.unique(index).size or 1 for index in (self.rows, self.columns)]
            pointers = sum(4 * size for size, whole in zip(sizes, self.shape, strict=True) if size < whole)
            return sizes[0] * sizes[1] * item + pointers
        if form.nm:
            return form.nm[0] * k // form.nm[1] * n * (item + 1) if self.crowd(form.nm) is None else None
        return k * n * (bits or 8 * item) // 8 + n * scale

    def crowd(self, nm: tuple[int, int]) -> str | None:
        """Why the entries do not fit n:m, as a clause; None if they do."""
        (n, m), (k, outputs) = nm, self.shape
        if k % m:
            return f"groups of {m} do not divide its {k} inputs"
        most = int(np.unique(self.rows // m * outputs + self.columns, return_counts=True)[1].max(initial=0))
        return None if most <= n else f"a group of {m} inputs has {most} weights"

    def pack(self, form: As) -> Any:
        """The packed matrix, one of the formats of `pallas_kernels`.

        Raises:
          ValueError: If `form` cannot hold these entries.
        """
        if form.block:
            return self._blocks(form)
        if form.nm:
            return self._nm(*form.nm)
        if form.channels:
            return self._channels()
        if form.levels:
            found = self._found()
            zero = np.zeros(1, self.values.dtype)
            codes = np.full(self.shape, found.codes(zero)[0], np.int16)
            codes.reshape(-1)[self.positions] = found.codes(self.values)
            return found.pack(codes)
        dense = np.zeros(self.shape, self.values.dtype)
        dense.reshape(-1)[self.positions] = self.values
        if form.bits:
            return pk.Quantized.from_dense(dense, form.bits, form.group)
        return pk.Dense(jnp.asarray(dense))

    def _found(self) -> "Levels":
        if self.levels is None:
            raise ValueError("its weights take more than 256 values")
        return self.levels

    def _blocks(self, form: As) -> pk.BlockSparse:
        assert form.block is not None
        (bk, bn), tall = form.block, -(-self.shape[0] // form.block[0])
        exists = _exists(self, form.block)
        stored = np.flatnonzero(_stored(exists))
        place = np.searchsorted(stored, self.columns // bn * tall + self.rows // bk)
        values = np.zeros((stored.size, bk, bn), self.values.dtype)
        values[place, self.rows % bk, self.columns % bn] = self.values
        if form.bits:
            packed: Any = pk.Quantized.from_dense(values, form.bits)
        elif form.levels:
            packed = self._found().pack(self._found().codes(values))
        else:
            packed = jnp.asarray(values)
        return pk.BlockSparse.from_blocks(packed, stored % tall, stored // tall, self.shape, exists.reshape(-1)[stored])

    def _nm(self, n: int, m: int) -> pk.NM:
        why = self.crowd((n, m))
        if why is not None:
            raise ValueError(why)
        (k, outputs), inner = self.shape, self.rows % m
        exists = np.zeros((k // m, m, outputs), np.bool_)
        exists.reshape(-1)[self.positions] = True
        # Weights in their order; the place of those that a group lacks is m, with which nothing multiplies.
        plane = np.zeros((k // m, outputs), np.int8)
        values = np.zeros((n, k // m, outputs), self.values.dtype)
        indices = np.full(values.shape, m, np.int8)
        for j in range(m):
            mine = inner == j
            group, column = self.rows[mine] // m, self.columns[mine]
            values[plane[group, column], group, column] = self.values[mine]
            indices[plane[group, column], group, column] = j
            plane = plane + exists[:, j]
        return pk.NM(jnp.asarray(values), jnp.asarray(indices), self.shape, m)

    def _channels(self) -> pk.Channels:
        kept = [np.unique(index) if index.size else np.zeros(1, np.int64) for index in (self.rows, self.columns)]
        values = np.zeros((kept[0].size, kept[1].size), self.values.dtype)
        values[np.searchsorted(kept[0], self.rows), np.searchsorted(kept[1], self.columns)] = self.values
        inputs, outputs = (
            None if index.size == size else jnp.asarray(index.astype(np.int32))
            for index, size in zip(kept, self.shape, strict=True)
        )
        return pk.Channels(jnp.asarray(values), inputs, outputs, self.shape)


def _exists(matrix: Matrix, block: tuple[int, int]) -> np.ndarray:
    """Which blocks have an entry, bool [output blocks, input blocks]."""
    tall, wide = (-(-size // by) for size, by in zip(matrix.shape, block, strict=True))
    out = np.zeros((wide, tall), np.bool_)
    out.reshape(-1)[matrix.columns // block[1] * tall + matrix.rows // block[0]] = True
    return out


def _stored(exists: np.ndarray) -> np.ndarray:
    """These blocks, and a zero block where an output or an input block has none: kernels write every output."""
    out = exists.copy()
    out[~out.any(1), 0] = True
    out[0, ~out.any(0)] = True
    return out


@dataclass(frozen=True, eq=False)
class Levels:
    """A few values and the codes that stand for them exactly: ``code * scale``, or ``codebook[code]``.

    Attributes:
      values: The values, ascending.
      code: Of each value, int16.
      scale: A scalar.
      codebook: The values themselves, or None for evenly spaced ones.

    >>> found = fit_levels(np.array([-0.5, 0.0, 0.25], np.float32))
    >>> found.code.tolist(), float(found.scale)
    ([-2, 0, 1], 0.25)
    """

    values: np.ndarray
    code: np.ndarray
    scale: np.ndarray
    codebook: np.ndarray | None

    def bits_for(self, inputs: int) -> int:
        """Bits per code: 4 if all codes fit and two of them make a byte, else 8."""
        low, high = (0, 15) if self.codebook is not None else (-8, 7)
        return 4 if inputs % 2 == 0 and self.code.min() >= low and self.code.max() <= high else 8

    def codes(self, values: np.ndarray) -> np.ndarray:
        """The codes of values that are all among the levels."""
        return self.code[np.searchsorted(self.values, values)]

    def pack(self, codes: np.ndarray) -> pk.Quantized:
        """Codes [..., K, N] with one scale everywhere."""
        scale = np.full((*codes.shape[:-2], 1, codes.shape[-1]), self.scale)
        return pk.Quantized.from_codes(codes, scale, self.codebook, bits=self.bits_for(codes.shape[-2]))


_MOST_LEVELS = 256


def fit_levels(values: np.ndarray) -> Levels | None:
    """Codes for the distinct values of an array that holds a zero; None if there are more than 256.

    Even spacing is tried first, with the smallest magnitude as one to eight times the scale, and taken only if every
    product has the bits of its value, and unless a codebook needs half the bits.
    """
    levels = np.unique(values)
    if levels.size > _MOST_LEVELS:
        return None
    even = _evenly_spaced(levels)
    book = Levels(levels, np.arange(levels.size, dtype=np.int16), np.ones((), values.dtype), levels)
    return book if even is None or (even.bits_for(2), book.bits_for(2)) == (8, 4) else even


def _evenly_spaced(levels: np.ndarray) -> Levels | None:
    smallest = np.abs(levels[levels != 0]).min(initial=np.inf)
    for multiple in range(1, 9) if np.isfinite(smallest) else ():
        scale = np.asarray(smallest / multiple, levels.dtype)
        if scale == 0:
            break
        code = np.rint(levels.astype(np.float64) / float(scale))
        if np.abs(code).max() <= 127 and (code.astype(levels.dtype) * scale == levels).all():
            return Levels(levels, code.astype(np.int16), scale, None)
    return None
