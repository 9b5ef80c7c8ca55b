"""Measured speed of every form of a block-sparse product, and what it predicts for other sizes."""

import functools
import importlib.resources
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels import native, xla
from pallas_kernels.block_sparse import BlockSparse
from pallas_kernels.dense import Dense
from pallas_kernels.sliced import Sliced

DENSE = ("dense", "dense, outputs first")
# A form is an implementation and a layout for it.
FORMS: dict[str, tuple[str, Callable[[BlockSparse], Any]]] = {
    "native": ("native", lambda w: w),
    "sliced": ("xla", Sliced.from_blocks),
    "segments": ("xla", lambda w: w),
    "dense": ("xla", lambda w: Dense(w.todense())),
    "dense, outputs first": ("xla", lambda w: Dense(w.todense().T, transposed=True)),
}


@dataclass(frozen=True)
class Measurement:
    """Speed of one form of one product.

    Attributes:
      form: Key of `FORMS`.
      block: (bk, bn).
      rows: Rows of the activations.
      shape: (K, N).
      density: Share of the blocks that are stored.
      seconds: Median of one product.
      speedup: Over the better of the two dense layouts in the same process: root of the product of the ratio of
        medians and the ratio of minima.
    """

    form: str
    block: tuple[int, int]
    rows: int
    shape: tuple[int, int]
    density: float
    seconds: float
    speedup: float


@dataclass(frozen=True)
class Calibration:
    """Measurements on one machine.

    Attributes:
      device: The machine, in words.
      measurements: What was measured there.
    """

    device: str
    measurements: tuple[Measurement, ...]

    def predict(self, form: str, block: tuple[int, int], rows: int, shape: tuple[int, int], density: float) -> float:
        """Speed-up of a form over dense: that of the nearest product measured, interpolated in log density.

        Nearest: in the logarithms of the sides of the block, of the rows and of the size.  0 if the form was not
        measured there, or for sparser products only.
        """

        def distance(key: tuple[tuple[int, int], int, tuple[int, int]]) -> float:
            sides = sum(abs(math.log2(a / b)) for a, b in zip(key[0], block, strict=True))
            size = abs(math.log2(math.prod(key[2]) / math.prod(shape)))
            return sides + abs(math.log2(key[1] / rows)) + size / 2

        nearest = min(self._curves, key=distance)
        curve = sorted(self._curves[nearest].get(form, {}).items())
        if not curve or (form not in DENSE and density > 1.2 * curve[-1][0]):
            return 0.0
        densities, speedups = zip(*curve, strict=True)
        return float(np.exp(np.interp(math.log(density), np.log(densities), np.log(speedups))))

    @functools.cached_property
    def _curves(self) -> dict[tuple[tuple[int, int], int, tuple[int, int]], dict[str, dict[float, float]]]:
        """(block, rows, shape) -> form -> density -> speed-up."""
        out: dict[Any, Any] = {}
        for m in self.measurements:
            out.setdefault((m.block, m.rows, m.shape), {}).setdefault(m.form, {})[m.density] = m.speedup
        return out

    def to_json(self) -> str:
        """As text; `from_json` reads it."""
        return json.dumps({"device": self.device, "measurements": [asdict(m) for m in self.measurements]}, indent=0)

    @classmethod
    def from_json(cls, text: str) -> "Calibration":
        """Reads what `to_json` wrote."""
        raw = json.loads(text)
        rows = ({**m, "block": tuple(m["block"]), "shape": tuple(m["shape"])} for m in raw["measurements"])
        return cls(raw["device"], tuple(Measurement(**m) for m in rows))

    @classmethod
    @functools.cache
    def default(cls) -> "Calibration":
        """The measurements that come with the package: two cores of a server CPU."""
        return cls.from_json(importlib.resources.files("pallas_kernels").joinpath("calibration_cpu.json").read_text())


def has_form(form: str, rows: int, w: BlockSparse) -> bool:
    """Whether a form is one of these weights: there are no segments where `xla` unfolds small blocks."""
    return form != "segments" or xla.by_blocks(rows, w)


def calibrate(
    blocks: Iterable[tuple[int, int]],
    rows: Iterable[int],
    shapes: Iterable[tuple[int, int]],
    densities: Iterable[float],
    *,
    device: str,
    rounds: int = 9,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = lambda cells: cells,
) -> Calibration:
    """Measures every form on this machine, on random patterns: all combinations of the arguments.

    Args:
      blocks: (bk, bn).
      rows: Rows of the activations.
      shapes: (K, N).
      densities: Shares of the blocks that are stored.
      device: What to call this machine.
      rounds: Times every form is measured, in turn with the others.
      progress: Wraps the list of products, to show a bar.

    Returns:
      The measurements, for `prepare`.
    """
    cells = [(s, b, d, m) for s in shapes for b in blocks for d in densities for m in rows]
    out: list[Measurement] = []
    for shape, block, density, m in progress(cells):
        out.extend(_measure(random_blocks(shape, block, density), m, rounds))
    return Calibration(device, tuple(out))


def random_blocks(shape: tuple[int, int], block: tuple[int, int], density: float, seed: int = 0) -> BlockSparse:
    """Normal values on a random pattern."""
    random = np.random.default_rng(seed)
    k, n = shape
    exists = random.random((-(-k // block[0]), -(-n // block[1]))) < density
    mask = np.kron(exists, np.ones(block, bool))[:k, :n]
    return BlockSparse.from_dense(random.normal(size=shape).astype(np.float32) * mask, block, mask)


def _measure(w: BlockSparse, rows: int, rounds: int) -> list[Measurement]:
    from pallas_kernels._matmul import matmul

    x = jnp.asarray(np.random.default_rng(1).normal(size=(rows, w.shape[0])), jnp.float32)
    calls = {}
    for form, (implementation, layout) in FORMS.items():
        if not has_form(form, rows, w) or (implementation == "native" and not native.ready()):
            continue
        product = jax.jit(functools.partial(matmul, implementation=implementation))
        calls[form] = functools.partial(product, x, layout(w))
    medians, minima = interleave(calls, rounds)
    best = {kind: min(times[form] for form in DENSE) for kind, times in (("median", medians), ("least", minima))}
    density = len(w.rows) / math.prod(w.grid)
    return [
        Measurement(
            form, w.block, rows, w.shape, density, medians[form],
            math.sqrt(best["median"] / medians[form] * best["least"] / minima[form]),
        )
        for form in calls
    ]  # fmt: skip


def interleave(calls: Mapping[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Times functions in turn: medians and minima of the seconds of one call.

    A round calls a function often enough to last about ten milliseconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    repeats = {}
    for name, call in calls.items():
        jax.block_until_ready(call())
        start = time.perf_counter()
        jax.block_until_ready(call())
        repeats[name] = max(1, round(0.01 / (time.perf_counter() - start)))
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                result = call()
            jax.block_until_ready(result)
            seconds[name].append((time.perf_counter() - start) / repeats[name])
    return {n: float(np.median(s)) for n, s in seconds.items()}, {n: min(s) for n, s in seconds.items()}
