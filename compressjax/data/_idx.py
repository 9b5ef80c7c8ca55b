"""IDX, the file format of MNIST and Fashion-MNIST.

Two zero bytes, one byte for the element type (8 is uint8), one for the number of axes, then one big-endian 32-bit
integer per axis, then the elements in C order.

Reference: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", 1998.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

_UINT8 = 8


def read_idx(path: Path) -> UInt8[np.ndarray, "..."]:
    """Reads an IDX file of bytes, gzipped if its name ends in ``.gz``.

    Args:
      path: The file.

    Returns:
      The array that the file holds; read-only.

    Raises:
      ValueError: If the file is truncated, longer than it declares, or not an IDX file of bytes.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "tiny"
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
    ...     read_idx(path)
    array([7, 8, 9], dtype=uint8)
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not an intact gzip file ({error}): delete it and fetch it again.") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _UINT8:
        raise ValueError(
            f"{path} is not an IDX file of bytes: it must start with 00 00 08, but has {data[:4].hex(' ')}."
        )
    axes = data[3]
    start = 4 + 4 * axes
    shape = tuple(int(n) for n in np.frombuffer(data[4 : min(start, len(data) // 4 * 4)], ">u4"))
    size = math.prod(shape)
    if len(shape) != axes or len(data) - start != size:
        raise ValueError(
            f"{path} is truncated or damaged: shape {shape} needs {size} bytes after the header, the file has "
            f"{max(len(data) - start, 0)}. Delete it and fetch it again."
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
