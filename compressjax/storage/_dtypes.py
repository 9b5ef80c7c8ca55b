"""The dtypes an artefact can hold, and arrays as bit patterns.

Values are compared and stored as unsigned bit patterns, so that -0.0 differs from 0.0 and nothing is rounded.
"""

import ml_dtypes
import numpy as np

# The position in this tuple is the dtype's number in the file format: new ones go to the end.
DTYPES: tuple[np.dtype, ...] = tuple(
    np.dtype(t)
    for t in (
        np.float32,
        ml_dtypes.bfloat16,
        np.float16,
        np.float64,
        np.int8,
        np.int16,
        np.int32,
        np.int64,
        np.uint8,
        np.uint16,
        np.uint32,
        np.uint64,
        np.bool_,
    )
)
_FLOATS = DTYPES[:4]
_SCAN = 1 << 20


def is_float(dtype: np.dtype) -> bool:
    """Whether the dtype is one of the floating-point ones."""
    return dtype in _FLOATS


def narrower(dtype: np.dtype) -> tuple[np.dtype, ...]:
    """Dtypes of fewer bytes that may hold the same values exactly, in a fixed order.

    >>> [str(t) for t in narrower(np.dtype(np.float32))]
    ['bfloat16', 'float16']
    """
    if is_float(dtype):
        family: tuple[np.dtype, ...] = _FLOATS
    else:
        family = tuple(t for t in DTYPES if t.kind == dtype.kind)
    smaller = [t for t in family if t.itemsize < dtype.itemsize]
    return tuple(sorted(smaller, key=lambda t: t.itemsize))


def patterns(x: np.ndarray) -> np.ndarray:
    """The bit patterns of a contiguous flat array, as unsigned integers of the same width (a view).

    >>> patterns(np.array([0.0, -0.0], np.float16))
    array([    0, 32768], dtype=uint16)
    """
    return x.view(np.dtype(f"u{x.dtype.itemsize}"))


def little_endian(x: np.ndarray) -> memoryview:
    """The bytes of a contiguous flat array, least significant first (a view on little-endian machines)."""
    bits = patterns(x)
    return bits.astype(bits.dtype.newbyteorder("<"), copy=False).view(np.uint8).data


def from_little_endian(data: memoryview, dtype: np.dtype) -> np.ndarray:
    """A fresh array from bytes, least significant first."""
    unsigned = np.dtype(f"u{dtype.itemsize}")
    return np.frombuffer(data, unsigned.newbyteorder("<")).astype(unsigned).view(dtype)


def exactly(x: np.ndarray, dtype: np.dtype) -> bool:
    """Whether every entry of a flat array survives the trip to `dtype` and back, bit for bit.

    >>> exactly(np.array([0.5, -3.0], np.float32), np.dtype(np.float16))
    True
    """
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        return all(
            np.array_equal(patterns(part), patterns(part.astype(dtype).astype(x.dtype)))
            for part in (x[start : start + _SCAN] for start in range(0, x.size, _SCAN))
        )


def all_finite(x: np.ndarray) -> bool:
    """Whether a flat array has neither NaN nor infinity; integers always pass."""
    if not is_float(x.dtype):
        return True
    return all(bool(np.isfinite(x[start : start + _SCAN]).all()) for start in range(0, x.size, _SCAN))


def nonzero(x: np.ndarray) -> np.ndarray:
    """Flat mask of the entries that are not +0: the sign of -0.0 is information too.

    >>> nonzero(np.array([0.0, -0.0, 2.0], np.float32))
    array([False,  True,  True])
    """
    return patterns(x) != 0
