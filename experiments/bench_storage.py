"""Encoding and decoding of networks of AlexNet's size: throughput, and peak memory in a process of its own.

Part of `experiments.bench`.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments.timing import Row

ALEXNET = {
    "conv1/kernel": (11, 11, 3, 96),
    "conv2/kernel": (5, 5, 48, 256),
    "conv3/kernel": (3, 3, 256, 384),
    "conv4/kernel": (3, 3, 192, 384),
    "conv5/kernel": (3, 3, 192, 256),
    "fc6/kernel": (9216, 4096),
    "fc7/kernel": (4096, 4096),
    "fc8/kernel": (4096, 1000),
}
# Non-zero shares and bits per weight of the published 24.7x AlexNet (ADMM-NN's released log; arXiv 1812.11677).
KEPT = (0.81, 0.2, 0.19, 0.2, 0.2, 0.02, 0.054, 0.08)
BITS = (5, 5, 5, 5, 5, 3, 3, 3)
NETWORKS = ("pruned", "dense")


def storage(repeats: int, small: bool = False) -> list[Row]:
    """Encoding and decoding of networks of AlexNet's size, each in a process of its own.

    The pruned and quantized network is what the codecs are for; the dense one, whose float32 values hardly repeat, is
    their worst case.
    """
    rounds = 1 if small else max(1, min(3, repeats // 3))
    rows = []
    for network in NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            runs = {
                what: [_child(what, network, folder, small) for _ in range(rounds)] for what in ("encode", "decode")
            }
        first = runs["encode"][0]
        dense = first["dense"]
        rows.append(
            Row(
                suite="storage",
                name=f"{network}, {first['weights'] / 1e6:.1f} M weights: float32 to file",
                value=dense / first["bytes"],
                unit="x",
                detail=f"{dense:,} to {first['bytes']:,} bytes; {first['nonzeros']:,} weights not zero",
            )
        )
        for what, found in runs.items():
            seconds = statistics.median(run["seconds"] for run in found)
            peak = max(run["peak"] for run in found)
            rows += [
                Row("storage", f"{network}, {what}", dense / seconds / 1e6, "MB/s", None, f"{seconds:.2f} s"),
                Row(
                    suite="storage",
                    name=f"{network}, {what}: peak memory to float32",
                    value=peak / dense,
                    unit="x",
                    goal=None if small else 4.0,  # a small network is lost in the fixed cost of the libraries
                    detail=f"{peak / 1e6:,.0f} MB, the network itself included",
                ),
            ]
    return rows


def _child(what: str, network: str, folder: str, small: bool) -> dict[str, Any]:
    """Runs one measurement in a fresh interpreter, so that its peak memory is its own."""
    code = f"from experiments import bench_storage; bench_storage.measure({what!r}, {network!r}, {folder!r}, {small!r})"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"The {what} measurement failed (status {done.returncode}): {last}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(what: str, network: str, folder: str, small: bool) -> None:
    """In a child process: encodes or decodes, and prints seconds and peak memory as JSON."""
    import numpy as np

    from compressjax import storage, trees

    file = Path(folder) / "network.cjx"
    # Imports and caches are no part of the measurement.
    storage.decode(storage.encode({"warm": {"kernel": np.eye(8, dtype=np.float32)}}))
    start = resident()
    if what == "encode":
        params = alexnet(network, small)
        reset_peak()
        begin = time.perf_counter()
        data = storage.encode(params)
        seconds, reached = time.perf_counter() - begin, peak()
        file.write_bytes(data)
    else:
        data = file.read_bytes()
        reset_peak()
        begin = time.perf_counter()
        params = storage.decode(data).params
        seconds, reached = time.perf_counter() - begin, peak()
        expected = trees.leaves(alexnet(network, small))
        for path, leaf in trees.leaves(params).items():
            if not np.array_equal(leaf, expected[path]):
                raise ValueError(f"{path} was not decoded as it was encoded.")
    leaves = trees.leaves(params).values()
    print(
        json.dumps(
            {
                "seconds": seconds,
                "peak": reached - start,
                "bytes": len(data),
                "dense": int(sum(leaf.nbytes for leaf in leaves)),
                "weights": int(sum(leaf.size for leaf in leaves)),
                "nonzeros": int(sum(np.count_nonzero(leaf) for leaf in leaves)),
            }
        )
    )


def alexnet(network: str = "pruned", small: bool = False) -> dict[str, Any]:
    """Parameters with AlexNet's shapes, float32, always the same.

    Args:
      network: ``"pruned"``: pruned and quantized like the published network; ``"dense"``: normal deviates.
      small: Divide every dense layer's sides by 16, and narrow the convolutions.

    Returns:
      ``{layer: {"kernel": ...}}``.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    out: dict[str, Any] = {}
    for (path, shape), share, bits in zip(ALEXNET.items(), KEPT, BITS, strict=True):
        if small:
            shape = tuple(n // 16 for n in shape) if len(shape) == 2 else (*shape[:2], 3, 16)
        if network == "dense":
            kernel = rng.standard_normal(shape, np.float32) * np.float32(0.05)
        else:
            size = int(np.prod(shape))
            kernel = np.zeros(size, np.float32)
            # Sampling with repetition and dropping the repeats needs no permutation of all positions.
            places = np.unique(rng.integers(0, size, int(share * size)))
            half = 2 ** (bits - 1)
            level = np.minimum(rng.geometric(2.0 / half, len(places)), half).astype(np.float32)
            kernel[places] = np.where(rng.random(len(places)) < 0.5, -level, level) * np.float32(0.01)
            kernel = kernel.reshape(shape)
        out[path.split("/")[0]] = {"kernel": kernel}
    return out


def _status(field: str) -> int:
    """A field of the kernel's account of this process, in bytes; 0 where there is no such account."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)


def resident() -> int:
    """Bytes of memory this process holds now; 0 where the system does not say."""
    return _status("VmRSS")


def reset_peak() -> None:
    """Starts the record of the peak again, where the system allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak() -> int:
    """Most bytes of memory this process has held since `reset_peak`."""
    found = _status("VmHWM")
    if found:
        return found
    import resource

    # Elsewhere the peak since the start of the process must do; macOS counts it in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
