"""`load`: one data set by name, split into train, validation and test.

Validation is cut from the training images by a seeded permutation, because files sorted by class exist.  The test
images are read when `Dataset.test` is called and not before: scores, budgets and early stopping cannot touch them by
accident.
"""

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from compressjax.data import _cifar, _digits
from compressjax.data._files import Remote, fetch, search_folders
from compressjax.data._idx import read_idx


class Split(NamedTuple):
    """Images and their labels, row by row.

    >>> split = Split(np.zeros((2, 28, 28, 1), np.uint8), np.array([3, 7], np.int32))
    >>> split.labels[0]
    np.int32(3)
    """

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int32[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set.

    Attributes:
      name: What `load` was asked for.
      classes: Number of classes; labels are 0 .. classes - 1.
      train: What training sees.
      validation: What every choice is made on; shares no image with `train`.
      test: Reads the test split, once; further calls return the same arrays.  For the final number only.

    >>> dataset = load("digits", validation=100)
    >>> dataset.classes, len(dataset.train.labels), len(dataset.validation.labels)
    (10, 1337, 100)
    """

    name: str
    classes: int
    train: Split
    validation: Split
    test: Callable[[], Split]


_MNIST_MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
_FASHION_MIRRORS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
)
_CIFAR_MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
_IDX_MD5 = {
    "mnist": (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    "fashion_mnist": (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
}

_Raw = tuple[np.ndarray, np.ndarray]


def _read_idx_part(name: str, part: str, root: str | os.PathLike[str] | None) -> _Raw:
    """Images and labels from a pair of IDX files."""
    mirrors = _MNIST_MIRRORS if name == "mnist" else _FASHION_MIRRORS
    stem = "train" if part == "train" else "t10k"
    md5s = _IDX_MD5[name][:2] if part == "train" else _IDX_MD5[name][2:]
    files = (f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte")
    folders = search_folders(name, root)
    for folder in folders:
        paths = [next((p for p in (folder / f"{f}.gz", folder / f) if p.is_file()), None) for f in files]
        if None not in paths:
            break
    else:
        folder = fetch(name, [Remote(f"{f}.gz", md5, mirrors) for f, md5 in zip(files, md5s, strict=True)], folders)
        paths = [folder / f"{f}.gz" for f in files]
    images, labels = (read_idx(path) for path in paths if path is not None)
    if images.ndim != 3 or labels.ndim != 1:
        raise ValueError(
            f"{folder} holds {part} images {images.shape} and labels {labels.shape}: want (N, H, W) and (N,)."
        )
    return images[..., None], labels


def _read_cifar_part(name: str, part: str, root: str | os.PathLike[str] | None) -> _Raw:
    """Images and labels from unpacked binary files, the original archive, or WebP sheets (CIFAR-10)."""
    if name == "cifar10":
        remote = Remote("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", _CIFAR_MIRRORS)
        inner, label_bytes = "cifar-10-batches-bin", 1
        members = [f"data_batch_{i}.bin" for i in range(1, 6)] if part == "train" else ["test_batch.bin"]
    else:
        remote = Remote("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8", _CIFAR_MIRRORS)
        inner, label_bytes = "cifar-100-binary", 2
        members = [f"{part}.bin"]
    folders = search_folders(name, root)
    for folder in folders:
        for unpacked in (folder, folder / inner):
            if all((unpacked / member).is_file() for member in members):
                return _cifar.read_binary(unpacked, members, label_bytes)
        if (folder / remote.file).is_file():
            return _cifar.read_archive(folder / remote.file, members, label_bytes)
        if name == "cifar10" and (folder / f"{part}_labels.npy").is_file():
            return _cifar.read_sheets(folder, part)
    return _cifar.read_archive(fetch(name, [remote], folders) / remote.file, members, label_bytes)


@dataclass(frozen=True)
class _Source:
    """How to read one data set: ``read(part, root)``, its classes and its default number of validation images."""

    read: Callable[[str, str | os.PathLike[str] | None], _Raw]
    classes: int
    validation: int | float


_SOURCES: Mapping[str, _Source] = MappingProxyType(
    {
        "digits": _Source(lambda part, root: _digits.read(part), 10, 0.2),
        "mnist": _Source(functools.partial(_read_idx_part, "mnist"), 10, 5000),
        "fashion_mnist": _Source(functools.partial(_read_idx_part, "fashion_mnist"), 10, 5000),
        "cifar10": _Source(functools.partial(_read_cifar_part, "cifar10"), 10, 5000),
        "cifar100": _Source(functools.partial(_read_cifar_part, "cifar100"), 100, 5000),
    }
)


def names() -> tuple[str, ...]:
    """The data sets that `load` knows.

    >>> names()
    ('digits', 'mnist', 'fashion_mnist', 'cifar10', 'cifar100')
    """
    return tuple(_SOURCES)


def _read(name: str, part: str, root: str | os.PathLike[str] | None) -> Split:
    """Reads one part and checks that labels fit images and classes."""
    source = _SOURCES[name]
    images, labels = source.read(part, root)
    if len(images) != len(labels):
        raise ValueError(
            f"The {part} part of {name!r} has {len(images)} images but {len(labels)} labels: fetch it again."
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < source.classes:
        raise ValueError(f"The {part} part of {name!r} has labels outside 0..{source.classes - 1}: fetch it again.")
    return Split(images, labels.astype(np.int32))


def load(
    name: str, *, root: str | os.PathLike[str] | None = None, validation: int | float | None = None, seed: int = 0
) -> Dataset:
    """Loads a data set.

    Files are looked for in ``root/name``, then ``$COMPRESSJAX_DATA/name``, then the user's cache directory; what is in
    none of them is downloaded into the cache and checked against its published MD5.

    Args:
      name: One of `names`.
      root: Folder that holds one folder per data set.
      validation: Number (int) or share (float in [0, 1)) of the training images to hold out.  By default 5,000, and for
        ``"digits"`` 20 %.
      seed: Decides which images are held out, and their order.

    Returns:
      The data set; images uint8 (N, H, W, C), labels int32 (N,).

    Raises:
      ValueError: If `name` is unknown, `validation` is out of range, or a file is damaged.
      FileNotFoundError: If a file is neither there nor to be had.

    >>> dataset = load("digits")
    >>> dataset.train.images.shape, dataset.validation.images.shape, dataset.test().labels.shape
    ((1150, 28, 28, 1), (287, 28, 28, 1), (360,))
    """
    if name not in _SOURCES:
        raise ValueError(f"There is no data set {name!r}. Known: {', '.join(_SOURCES)}.")
    if root is not None and not Path(root).is_dir():
        raise FileNotFoundError(f"The data folder {str(root)!r} does not exist: `root` holds one folder per data set.")
    full = _read(name, "train", root)
    total = len(full.labels)
    wanted = _SOURCES[name].validation if validation is None else validation
    if isinstance(wanted, bool) or (isinstance(wanted, float) and not 0 <= wanted < 1):
        raise ValueError(f"validation={wanted!r} is neither a number of images (int) nor a share in [0, 1) (float).")
    held = int(wanted * total) if isinstance(wanted, float) else wanted
    if not 0 <= held < total:
        raise ValueError(f"validation={held} leaves no training image of the {total} in {name!r}: ask for fewer.")
    order = np.random.Generator(np.random.Philox(seed)).permutation(total)
    validation_split, train = (Split(full.images[rows], full.labels[rows]) for rows in (order[:held], order[held:]))
    test = functools.cache(functools.partial(_read, name, "test", root))
    return Dataset(name, _SOURCES[name].classes, train, validation_split, test)
