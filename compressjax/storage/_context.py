"""Context coding: integer levels and where they are, entry by entry, each bit predicted from those before it.

A leaf is seen as positions x inputs x outputs: a convolution with its kernel positions, a matrix as one position, a
matrix behind a flattened image with the positions of that image, a vector as outputs.  For every input, output and
position in turn is coded

    is it non-zero?      in the contexts of its position, input, output, kernel, row, filter position and neighbours
    its sign             likewise
    its magnitude        its bit length in unary, in fewer contexts, and the bits below the leading one

by the predictions of `_mixing`.  Nothing else is stored, no count and no table: the model is learned on the way, and
the weights of its mixtures go on from leaf to leaf.

Source: Wiedemann et al., "DeepCABAC: A Universal Compression Algorithm for Deep Neural Networks", IEEE JSTSP 2020
(arXiv 1907.11900), for context-adaptive binary coding of weights.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, no_type_check

import numpy as np

from compressjax.storage._coder import Reader, Writer
from compressjax.storage._logistic import CERTAIN
from compressjax.storage._memory import Memory
from compressjax.storage._mixing import Bit, Kind, Predictor

LARGEST = 1 << 16  # entries of a leaf: each takes a dozen microseconds
HIGHEST = (1 << 15) - 1  # magnitude of a level
_LENGTHS = 15  # bits of that
_BELIEF = 20_000
SIGNIFICANCE = Kind("significance", 8, _BELIEF, ones=1, zeros=7, slowness=8)
SIGN = Kind("sign", 8, _BELIEF, ones=1, zeros=1, slowness=4)
MAGNITUDE = Kind("magnitude", 5, _BELIEF, ones=1, zeros=1, slowness=6)


class View(NamedTuple):
    """A leaf as (positions, inputs, outputs); `row` positions make a row of the image or kernel."""

    positions: int
    inputs: int
    outputs: int
    row: int


def view_of(shape: Sequence[int], memory: Memory) -> View:
    """The view of a leaf of this shape behind the leaves that `memory` has seen.

    >>> view_of((5, 5, 10, 24), Memory()), view_of((384, 80), Memory(outputs=24))
    (View(positions=25, inputs=10, outputs=24, row=5), View(positions=16, inputs=24, outputs=80, row=4))
    """
    if len(shape) < 2:
        return View(1, 1, math.prod(shape), 1)
    if len(shape) > 2:
        return View(math.prod(shape[:-2]), shape[-2], shape[-1], max(shape[-3], 1))
    rows, known = shape[0], memory.outputs
    positions = rows // known if rows and known and rows % known == 0 else 1
    return View(positions, rows // positions, shape[1], math.isqrt(positions))


def cost(codes: np.ndarray, shape: Sequence[int], memory: Memory, *, binary: bool = False) -> float:
    """Bits of a leaf's levels; infinity for leaves that are too large.

    Args:
      codes: Flat integers, or a mask.
      shape: The leaf's shape.
      memory: What the leaves before have left; it is not changed.
      binary: Whether only positions are stored.
    """
    if codes.size > LARGEST:
        return math.inf
    spent = 0.0

    @no_type_check
    def bit(kind: Kind, value: int, one: int) -> int:
        nonlocal spent
        spent -= math.log2((one if value else CERTAIN - one) / CERTAIN)
        return value

    _scan(view_of(shape, memory), codes.tolist(), memory.copy(), bit, binary)
    return spent


def write(writer: Writer, codes: np.ndarray, shape: Sequence[int], *, binary: bool = False) -> None:
    """Codes a leaf's levels."""

    @no_type_check
    def bit(kind: Kind, value: int, one: int) -> int:
        writer.bit(value, one)
        return value

    writer.claim(int(np.count_nonzero(codes)))
    _scan(view_of(shape, writer.memory), codes.tolist(), writer.memory, bit, binary)


def read(reader: Reader, shape: Sequence[int], *, binary: bool = False) -> np.ndarray:
    """The flat levels coded by `write` (int64), or the flat mask."""
    size = math.prod(shape)
    if size > LARGEST:
        raise ValueError(f"The artefact codes a leaf of shape {tuple(shape)} entry by entry: it is damaged.")

    @no_type_check
    def bit(kind: Kind, value: int, one: int) -> int:
        reader.charge_stream("positions" if kind is SIGNIFICANCE else "values")
        return reader.bit(one)

    codes = np.array(_scan(view_of(shape, reader.memory), [0] * size, reader.memory, bit, binary), np.int64)
    reader.claim(int(np.count_nonzero(codes)))
    return codes != 0 if binary else codes


@no_type_check  # as for what it calls
def _scan(view: View, codes: Sequence[int], memory: Memory, bit: Bit, binary: bool) -> list[int]:
    """Takes all levels of a leaf, in C order of the view, through `bit`; leaves the weights in `memory`."""
    predictors = [Predictor(kind, memory.weights.get(kind.name)) for kind in (SIGNIFICANCE, SIGN, MAGNITUDE)]
    significance, sign, magnitude = predictors

    def sized(size: int, contexts: Sequence[int]) -> int:
        """A magnitude of at least 1; every length has contexts of its own."""
        length = 1
        while length < _LENGTHS and magnitude.code(int(size >> length > 0), [32 * c + length for c in contexts], bit):
            length += 1
        found = 1
        for place in range(length - 2, -1, -1):
            ask = size >> place & 1
            if place == length - 2:
                found = 2 + magnitude.code(ask, [32 * c + 16 + length for c in contexts], bit)
            else:
                found = 2 * found + bit(MAGNITUDE, ask, CERTAIN // 2)
        return found

    outputs, row, plane = view.outputs, view.row, view.inputs * view.outputs
    levels = [0] * (view.positions * plane)
    for i in range(view.inputs):
        for o in range(outputs):
            kernel = i * outputs + o
            for t in range(view.positions):
                here = t * plane + kernel
                above = levels[here - row * plane] if t >= row else 0
                left = levels[here - plane] if t % row else 0
                before = levels[here - outputs] if i else 0
                beside = levels[here - 1] if o else 0
                places = (t, i, o, kernel, t * view.inputs + i, t * outputs + o)
                near = (above != 0) + (left != 0), 2 * (before != 0) + (beside != 0)
                value = codes[here]
                if not significance.code(int(value != 0), places + near, bit):
                    continue
                if binary:
                    levels[here] = 1
                    continue
                near = _pair(above, left), _pair(before, beside)
                negative = sign.code(int(value < 0), places + near, bit)
                large = abs(above) + abs(left) > 1, abs(before) + abs(beside) > 1
                size = sized(abs(value), (0, i, o, *large))
                levels[here] = -size if negative else size
    memory.weights.update((predictor.kind.name, predictor.weights) for predictor in predictors)
    return levels


@no_type_check
def _pair(a: int, b: int) -> int:
    """The signs of two neighbours, as one number."""
    return 3 * ((a > 0) - (a < 0)) + (b > 0) - (b < 0)
