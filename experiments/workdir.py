"""A run's directory: one writer, one configuration, records that survive any interruption.

    config.json      the resolved configuration; another one in the same directory is refused
    metrics.jsonl    one record per line, the source of truth for reports
    checkpoints/     Orbax; each holds the arrays, the progress and the length of metrics.jsonl at that moment
    *.cjx            artefacts, written atomically
    report.json, report.html

A checkpoint and the records it covers are one unit: on resume the records past the checkpoint are cut off and written
again, so that an interrupted run ends with the same file as an uninterrupted one.
"""

import contextlib
import fcntl
import json
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from experiments.distributed import ALONE, Fleet, Preempted, peer_lost
from experiments.seal import checksum, seal, unseal

CONFIG, METRICS, CHECKPOINTS, LOCK = "config.json", "metrics.jsonl", "checkpoints", ".lock"
REPORT = "report.json"
_WAY_OUT = "restore the file, or start again in another workdir."


class Workdir:
    """Opens (or creates) a run directory for one writer.  Use as a context manager.

    Args:
      path: Of the directory; the processes of a fleet must all see it.
      config: Resolved, as JSON.
      fleet: The processes of this run, all of which call `save`, `restore` and `write` together; process 0 writes.

    Raises:
      ValueError: If the directory cannot be written, belongs to another configuration, or another run holds it.
    """

    def __init__(self, path: str | os.PathLike[str], config: Mapping[str, Any], fleet: Fleet = ALONE):
        self.path = Path(path).absolute()
        self._config, self._fleet = config, fleet
        self._lock: Any = None
        self._manager: Any = None
        self._seals = True  # a run that began without checksums goes on without

    def __enter__(self) -> "Workdir":
        self._fleet.lead(self._open)
        return self

    def _open(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / LOCK, "a")  # noqa: SIM115 (held open for the life of the run)
        except OSError as error:
            raise ValueError(f"The workdir {self.path} cannot be written: {error.strerror}.") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise ValueError(
                f"Another run is writing to {self.path}; wait for it or choose another workdir."
            ) from error
        try:
            with writing(self.path):
                self._claim()
                self._seals = _drop_cut_line(self.path / METRICS) == 0 or _sealed(self.path)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, kind: Any = None, *_: object) -> None:
        together = self._fleet.count == 1 or kind in (None, Preempted)
        if self._manager is not None and together:  # closing waits for processes that may have ended
            self._manager.close()
        if self._lock is not None:
            self._lock.close()

    def _claim(self) -> None:
        file = self.path / CONFIG
        if file.exists() and begun(self.path):
            check_config(self.path, self._config)
        else:
            write_atomic(file, json.dumps(self._config, indent=1).encode())

    def _checkpoints(self) -> Any:
        if self._manager is None:
            import orbax.checkpoint as ocp

            options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True, enable_async_checkpointing=False)
            handlers = {"arrays": ocp.StandardCheckpointHandler(), "progress": ocp.JsonCheckpointHandler()}
            self._manager = ocp.CheckpointManager(self.path / CHECKPOINTS, options=options, item_handlers=handlers)
        return self._manager

    def save(self, number: int, arrays: Any, progress: Mapping[str, Any]) -> None:
        """Writes checkpoint `number`: `arrays` (nested dicts of arrays) and `progress` (JSON)."""
        import orbax.checkpoint as ocp

        file = self.path / METRICS
        records = file.read_bytes() if file.exists() else b""
        covered = {**progress, "metrics_bytes": len(records), "metrics_crc": zlib.crc32(records)}
        arrays = self._fleet.replicate(arrays)
        sealed = ocp.args.JsonSave(seal(covered, checksum(arrays)))
        contents = ocp.args.Composite(arrays=ocp.args.StandardSave(arrays), progress=sealed)
        with writing(self.path, Exception):  # Orbax reports a full disk under several types
            if self._fleet.leads and file.exists():
                with open(file, "rb") as written:
                    os.fsync(written.fileno())  # a checkpoint must not outlive the records it covers
            self._checkpoints().save(number, args=contents)

    def restore(self) -> tuple[int, Any, dict[str, Any]] | None:
        """The newest complete checkpoint as (number, arrays, progress), with later metric records cut off.

        Returns None, and cuts all records off, if there is none.
        """
        import jax
        import jax.numpy as jnp
        import numpy as np
        import orbax.checkpoint as ocp

        number = self._checkpoints().latest_step()
        if number is None:
            self._fleet.lead(lambda: self._cut(0))
            return None
        try:
            # What is expected has no devices, so that it does not matter on which ones, and how many, it was saved.
            saved = self._checkpoints().item_metadata(number)["arrays"].tree
            expected = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), saved)
            kinds = ocp.args.Composite(arrays=ocp.args.StandardRestore(expected), progress=ocp.args.JsonRestore())
            found = self._checkpoints().restore(number, args=kinds)
            progress = unseal(found["progress"], checksum(found["arrays"]))
            arrays = jax.tree.map(jnp.asarray, found["arrays"])
        except Exception as error:  # Orbax raises many types; the way out is the same for all
            if peer_lost(error):
                raise
            raise ValueError(
                f"Checkpoint {number} in {self.path / CHECKPOINTS} cannot be read ({type(error).__name__}); "
                "remove that checkpoint's folder to continue from the one before."
            ) from error
        covered, crc = progress.pop("metrics_bytes"), progress.pop("metrics_crc", None)
        self._fleet.lead(lambda: self._cut(covered, number, crc))
        return number, arrays, progress

    def _cut(self, covered: int, number: int = 0, crc: int | None = None) -> None:
        """Cuts off the records past those that checkpoint `number` covers, which must be what they were."""
        file = self.path / METRICS
        if covered and (not file.exists() or file.stat().st_size < covered):
            raise ValueError(f"{file} lost records that checkpoint {number} covers; start again in another workdir.")
        if not file.exists():
            return
        with open(file, "rb") as written:
            if crc not in (None, zlib.crc32(written.read(covered))):
                raise ValueError(f"{file} is damaged (checkpoint {number} covers other records); {_WAY_OUT}")
        with writing(self.path):
            os.truncate(file, covered)

    def record(self, values: Mapping[str, Any]) -> None:
        """Appends one line to the metrics."""
        if not self._fleet.leads:
            return
        with writing(self.path), open(self.path / METRICS, "a") as file:
            file.write(json.dumps(seal(values) if self._seals else values) + "\n")
            file.flush()

    def write_report(self, report: Mapping[str, Any]) -> None:
        """Writes the results, which makes the run a finished one."""
        self.write(REPORT, json.dumps(seal(report), indent=1).encode())

    def report(self) -> dict[str, Any]:
        """The results of a finished run; `ValueError` if the file is damaged."""
        return read_report(self.path)

    def finish(self, make: Callable[[], Mapping[str, Any]], page: Callable[[Any], str] | None = None) -> dict[str, Any]:
        """The results, made now unless they are there, and ``report.html`` with them.

        Args:
          make: Does the work of the run; processes of a fleet all call it or none.
          page: Report -> HTML; None if the run has no page, or another way to it.
        """
        if not self._fleet.agree((self.path / REPORT).exists()):
            self.write_report(make())
        found = self.report()
        if page is not None:
            self.write("report.html", page(found).encode())
        return found

    def write(self, name: str, data: bytes) -> Path:
        """Writes a file atomically and returns its path."""

        def write() -> None:
            with writing(self.path):
                write_atomic(self.path / name, data)

        self._fleet.lead(write)
        return self.path / name


@contextlib.contextmanager
def writing(path: Path, failure: type[Exception] = OSError) -> Any:
    """Turns a failed write (full or read-only disk) into one clear sentence."""
    try:
        yield
    except failure as error:
        if peer_lost(error):
            raise
        reason = error.strerror if isinstance(error, OSError) else f"{error}".partition("\n")[0]
        raise ValueError(
            f"Writing to {path} failed ({reason}); the last complete checkpoint is kept. "
            "Free space or fix permissions and run the same command again."
        ) from error


def write_atomic(path: Path, data: bytes, *, writer: str = "") -> None:
    """Writes `data` to a neighbour file, then renames it over `path`: readers see all of it or none.

    Writers that may do so at the same time need different names, so that their neighbour files are not the same.
    """
    temporary = path.with_name(f".{path.name}{writer and f'.{writer}'}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def begun(path: Path) -> bool:
    """Whether a run directory holds a record or a checkpoint."""
    records = path / METRICS
    return any((path / CHECKPOINTS).glob("[0-9]*")) or (records.exists() and records.stat().st_size > 0)


def check_config(path: Path, config: Mapping[str, Any]) -> None:
    """Raises `ValueError` unless a run directory's ``config.json`` holds this configuration."""
    file = path / CONFIG
    try:
        before = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON; remove the directory or choose another workdir.") from error
    changed = sorted(differences(before, config))
    if changed:
        raise ValueError(
            f"{path} belongs to a run with another configuration ({', '.join(changed[:5])} differ); "
            "choose another workdir or restore the configuration."
        )


def differences(a: Any, b: Any, at: str = "") -> set[str]:
    """Dotted names of the entries in which two JSON values differ.

    >>> sorted(differences({"x": {"y": 1}, "z": 2}, {"x": {"y": 3}, "z": 2}))
    ['x.y']
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return {
            name for key in {*a, *b} for name in differences(a.get(key), b.get(key), f"{at}.{key}" if at else str(key))
        }
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return {name for i, (x, y) in enumerate(zip(a, b, strict=True)) for name in differences(x, y, f"{at}[{i}]")}
    return set() if a == b else {at}


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads ``metrics.jsonl`` of a run directory; a truncated last line (a killed writer) is left out.

    Raises:
      ValueError: If another line is no record, or its checksum is wrong.
    """
    file = Path(path) / METRICS
    if not file.exists():
        return []
    records = []
    lines = file.read_bytes().split(b"\n")[:-1]
    sealed = _sealed(file.parent)
    for number, line in enumerate(lines, 1):
        try:
            records.append(unseal(json.loads(line), required=sealed))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file} is damaged at line {number} ({_why(error)}); {_WAY_OUT}") from error
    return records


def read_report(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads ``report.json`` of a run directory.

    Raises:
      ValueError: If it is not valid JSON, no object, or its checksum is wrong.
    """
    file = Path(path) / REPORT
    try:
        return unseal(json.loads(file.read_bytes()), required=_sealed(Path(path)))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged ({_why(error)}); remove it and run the same command again.") from error


def _drop_cut_line(file: Path) -> int:
    """Removes a last line that a killed run left unfinished, so that the next record starts on a line of its own.

    Returns the length in bytes of what is left.
    """
    data = file.read_bytes() if file.exists() else b""
    length = data.rfind(b"\n") + 1
    if length < len(data):
        os.truncate(file, length)
    return length


def _sealed(path: Path) -> bool:
    """Whether the records of a run have checksums; those of a run that began without have none."""
    file = path / METRICS
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    return sum(b'"crc": ' in line for line in lines) > len(lines) / 2


def _why(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it nests too deeply"
    return "it is not valid JSON" if isinstance(error, json.JSONDecodeError | UnicodeDecodeError) else str(error)
