"""One layer, compressed in one shot: seconds, peak memory and output error of every method.

    python -m experiments.bench_oneshot [--size=4096] [--rows=2048] [--keep=0.3] [--repeats=1] [--out=FILE.json]

The layer has `size` inputs and outputs and sees `rows` rows of correlated activations.  Every measurement runs in a
fresh process, so that its peak memory is its own: from activations and weights in memory to new weights, statistics
included, and for JAX the compilation of the programs, too (no persistent cache).  Repetitions alternate in order.

`alps_numpy` is ALPS written down in NumPy as the paper states it, to be read and to be beaten.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from experiments.bench_storage import peak, reset_peak, resident
from experiments.launch import refuse_arguments
from experiments.timing import Row, to_text

METHODS = ("magnitude", "wanda", "sparsegpt", "alps", "alps_numpy")


def problem(size: int, rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated activations (rows, size) and weights (size, size), float32.

    A few strong directions, a spectrum that falls off, and scales that differ by input, as in trained networks.
    """
    rng = np.random.default_rng(seed)
    factors = max(1, size // 16)
    strengths = 1 / np.sqrt(np.arange(1, factors + 1, dtype=np.float32))
    mixing = strengths[:, None] * rng.standard_normal((factors, size), np.float32)
    x = rng.standard_normal((rows, factors), np.float32) @ mixing
    x += rng.standard_normal((rows, size), np.float32)
    x *= np.exp(0.5 * rng.standard_normal(size, np.float32))[None, :]
    return x, rng.standard_normal((size, size), np.float32) / np.float32(np.sqrt(size))


def alps_numpy(x: np.ndarray, w: np.ndarray, keep: int, damping: float = 0.01, rho: float = 0.1) -> np.ndarray:
    """ALPS for a number of weights to keep, in float32: arXiv 2406.07831 with its published settings.

    One eigendecomposition, from which the inverse is formed anew whenever rho changes.
    """
    hessian = x.T @ x
    hessian += damping * np.mean(np.diagonal(hessian)) * np.eye(len(hessian), dtype=x.dtype)
    unit = np.sqrt(np.diagonal(hessian))
    hessian = hessian / unit[:, None] / unit[None, :]
    w0 = w * unit[:, None]
    goal = hessian @ w0
    values, vectors = np.linalg.eigh(hessian)

    def project(v: np.ndarray) -> np.ndarray:
        flat = v.ravel().copy()
        flat[np.argpartition(-np.abs(flat), keep)[keep:]] = 0
        return flat.reshape(v.shape)

    d = before = project(w0)
    v = np.zeros_like(d)
    moved = False
    inverse = (vectors / (values + rho)) @ vectors.T
    for iteration in range(300):
        b = inverse @ (goal - v + rho * d)
        d = project(b + v / rho)
        v = v + rho * (b - d)
        if iteration % 3 < 2:
            continue
        change = np.sum((d != 0) != (before != 0)) / keep
        before = d
        moved = moved or change > 0.005
        if moved and change == 0:
            break
        if moved:
            rho = min(1e6, rho * (1.3 if change > 0.1 else 1.2 if change > 0.005 else 1.1))
        else:
            rho, d, v = rho / 5, project(w0), np.zeros_like(v)
            before = d
        inverse = (vectors / (values + rho)) @ vectors.T

    support = d != 0
    residual = support * (hessian @ (w0 - d))
    direction, size = residual, np.sum(residual**2, axis=0)
    for _ in range(10):
        image = support * (hessian @ direction)
        length = size / np.maximum(np.sum(direction * image, axis=0), 1e-30)
        d = d + length * direction
        residual = residual - length * image
        after = np.sum(residual**2, axis=0)
        direction, size = residual + after / np.maximum(size, 1e-30) * direction, after
    return d / unit[:, None]


def solve(method: str, x: np.ndarray, w: np.ndarray, keep: float) -> np.ndarray:
    """New weights by one of `METHODS`."""
    count = int(keep * w.size)
    if method == "alps_numpy":
        return alps_numpy(x, w, count)
    import jax.numpy as jnp

    from compressjax import oneshot
    from compressjax.projections import Cardinality

    seen = oneshot.add(oneshot.start(x.shape[1]), jnp.asarray(x))
    return np.asarray(getattr(oneshot, method)(jnp.asarray(w), seen, Cardinality(count)))


def measure(method: str, size: int, rows: int, keep: float) -> dict[str, Any]:
    """Seconds, peak memory above the start, and output error of one method, in this process."""
    if method != "alps_numpy":
        solve(method, *problem(16, 32), 0.5)  # imports and start-up are no part of the measurement
    x, w = problem(size, rows)
    reset_peak()
    start, begin = resident(), time.perf_counter()
    found = solve(method, x, w, keep)
    seconds, reached = time.perf_counter() - begin, peak()
    error = np.sum((x @ (found - w)).astype(np.float64) ** 2) / np.sum((x @ w).astype(np.float64) ** 2)
    kept = int(np.count_nonzero(found))
    return {"method": method, "seconds": seconds, "peak": reached - start, "error": float(error), "kept": kept}


def _child(method: str, size: int, rows: int, keep: float) -> dict[str, Any]:
    """`measure` in a fresh interpreter."""
    code = (
        "import json; from experiments import bench_oneshot; "
        f"print(json.dumps(bench_oneshot.measure({method!r}, {size}, {rows}, {keep})))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={**environment, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"The measurement of {method} failed (status {done.returncode}): {last}")
    return json.loads(done.stdout.splitlines()[-1])


def run(size: int, rows: int, keep: float, repeats: int = 1) -> dict[str, Any]:
    """Measures all methods.

    Args:
      size: Inputs and outputs of the layer.
      rows: Calibration rows.
      keep: Share of the weights that stays.
      repeats: Measurements of each method, all methods in every round, the order turned round after each.

    Returns:
      JSON-ready: for every method the median seconds, the largest peak, the error; and what it ran on.

    Raises:
      ValueError: If an argument is out of range or a measurement fails.
    """
    if min(size, rows, repeats) < 1 or not 0 < keep < 1:
        raise ValueError(f"size={size}, rows={rows} and repeats={repeats} must be at least 1, keep={keep} in (0, 1).")
    found: dict[str, list[dict[str, Any]]] = {method: [] for method in METHODS}
    for i in range(repeats):
        for method in METHODS if i % 2 == 0 else METHODS[::-1]:
            found[method].append(_child(method, size, rows, keep))
    return {
        "size": size,
        "rows": rows,
        "keep": keep,
        "repeats": repeats,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "numpy": np.__version__,
        "python": sys.version.split()[0],
        "methods": [
            {
                "method": method,
                "seconds": statistics.median(one["seconds"] for one in each),
                "all_seconds": [one["seconds"] for one in each],
                "peak_bytes": max(one["peak"] for one in each),
                "error": each[0]["error"],
                "kept": each[0]["kept"],
            }
            for method, each in found.items()
        ],
    }


def table(record: dict[str, Any]) -> list[Row]:
    """The record as rows, the last one ALPS against its NumPy version."""
    by = {one["method"]: one for one in record["methods"]}
    rows = [
        Row(
            suite="oneshot",
            name=f"{method}, {record['size']} x {record['size']}, {record['rows']} rows",
            value=one["seconds"],
            unit="s",
            detail=f"peak {one['peak_bytes'] / 1e6:,.0f} MB; output error {one['error']:.4g}; {one['kept']:,} weights",
        )
        for method, one in by.items()
    ]
    ratio = by["alps"]["seconds"] / by["alps_numpy"]["seconds"]
    return [*rows, Row("oneshot", "ALPS to its NumPy version", ratio, "x", 1.0)]


def main(argv: list[str]) -> None:
    """Flag shell around `run`."""
    refuse_arguments(argv)
    values = flags.FLAGS
    try:
        record = run(values.size, values.rows, values.keep, values.repeats)
        print(to_text(table(record)))
        if values.out:
            Path(values.out).write_text(json.dumps(record, indent=1) + "\n")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    flags.DEFINE_integer("size", 4096, "Inputs and outputs of the layer.")
    flags.DEFINE_integer("rows", 2048, "Calibration rows.")
    flags.DEFINE_float("keep", 0.3, "Share of the weights that stays.")
    flags.DEFINE_integer("repeats", 1, "Measurements of each method.")
    flags.DEFINE_string("out", "", "File to write the measurements to, as JSON.")
    app.run(main)
