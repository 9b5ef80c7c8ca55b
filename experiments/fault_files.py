"""Damaged files: artefacts, records, reports, configurations and checkpoints with random bytes changed.

Part of `experiments.faults`.  What is read from a damaged file must be what was written, or the file is refused.
"""

import functools
import json
import random
import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.fault_tally import Tally, judged

MOST_ELEMENTS = 1 << 20  # that the decoder may unfold
MOST_MEMORY = 64 << 20  # bytes that decoding a file of a few kilobytes may take: arrays of `MOST_ELEMENTS`, and copies
HEADER = 8  # bytes of an artefact before what its checksum covers


def networks(seed: int = 0) -> list[Any]:
    """Small parameter trees that use every codec: dense, pruned, cut, quantized, integers, empty leaves."""
    rng = np.random.default_rng(seed)
    kernel = np.zeros((8, 20), np.float32)
    kernel.reshape(-1)[rng.choice(160, 30, replace=False)] = 0.25 * rng.choice([-2, -1, 1, 2], 30)
    cut = rng.normal(size=(3, 3, 4, 6)).astype(np.float32)
    cut[..., ::2] = 0
    table = rng.choice(rng.normal(size=5), 60)
    return [
        {"conv1": {"kernel": cut, "bias": np.float16(rng.normal(size=6))}, "table": table},
        {"fc1": {"kernel": kernel, "mask": kernel != 0, "steps": np.arange(3), "empty": np.zeros((0, 3))}},
        {"fc1": {"kernel": (rng.random((30, 40)) < 0.1).astype(np.float32), "bias": np.zeros(40, np.float32)}},
    ]


def artefact_bytes() -> list[bytes]:
    """Those networks as files, by every position codec."""
    from compressjax import storage

    codecs = [storage.POSITION_CODECS, *((codec, *storage.POSITION_CODECS[:1]) for codec in storage.POSITION_CODECS)]
    meta = {"model": "lenet300", "widths": [30, 10], "dataset": "digits"}
    return [storage.encode(tree, meta, positions=chosen) for tree in networks() for chosen in codecs]


def damage(data: bytes, draw: random.Random, others: Sequence[bytes] = ()) -> tuple[str, bytes]:
    """Changes a few places of a file.

    There are flipped bits, other bytes, insertions, deletions, truncations, swapped sections, large numbers where a
    length may be, and parts of another file.

    Args:
      data: Its contents.
      draw: Decides.
      others: Files of the same kind.

    Returns:
      What was done, and the contents after it, which differ.

    >>> what, found = damage(bytes(20), random.Random(0))
    >>> found != bytes(20)
    True
    """
    out = bytearray(data)
    done: list[str] = []
    while bytes(out) == data or draw.random() < 0.3:
        kind = draw.choice(["flip", "byte", "insert", "delete", "truncate", "swap", "length", "splice"])
        size = draw.randint(1, 12)
        at = draw.randrange(len(out) + 1)
        done.append(f"{kind} at {at}")
        if kind == "flip" and at < len(out):
            out[at] ^= 1 << draw.randrange(8)
        elif kind == "byte" and at < len(out):
            out[at] = draw.randrange(256)
        elif kind == "insert":
            out[at:at] = draw.randbytes(size)
        elif kind == "delete":
            del out[at : at + size]
        elif kind == "truncate":
            del out[at:]
        elif kind == "swap":
            cut = sorted(draw.randrange(len(out) + 1) for _ in range(3))
            out[cut[0] : cut[2]] = out[cut[1] : cut[2]] + out[cut[0] : cut[1]]
        elif kind == "length":  # a large number where a length may be: a variable-length integer
            out[at : at + size] = bytes([255] * draw.randint(1, 9) + [draw.randrange(128)])
        elif kind == "splice" and others:
            part = draw.choice(others)
            out[at : at + size] = part[at : at + draw.randint(0, 40)]
    return ", ".join(done[:4]), bytes(out)


def artefacts(cases: int, seed: int = 0) -> tuple[Tally, Tally]:
    """Decodes damaged artefacts: as they are, and with a checksum that was made to match.

    Args:
      cases: How many of each.
      seed: Of the damage.

    Returns:
      What came of those whose checksum is the old one: all must be refused.  And of the others, which no checksum
      protects: any network may come out, but nothing else than a network or a `ValueError`, within bounded memory.
    """
    plain, sealed = Tally("artefact"), Tally("artefact, checksum made to match")
    draw, files = random.Random(seed), artefact_bytes()
    for i in range(cases):
        what, data = damage(draw.choice(files), draw, files)
        judged(plain, what, functools.partial(_decode, data), hopeless=data not in files)
        what, data = damage(draw.choice(files)[HEADER:], draw, [file[HEADER:] for file in files])
        version = draw.choice([1, 2, 3])
        crc = zlib.crc32(data, zlib.crc32(bytes([version])) if version > 2 else 0)
        data = b"cjx" + bytes([version]) + crc.to_bytes(4, "little") + data
        judged(sealed, what, functools.partial(_decode, data, further=i % 10 == 0))
    return plain, sealed


def _decode(data: bytes, further: bool = False) -> None:
    from compressjax import storage
    from experiments.bench_storage import peak, reset_peak, resident

    reset_peak()
    before = resident()
    try:
        storage.decode(data, max_elements=MOST_ELEMENTS)
        if further:
            storage.account(data, max_elements=MOST_ELEMENTS)
            storage.entries(data, max_elements=MOST_ELEMENTS)
    finally:
        taken = peak() - before
        if before and taken > MOST_MEMORY:  # 0 where the system does not say
            raise AssertionError(f"took {taken:,} bytes of memory")


def texts(folder: Path, cases: int, seed: int = 0) -> Tally:
    """Reads damaged records, reports and configurations.

    Args:
      folder: An empty one, to write in.
      cases: How many.
      seed: Of the damage.

    Returns:
      What came of them.  What is read must be what was written: a torn last record may be missing.
    """
    from experiments.workdir import CONFIG, METRICS, REPORT, Workdir, read_metrics, read_report

    tally, draw = Tally("records, reports and configurations"), random.Random(seed)
    config = {"seed": 1, "pretrain": {"epochs": 2.5}, "stages": [{"keep": {"fc1/kernel": 10}}], "load": ""}
    records = [{"step": i, "phase": "pretrain", "loss": 1 / (i + 1), "rho": None, "widths": [i, 2]} for i in range(5)]
    report = {"config": config, "dense": {"test_accuracy": 0.75}, "stages": [{"name": "é", "weights": 12}], "seed": 1}
    with Workdir(folder, config) as directory:
        for record in records:
            directory.record(record)
        directory.write_report(report)

    def recorded() -> None:
        found = read_metrics(folder)
        if found != records[: len(found)] or len(found) < len(records) - torn:
            raise AssertionError(f"other records came back: {found}")

    def reported() -> None:
        if read_report(folder) != report:
            raise AssertionError("another report came back")

    def claimed() -> None:
        with Workdir(folder, config):
            pass

    readers: dict[str, Callable[[], None]] = {METRICS: recorded, REPORT: reported, CONFIG: claimed}
    for _ in range(cases):
        name = draw.choice(list(readers))
        whole = (folder / name).read_bytes()
        what, data = damage(whole, draw)
        torn = len(records) if not data.endswith(b"\n") or data == whole[: len(data)] else 0
        (folder / name).write_bytes(data)
        judged(tally, f"{name}: {what}", readers[name])
        (folder / name).write_bytes(whole)
    return tally


def checkpoints(folder: Path, cases: int, seed: int = 0) -> Tally:
    """Restores from damaged checkpoints.

    Args:
      folder: An empty one, to write in.
      cases: How many.
      seed: Of the damage.

    Returns:
      What came of them.  What is restored must be what was saved last, or the checkpoint is refused and named, and the
      one before is restored once its folder is gone.
    """
    from experiments.workdir import Workdir

    tally, draw = Tally("checkpoint"), random.Random(seed)
    rng = np.random.default_rng(seed)
    arrays: list[dict[str, dict[str, Any]]]
    arrays = [{"params": {"w": rng.normal(size=(20, 30)).astype(np.float32), "n": np.arange(9)}} for _ in range(2)]
    whole, place = folder / "whole", folder / "damaged"
    with Workdir(whole, {}) as directory:
        for i, saved in enumerate(arrays):
            directory.record({"step": i})
            directory.save(i, saved, {"phase": i, "step": 10 * i, "seconds": 0.5})
    files = sorted(file.relative_to(whole) for file in (whole / "checkpoints" / "1").rglob("*") if file.is_file())

    def restored(number: int) -> None:
        with Workdir(place, {}) as directory:
            found = directory.restore()
        if found is None or found[0] != number or found[2] != {"phase": number, "step": 10 * number, "seconds": 0.5}:
            raise AssertionError("another progress came back")
        same = [np.array_equal(found[1]["params"][name], saved) for name, saved in arrays[number]["params"].items()]
        if not all(same):
            raise AssertionError("other arrays came back")

    def attempt() -> None:
        try:
            restored(1)
        except ValueError:
            shutil.rmtree(place / "checkpoints" / "1")
            try:
                restored(0)
            except ValueError as error:
                raise AssertionError(f"the checkpoint before is not restored: {error}") from error
            raise

    for _ in range(cases):
        shutil.copytree(whole, place)
        file = draw.choice(files)
        if (whole / file).stat().st_size and draw.random() < 0.9:
            what, data = damage((whole / file).read_bytes(), draw)
            (place / file).write_bytes(data)
        else:
            what = "removed"
            (place / file).unlink()
        judged(tally, f"{file}: {what}", attempt)
        shutil.rmtree(place)
    return tally


def pages(folder: Path, report: dict[str, Any], cases: int, seed: int = 0) -> Tally:
    """Makes pages of reports without a checksum in which one value is another or absent, as in files edited by hand.

    Args:
      folder: To write in.
      report: Of a run of `experiments.compress`.
      cases: How many.
      seed: Of the changes.

    Returns:
      What came of them: a page, or a refusal.
    """
    tally, draw = Tally("report edited by hand"), random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(cases):
        changed = json.loads(json.dumps(report))
        holder: Any = changed
        while True:
            name = draw.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
            if not isinstance(holder[name], (dict, list)) or not holder[name] or draw.random() < 0.2:
                break
            holder = holder[name]
        if draw.random() < 0.3:
            del holder[name]
        else:
            holder[name] = draw.choice([None, "x", -1, 0, 1e308, 10**400, [], {}, [[1]], {"a": None}, True, "<b>"])
        (folder / "report.json").write_text(json.dumps(changed))
        judged(tally, f"{name}", functools.partial(_page, folder))
    return tally


def _page(folder: Path) -> None:
    from experiments.report import write_html

    write_html(folder)
