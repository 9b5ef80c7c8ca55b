"""The artefact file: a compressed parameter tree that `decode` gives back bit for bit.

Layout:

    "cjx"  version (1 byte)  CRC-32 of the version and all that follows (4 bytes, little-endian)
    length (varint)  names and metadata (`_text`)
    length (varint)  raw section: incompressible values, fixed-width indices
    range-coded stream, to the end: integers of the metadata; then leaf by leaf dtype, shape, codec choices, codebooks,
    positions, values

Version 2 added context coding, predicts shapes better and codes the metadata's integers apart.  Version 3 takes the
version into the checksum: one damaged into another was read by other rules.  Files of both before it are read as ever.

Leaves are addressed as everywhere in the library, by path; what is decoded is the nested dictionary of those paths,
whatever containers were encoded (tuples become dictionaries with keys "0", "1" ...).
"""

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from compressjax import trees
from compressjax.storage import _leaf, _positions, _text
from compressjax.storage._coder import Reader, Writer, padding_for, zeros_for
from compressjax.storage._dtypes import is_float
from compressjax.storage._positions import PositionCodec

MAGIC = b"cjx"
MAX_ELEMENTS = 1 << 30
_START = len(MAGIC) + 1 + 4
_DEEPEST = 64


@dataclass(frozen=True)
class Artifact:
    """A decoded artefact.

    Attributes:
      params: Nested dictionary of NumPy arrays.
      meta: Metadata given to `encode`; tuples come back as lists.

    >>> artifact = decode(encode({"w": np.ones(2)}, {"model": "toy"}))
    >>> artifact.params, artifact.meta
    ({'w': array([1., 1.])}, {'model': 'toy'})
    """

    params: dict[str, Any]
    meta: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Parsed:
    """Everything a file says: the leaves in order, the metadata, and the reader with its charges."""

    leaves: dict[str, _leaf.Stored]
    meta: dict[str, Any]
    reader: Reader
    stream_bytes: int


def encode(
    tree: trees.Tree,
    meta: _text.Meta | None = None,
    *,
    positions: Sequence[PositionCodec] = _positions.CODECS,
) -> bytes:
    """Compresses a parameter tree to bytes; `decode` restores every bit.

    Per leaf the smallest of all combinations of structure (dropped slices), position codec and value codec is taken.
    The sign of -0.0 is kept too, and costs as much as any non-zero: see `positive_zeros`.

    Args:
      tree: Nested dictionaries (or any pytree) of arrays: floats, integers, booleans; scalars and empty arrays too.
      meta: What a reader needs to rebuild the model: strings, integers, floats, lists of integers.
      positions: Position codecs to choose from, members of `POSITION_CODECS`.

    Returns:
      The contents of a `.cjx` file; the same input gives the same bytes.

    Raises:
      ValueError: For NaN or infinity, a dtype that cannot be stored, or a path that cannot be rebuilt.

    >>> data = encode({"fc": {"kernel": np.array([[0, 0.5], [-0.5, 0]], np.float32)}}, {"model": "tiny"})
    >>> decode(data).params["fc"]["kernel"].tolist()
    [[0.0, 0.5], [-0.5, 0.0]]
    """
    unknown = [codec for codec in positions if codec not in _positions.CODECS]
    if unknown:
        raise ValueError(f"Position codec {unknown[0]!r} is not part of the file format: use POSITION_CODECS.")
    leaves = {path: _as_array(leaf, path) for path, leaf in _addressable(tree).items()}
    for path, array in leaves.items():
        _leaf.storable(array, path)
    text, integers = _text.deflate(list(leaves), meta or {})

    writer = Writer()
    for integer in integers:
        writer.number(integer)
    for array in leaves.values():
        _leaf.write(writer, array, positions)
    raw, stream = writer.finish()
    pieces = [_varint(len(text)), text, _varint(sum(map(len, raw))), *raw, stream]
    padding = padding_for(writer.elements, _START + sum(map(len, pieces)))
    pieces.append(bytes(max(padding, zeros_for(writer.words, len(stream)))))
    sealed = checksum(_leaf.VERSION, pieces).to_bytes(4, "little")
    return b"".join([MAGIC, bytes([_leaf.VERSION]), sealed, *pieces])


def decode(data: bytes, *, max_elements: int = MAX_ELEMENTS) -> Artifact:
    """Restores the tree and metadata from the bytes of an artefact.

    Args:
      data: What `encode` returned.
      max_elements: Refuse files that unfold to more entries than this.

    Returns:
      Parameters as a nested dictionary of fresh NumPy arrays, and metadata.

    Raises:
      ValueError: If the bytes are no artefact, truncated, damaged or of a newer version.

    >>> decode(encode({"a": np.arange(3)}, {"widths": [3]}))
    Artifact(params={'a': array([0, 1, 2])}, meta={'widths': [3]})
    """
    parsed = parse(data, max_elements)
    with in_memory():
        return Artifact(_nest({path: leaf.array for path, leaf in parsed.leaves.items()}), parsed.meta)


def save(path: str | os.PathLike[str], tree: trees.Tree, meta: _text.Meta | None = None) -> int:
    """Writes `encode(tree, meta)` to a file, whole or not at all.

    The bytes go to a temporary file in the same directory, which replaces `path` once it is safely on disk.

    Args:
      path: The file to write; an existing one is replaced.
      tree: As for `encode`.
      meta: As for `encode`.

    Returns:
      The file's length in bytes.

    Raises:
      ValueError: As for `encode`; nothing is written.
      OSError: If the directory cannot be written; `path` is untouched.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     size = save(folder + "/model.cjx", {"a": np.ones(3)})
    ...     load(folder + "/model.cjx").params
    {'a': array([1., 1., 1.])}
    """
    data = encode(tree, meta)
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if hasattr(os, "O_DIRECTORY"):  # make the rename itself durable where directories can be opened
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return len(data)


def load(path: str | os.PathLike[str], *, max_elements: int = MAX_ELEMENTS) -> Artifact:
    """Reads a file written by `save`.

    Args:
      path: The file.
      max_elements: As for `decode`.

    Returns:
      As `decode`.

    Raises:
      ValueError: As for `decode`, with the file's name in front.
      OSError: If the file cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     size = save(folder + "/model.cjx", {"a": np.zeros(3)})
    ...     load(folder + "/model.cjx").params["a"].shape
    (3,)
    """
    data = Path(path).read_bytes()
    try:
        return decode(data, max_elements=max_elements)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error


def parse(data: bytes, max_elements: int) -> Parsed:
    """Reads a whole file; every complaint is a ValueError."""
    if data[: len(MAGIC)] != MAGIC[: len(data)] or not data:
        raise ValueError("This is not a compressjax artefact: it does not start with 'cjx'.")
    if len(data) < _START:
        raise ValueError(f"The artefact is truncated: {len(data)} bytes are less than its fixed header.")
    if not 1 <= data[len(MAGIC)] <= _leaf.VERSION:
        raise ValueError(
            f"The artefact has format version {data[len(MAGIC)]}, this library reads up to {_leaf.VERSION}: "
            "use the release of compressjax that wrote it, or a newer one."
        )
    view = memoryview(data)
    version = data[len(MAGIC)]
    if checksum(version, [view[_START:]]) != int.from_bytes(view[len(MAGIC) + 1 : _START], "little"):
        raise ValueError("The artefact's checksum does not match its contents: it is truncated or damaged.")
    with in_memory():
        return _parse_checked(view, max_elements, version)


def checksum(version: int, pieces: Sequence[bytes | memoryview]) -> int:
    """CRC-32 of a file: of its version, from version 3 on, and of what follows the checksum."""
    found = zlib.crc32(bytes([version])) if version > 2 else 0
    for piece in pieces:
        found = zlib.crc32(piece, found)
    return found


@contextmanager
def in_memory() -> Iterator[None]:
    """Turns running out of memory into a complaint about the file."""
    try:
        yield
    except (MemoryError, OverflowError) as error:
        raise ValueError("The artefact declares arrays that do not fit in memory: it is damaged.") from error


def _parse_checked(view: memoryview, max_elements: int, version: int) -> Parsed:
    text, position = _section(view, _START)
    raw, position = _section(view, position)
    reader = Reader(raw, view[position:], len(view), version)
    paths, meta = _text.inflate(bytes(text), version, reader.number)
    if len(set(paths)) != len(paths):
        raise ValueError("The artefact names a leaf twice: it is damaged.")
    for path in paths:
        if path.count("/") >= _DEEPEST:
            raise ValueError(f"The artefact nests leaves deeper than {_DEEPEST} levels: it is damaged.")

    leaves: dict[str, _leaf.Stored] = {}
    for path in paths:
        leaf = _leaf.read(reader, path, max_elements)
        max_elements -= leaf.size
        leaves[path] = leaf
    reader.close()
    return Parsed(leaves, meta, reader, len(view) - position)


def _section(view: memoryview, position: int) -> tuple[memoryview, int]:
    """A length and as many bytes; the position behind them."""
    length = 0
    for shift in range(0, 63, 7):
        if position >= len(view):
            break
        byte = view[position]
        position += 1
        length |= (byte & 127) << shift
        if byte < 128:
            if length > len(view) - position:
                break
            return view[position : position + length], position + length
    raise ValueError("The artefact declares a section longer than itself: it is damaged.")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _as_array(leaf: Any, path: str) -> np.ndarray:
    try:
        array = np.asarray(leaf)
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    except Exception as error:  # typed PRNG keys, arrays of other processes, arbitrary objects
        raise ValueError(f"Leaf {path!r} is not an array that can be stored: {error}") from error


def positive_zeros(tree: trees.Tree) -> trees.Tree:
    """The tree with every -0.0 replaced by 0.0, as NumPy arrays.

    A negative weight times a zero of a mask is -0.0.  `encode` keeps every bit, so such an entry is a non-zero to it
    with a position and a value of its own: a pruned network should pass through here first.  The result compares equal.

    Args:
      tree: Any pytree of arrays.

    Returns:
      The same structure; arrays without -0.0 are not copied.

    >>> positive_zeros({"kernel": np.array([-0.0, -1.0], np.float32)})
    {'kernel': array([ 0., -1.], dtype=float32)}
    """

    def clean(leaf: Any) -> np.ndarray:
        array = np.asarray(leaf)
        if not is_float(array.dtype) or not np.any((array == 0) & np.signbit(array)):
            return array
        return np.where(array == 0, np.zeros((), array.dtype), array)

    return jax.tree.map(clean, tree)


def _addressable(tree: trees.Tree) -> dict[str, Any]:
    """The leaves by path, each of which must lead back to the same place in a nested dictionary."""
    for key_path, _ in jax.tree_util.tree_leaves_with_path(tree):
        path = trees.path_string(key_path)
        if not key_path:
            raise ValueError("A bare array has no path to be stored under: put it in a dictionary.")
        if any("/" in trees.path_string((key,)) for key in key_path):
            raise ValueError(f"Leaf {path!r} has a key with '/' in it, which paths use to separate keys: rename it.")
        if "\n" in path or "\0" in path or path.count("/") >= _DEEPEST or path == "":
            raise ValueError(
                f"Leaf {path!r} cannot be stored under this path: use printable keys, nested less than {_DEEPEST} deep."
            )
    leaves = trees.leaves(tree)
    _nest(leaves)
    return leaves


def _nest(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dictionary with these leaves."""
    out: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *folders, name = path.split("/")
        place = out
        for folder in folders:
            place = place.setdefault(folder, {})
            if not isinstance(place, dict):
                raise ValueError(f"Leaf {path!r} lies below another leaf: rename one of them.")
        if name in place:
            raise ValueError(f"Leaf {path!r} has the path of a folder: rename one of them.")
        place[name] = leaf
    return out
