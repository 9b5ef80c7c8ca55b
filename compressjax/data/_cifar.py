"""CIFAR-10 and CIFAR-100: the original binary version, and lossless WebP sheets of CIFAR-10.

Binary record: the label bytes (one for CIFAR-10; coarse, then fine for CIFAR-100, which uses the fine one), then 3,072
bytes, channel first.  A sheet is 25 rows by 40 columns of 32x32 tiles, row by row, in the original order.

Reference: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
"""

import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

Arrays = tuple[UInt8[np.ndarray, "n 32 32 3"], UInt8[np.ndarray, " n"]]
_PIXELS = 32 * 32 * 3


def parse_records(data: bytes, label_bytes: int, source: str) -> Arrays:
    """Splits binary records into images (N, 32, 32, 3) and labels (N,), the last label byte of each record.

    Raises:
      ValueError: If the length is not a positive multiple of the record's length.

    >>> images, labels = parse_records(bytes([4]) + bytes(3072), label_bytes=1, source="example")
    >>> images.shape, labels
    ((1, 32, 32, 3), array([4], dtype=uint8))
    """
    record = label_bytes + _PIXELS
    if not data or len(data) % record:
        raise ValueError(
            f"{source} is truncated or damaged: its {len(data)} bytes are no multiple of the record length {record}. "
            "Delete it and fetch it again."
        )
    rows = np.frombuffer(data, np.uint8).reshape(-1, record)
    images = rows[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), rows[:, label_bytes - 1].copy()


def read_binary(folder: Path, members: Sequence[str], label_bytes: int) -> Arrays:
    """Reads and joins the unpacked binary files `members` of `folder`."""
    parts = [parse_records((folder / name).read_bytes(), label_bytes, str(folder / name)) for name in members]
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def read_archive(path: Path, members: Sequence[str], label_bytes: int) -> Arrays:
    """Reads and joins binary files straight from the original ``.tar.gz``, without unpacking it on disk.

    Raises:
      ValueError: If the archive is damaged or lacks a member.
    """
    found: dict[str, Arrays] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for entry in archive:
                name = entry.name.rsplit("/", 1)[-1]
                stream = archive.extractfile(entry) if name in members else None
                if stream is not None:
                    found[name] = parse_records(stream.read(), label_bytes, f"{path}:{name}")
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ValueError(f"{path} is not an intact archive ({error}): delete it and fetch it again.") from error
    lacking = [name for name in members if name not in found]
    if lacking:
        raise ValueError(f"{path} holds no file {lacking[0]!r}: it is not the binary version of the data set.")
    return np.concatenate([found[m][0] for m in members]), np.concatenate([found[m][1] for m in members])


def read_sheets(folder: Path, part: str) -> Arrays:
    """Reads ``{part}_00.webp``, ``{part}_01.webp``, ... (1,000 images each) and ``{part}_labels.npy``.

    Raises:
      ValueError: If a sheet has the wrong size or the sheets do not match the labels.
    """
    from PIL import Image, UnidentifiedImageError

    labels_path = folder / f"{part}_labels.npy"
    labels = np.load(labels_path, allow_pickle=False)
    sheets = sorted(folder.glob(f"{part}_[0-9][0-9].webp"))
    tiles = np.empty((len(sheets) * 1000, 32, 32, 3), np.uint8)
    if labels.dtype != np.uint8 or labels.shape != (len(tiles),):
        raise ValueError(
            f"{folder} has {len(sheets)} '{part}' sheets of 1000 images, but {labels_path.name} is "
            f"{labels.dtype}{labels.shape}: a sheet or label is missing."
        )
    for i, path in enumerate(sheets):
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"{path} is not an intact WebP image ({error}): replace it.") from error
        if pixels.shape != (800, 1280, 3):
            raise ValueError(f"{path} is {pixels.shape}, but a sheet of 25 x 40 tiles is (800, 1280, 3): replace it.")
        tiles[1000 * i : 1000 * (i + 1)] = pixels.reshape(25, 32, 40, 32, 3).swapaxes(1, 2).reshape(1000, 32, 32, 3)
    return tiles, labels
