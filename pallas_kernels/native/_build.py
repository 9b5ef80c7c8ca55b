"""The shared library: built with the system's compiler at its first use, kept in the user's cache, loaded once.

The cache holds two kinds of files: libraries, named by the hash of their own bytes, and notes, named by the hash of
everything a library depends on (source, compiler, flags, jaxlib, processor), which hold the name of one.  Each is
written beside its place and then moved there, so that processes may race; a library that is not what its name says is
built again.
"""

import ctypes
import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import jax
import jax.lib

SOURCE = Path(__file__).with_name("kernels.cc")
HEADERS = sorted(SOURCE.parent.glob("*.h"))
TARGETS = ("cjx_product", "cjx_convolution", "cjx_sampled", "cjx_quantized")
_LOCK = threading.Lock()


def compiler() -> list[str] | None:
    """The command that compiles C++: ``$CXX``, or the first of g++ and clang++ on the path; None without any."""
    for name in [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]:
        command = shlex.split(name)
        if command and shutil.which(command[0]):
            return command
    return None


def available() -> bool:
    """Whether there is a compiler to build the kernels with."""
    return compiler() is not None


@functools.cache
def ready() -> bool:
    """Whether the kernels can be used: builds them, if that was not done before."""
    try:
        library()
    except (ValueError, OSError, RuntimeError):
        return False
    return True


def cache_folder() -> Path:
    """Where built libraries are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "compressjax" / "native"


def library() -> ctypes.CDLL:
    """The kernels, built if need be and registered with XLA.

    Raises:
      ValueError: If there is no compiler, it fails, or the cache cannot be written.
    """
    with _LOCK:
        return _registered()


@functools.cache
def _registered() -> ctypes.CDLL:
    loaded = load(cache_folder())
    for target in TARGETS:
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(loaded, target)), platform="cpu")
    return loaded


def load(folder: Path) -> ctypes.CDLL:
    """Loads the library from a cache, after building it there unless a sound one is.

    Raises:
      ValueError: If it cannot be built, kept or loaded.
    """
    command = compiler()
    if command is None:
        raise ValueError(
            "The native kernels are compiled on demand, and no C++ compiler was found: install g++ or set CXX."
        )
    note = folder / _key(command)
    try:
        built = _noted(note)
        if built is None:
            folder.mkdir(parents=True, exist_ok=True)
            built = _build([*command, *_flags()], note)
        return ctypes.CDLL(str(built))
    except OSError as error:
        raise ValueError(
            f"The native kernels cannot be kept in {folder} ({error}): set XDG_CACHE_HOME to a folder of yours."
        ) from error


def _flags() -> list[str]:
    tune = "-march=native" if platform.machine() in ("x86_64", "AMD64", "i686") else "-mcpu=native"
    # Products and sums may fuse into one instruction: the standard's dialects switch that off.
    return ["-std=c++17", "-O3", tune, "-ffp-contract=fast", "-fPIC", "-shared", "-pthread"]


def _key(command: list[str]) -> str:
    """The hash of everything that decides what the library is."""
    version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False).stdout
    sources = [path.read_text() for path in (*HEADERS, SOURCE)]
    system = [platform.platform(), _processor()]
    parts = [*sources, shlex.join([*command, *_flags()]), version, jax.lib.__version__, *system]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _processor() -> str:
    """What `-march=native` depends on, as far as it can be known without the compiler."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model", "flags", "CPU", "Features"))}))


def _noted(note: Path) -> Path | None:
    """The library a note speaks of, if both are sound."""
    if not note.exists():
        return None
    name = note.read_text(errors="replace")
    path = note.with_name(name) if re.fullmatch(r"kernels-[0-9a-f]{64}\.so", name) else None
    return path if path and path.is_file() and _name(path) == name else None


def _name(path: Path) -> str:
    return f"kernels-{hashlib.sha256(path.read_bytes()).hexdigest()}.so"


def _build(command: list[str], note: Path) -> Path:
    with tempfile.TemporaryDirectory(dir=note.parent) as scratch:
        made, written = Path(scratch) / "kernels.so", Path(scratch) / "note"
        arguments = [*command, "-I", jax.ffi.include_dir(), str(SOURCE), "-o", str(made)]
        result = subprocess.run(arguments, capture_output=True, text=True, check=False)
        if result.returncode:
            lines = [line for line in result.stderr.splitlines() if "error" in line] or result.stderr.splitlines()
            reason = lines[0].strip() if lines else f"exit status {result.returncode}"
            raise ValueError(f"The native kernels do not compile with {command[0]}: {reason}")
        place = note.with_name(_name(made))
        written.write_text(place.name)
        os.replace(made, place)
        os.replace(written, note)
    return place
