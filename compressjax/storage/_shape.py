"""Shapes: what follows from the leaves before costs a fraction of a bit, anything else a number.

A kernel has as many outputs as the bias before it, as many inputs as the kernel before it had outputs (or, behind a
flattened image, a multiple), and is square.  Version 1 of the format knew only the first of these.
"""

import numpy as np

from compressjax.storage._coder import Reader, Writer

_NDIM = np.array([8, 64, 48, 8, 64, 8, 4] + [1] * 26, np.float64)
MOST_AXES = _NDIM.size - 1
_SAME = np.array([1, 7], np.float64)
_SQUARE = np.array([1, 7], np.float64)
_INPUTS = np.array([2, 9, 5], np.float64)  # another number, the outputs before, a multiple of them
_OTHER, _EQUAL, _MULTIPLE = range(3)


def write(writer: Writer, shape: tuple[int, ...]) -> None:
    """Codes a shape."""
    memory = writer.memory
    writer.symbol(len(shape), _NDIM)
    for axis, size in enumerate(shape):
        if axis == len(shape) - 1:
            if axis and memory.last:
                writer.symbol(int(size == memory.last[-1]), _SAME)
                if size == memory.last[-1]:
                    continue
        elif axis == len(shape) - 2:
            if memory.outputs:
                how = _relation(size, memory.outputs)
                writer.symbol(how, _INPUTS)
                if how == _MULTIPLE:
                    writer.number(size // memory.outputs)
                if how != _OTHER:
                    continue
        elif axis:
            writer.symbol(int(size == shape[axis - 1]), _SQUARE)
            if size == shape[axis - 1]:
                continue
        writer.number(size)


def read(reader: Reader) -> tuple[int, ...]:
    """The shape coded by `write`, or by version 1."""
    memory = reader.memory
    ndim = reader.symbol(_NDIM)
    shape: list[int] = []
    for axis in range(ndim):
        known = None
        if axis == ndim - 1:
            if axis and memory.last and reader.symbol(_SAME):
                known = memory.last[-1]
        elif reader.version > 1:
            known = _predicted(reader, shape, memory.outputs if axis == ndim - 2 else None)
        shape.append(reader.number() if known is None else known)
    return tuple(shape)


def _predicted(reader: Reader, shape: list[int], outputs: int | None) -> int | None:
    """The next axis if it is not spelt out; `outputs` for the axis of inputs, None for those before it."""
    if outputs is None:
        return shape[-1] if shape and reader.symbol(_SQUARE) else None
    how = reader.symbol(_INPUTS) if outputs else _OTHER
    if how == _OTHER:
        return None
    return outputs if how == _EQUAL else outputs * reader.number()


def _relation(size: int, outputs: int) -> int:
    if size == outputs:
        return _EQUAL
    return _MULTIPLE if size and size % outputs == 0 else _OTHER
