"""Synthetic records in the formats of a run, with the proportions of a real one."""

import math
from typing import Any

import numpy as np

PATHS = ("conv1/kernel", "conv2/kernel", "fc1/kernel", "fc2/kernel")
SIZES = (500, 25_000, 400_000, 5_000)
KEEPS = ((150, 2500, 3000, 500), (130, 1700, 1850, 380), (115, 1100, 900, 270), (100, 780, 470, 200))
WEIGHTS = sum(SIZES)


def stage(index: int, solver: str = "admm", accuracy: float = 0.9930) -> dict[str, Any]:
    kept = dict(zip(PATHS, KEEPS[index], strict=True))
    total = sum(kept.values())
    return {
        "name": f"stage-{index + 1}",
        "solver": solver,
        "ratio": WEIGHTS / total,
        "weights": total,
        "keep": kept,
        "nonzeros": kept,
        "widths": [10, 24, 80 - 8 * index],
        "macs": 600_000 - 90_000 * index,
        "milliseconds": 0.21,
        "projected_validation_accuracy": accuracy - 0.001,
        "validation_accuracy": accuracy + 0.0004,
        "test_accuracy": accuracy - 0.0004 * index,
        "epochs": 12.0,
        "published": "85x at 99.2 % (arXiv 1812.11677)" if index == 1 else None,
    }


def quantized(index: int, conv: int, fc: int, accuracy: float = 0.9911) -> dict[str, Any]:
    kept = dict(zip(PATHS, KEEPS[index], strict=True))
    bits = dict(zip(PATHS, (conv, conv, fc, fc), strict=True))
    streams: dict[str, dict[str, float]] = {}
    for path, n in kept.items():
        streams[path] = {"values": n * bits[path], "positions": 5 * n, "codebook": 32 * 2 ** bits[path]}
        streams[path.replace("kernel", "bias")] = {"values": 60, "positions": 0, "codebook": 20}
    data = sum(n * bits[path] for path, n in kept.items())
    total = -(-(sum(sum(s.values()) for s in streams.values()) + 200) // 8)
    return {
        "name": f"stage-{index + 1}-codebook-{conv}{fc}bit",
        "stage": f"stage-{index + 1}",
        "bits": bits,
        "file": f"stage-{index + 1}-codebook-{conv}{fc}bit.cjx",
        "bytes": total,
        "weights": sum(kept.values()),
        "ratio_data": 32 * WEIGHTS / data,
        "ratio_file": 4 * (WEIGHTS + 580) / total,
        "streams": streams,
        "header_bits": 200,
        "milliseconds": 0.2,
        "validation_accuracy": accuracy + 0.0006,
        "test_accuracy": accuracy,
        "published": "1,910x weight data at 99.0 % (arXiv 1811.01907)" if index == 2 else None,
    }


def sample_report(seed: int = 0, solver: str = "admm", accuracy: float = 0.9930) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    histograms = {}
    for path, size, kept in zip(PATHS, SIZES, KEEPS[-1], strict=True):
        edges = np.linspace(-0.4, 0.4, 61)
        levels = rng.choice([-0.25, -0.12, 0.12, 0.25], kept)
        histograms[path] = {
            "edges": edges.tolist(),
            "dense": np.histogram(rng.normal(0, 0.07, size).clip(-0.4, 0.4), edges)[0].tolist(),
            "compressed": np.histogram(levels, edges)[0].tolist(),
        }
    return {
        "config": {"model": "lenet5", "dataset": "mnist", "solver": solver},
        "seed": seed,
        "dataset": "mnist",
        "dense": {
            "weights": WEIGHTS,
            "parameters": WEIGHTS + 580,
            "validation_accuracy": 0.9932,
            "test_accuracy": 0.9937,
            "macs": 2_293_000,
            "milliseconds": 0.35,
        },
        "stages": [stage(i, solver, accuracy) for i in range(4)],
        "quantized": [quantized(2, 3, 2), quantized(3, 2, 2, 0.9904)],
        "histograms": histograms,
        "seconds": 1090.0,
    }


def sample_metrics() -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    error = 0.9

    def phase(name: str, epochs: int, target: float, jump: float = 1.0) -> None:
        nonlocal error
        error *= jump
        for epoch in range(epochs + 1):
            record: dict[str, Any] = {
                "step": 430 * epoch,
                "phase": name,
                "epoch": float(epoch),
                "loss": error if epoch else None,
                "validation_accuracy": 1 - error,
                "learning_rate": 1e-3,
            }
            if name.endswith("admm"):
                decay = math.exp(-4 * epoch / epochs)
                record["rho"] = 0.05
                record["primal"] = {p: 0.3 * decay * (i + 1) for i, p in enumerate(PATHS)}
                record["dual"] = {p: 0.2 * decay * (i + 1) if epoch else math.inf for i, p in enumerate(PATHS)}
            out.append(record)
            error = target + (error - target) * 0.45

    phase("pretrain", 12, 0.0068)
    phase("recover", 8, 0.0062, 4.0)
    for i in range(4):
        phase(f"stage-{i + 1}/admm", 6 + i, 0.008 + 0.0006 * i, 1.2)
        phase(f"stage-{i + 1}/retrain", 8 + 3 * i, 0.0068 + 0.0004 * i, 1.1)
    for name in ("admm", "freeze", "tune"):
        phase(f"stage-4-codebook-2222bit/{name}", 5, 0.0085, 1.3)
    return out
