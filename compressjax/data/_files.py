"""Finding data files: the caller's folder, the environment, the cache; else a checksummed download.

Downloads go through pooch, which verifies the checksum before a file appears under its name, so that a broken
transfer never looks like data.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENT = "COMPRESSJAX_DATA"


@dataclass(frozen=True)
class Remote:
    """A file that its authors publish: its name, its MD5, and the folders (URLs ending in ``/``) that offer it."""

    file: str
    md5: str
    mirrors: tuple[str, ...]


def search_folders(name: str, root: str | os.PathLike[str] | None) -> list[Path]:
    """The folders where the files of data set `name` may lie, in the order of search."""
    roots = [root, os.environ.get(ENVIRONMENT), _cache()]
    return [Path(folder) / name for folder in roots if folder]


def _cache() -> Path | None:
    """The user's cache directory, or None without pooch: files at hand are read all the same."""
    try:
        import pooch
    except ImportError:
        return None
    return Path(pooch.os_cache("compressjax"))


def fetch(name: str, remotes: Sequence[Remote], folders: Sequence[Path]) -> Path:
    """Downloads `remotes` into the cache, the last of `folders`, and returns that folder.

    Raises:
      FileNotFoundError: If a file can be had from no mirror; says what was looked for, where, and what to do.
      ImportError: If pooch is not installed.
    """
    try:
        import pooch
    except ImportError as error:
        raise ImportError(
            f"Data set {name!r} is in none of the folders ({', '.join(map(str, folders))}), and downloading it needs "
            f"the package pooch: install it, or set {ENVIRONMENT} to the folder above a folder {name!r} with the files."
        ) from error

    target = folders[-1]
    for remote in remotes:
        reasons = []
        for mirror in remote.mirrors:
            try:
                pooch.retrieve(mirror + remote.file, known_hash=f"md5:{remote.md5}", fname=remote.file, path=target)
                break
            except (OSError, ValueError) as error:  # offline, refused, read-only cache; wrong checksum
                reasons.append(f"{mirror}: {type(error).__name__}")
        else:
            raise FileNotFoundError(
                f"Data set {name!r} needs the file {remote.file!r}, which is not in {', '.join(map(str, folders))} and "
                f"could not be downloaded ({'; '.join(reasons)}). Put the original file into a folder {name!r} and set "
                f"{ENVIRONMENT} (or `root`) to the folder above it; 'digits' needs no download."
            )
    return target
