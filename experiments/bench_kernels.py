"""Speed of packed products against dense ones, as ratios within one run.

    python -m experiments.bench_kernels [--suite=cpu|gpu|tpu] [--what=all|forms|choice|networks] [--calibrate] [--out=F]

"forms": every form of a block-sparse product over patterns, densities and sizes, in turn with the two dense layouts of
the same weights; the speed-up is over the better of the two.  "choice": what `prepare` chooses, on other patterns.
"networks": whole networks at 90 %, beside convolutions and beside dense products of patches.  ``--calibrate`` writes
the measurements of the forms into the package, where `prepare` finds them.  Beside F a plot of the forms is
written.  The other suites are `experiments.bench_device`, on the device at hand.
"""

import functools
import json
import math
import os
import platform
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from absl import app, flags, logging

from experiments.launch import refuse_arguments


@dataclass(frozen=True)
class Grid:
    """What is measured: all combinations, per shape."""

    blocks: tuple[tuple[int, int], ...]
    rows: tuple[int, ...]
    shapes: tuple[tuple[int, int], ...]
    densities: tuple[float, ...]


BLOCKS = ((1, 1), (16, 1), (1, 16), (4, 4), (8, 8), (16, 16), (32, 32), (64, 64))
# A convolution of VGG as product, with all patterns; and AlexNet's first fully connected layer.
GRIDS = (
    Grid(BLOCKS, (1, 16, 128), ((4608, 512),), (0.5, 0.25, 0.1, 0.05)),
    Grid(BLOCKS, (1, 16, 128), ((9216, 4096),), (0.25, 0.1)),
)
SMALL = (Grid(((1, 1), (8, 8)), (1, 8), ((64, 32),), (0.5, 0.1)),)


def run(
    *,
    small: bool = False,
    rounds: int = 9,
    forms: bool = True,
    choice: bool = True,
    networks: bool = True,
    progress: bool = True,
) -> dict[str, Any]:
    """Measures the CPU suite and returns its record.

    Args:
      small: Tiny sizes: for tests, the figures mean nothing.
      rounds: Times every form is measured.
      forms: Whether to measure every form of a product; if so, the choice goes by these measurements.
      choice: Whether to measure what `prepare` chooses, for single products.
      networks: Whether to measure whole networks.
      progress: Whether to show a bar (quiet when stderr is not a terminal).

    Returns:
      Everything measured, as a tree that JSON can hold.
    """
    import jax

    import pallas_kernels as pk

    bar, grids = _bar(progress), SMALL if small else GRIDS
    record: dict[str, Any] = {"suite": "cpu", "device": _device(), "jax": jax.__version__, "rounds": rounds}
    calibration = pk.Calibration.default()
    if forms:
        each = [pk.calibrate(**vars(grid), device=_device(), rounds=rounds, progress=bar) for grid in grids]
        calibration = pk.Calibration(_device(), tuple(m for fresh in each for m in fresh.measurements))
        record["measurements"] = [asdict(m) for m in calibration.measurements]
    if choice:
        record["auto"] = _auto(grids, calibration, rounds, bar)
        record["channels"] = _channels(small, rounds)
    if networks:
        record["networks"] = _networks(small, rounds, calibration)
    return record


def _auto(grids: Iterable[Grid], calibration: Any, rounds: int, bar: Any) -> list[dict[str, Any]]:
    """What `prepare` chooses, against the better dense layout: with the C++ kernel, and without."""
    import pallas_kernels as pk
    from pallas_kernels import native
    from pallas_kernels._calibration import random_blocks

    out = []
    cells = [(s, b, d, m) for g in grids for s in g.shapes for b in g.blocks for d in g.densities for m in g.rows]
    for shape, block, density, rows in bar(cells):
        # Another pattern and other values than those the calibration saw.
        w = random_blocks(shape, block, density, seed=1)
        choices = {"auto": pk.prepare(w, rows, platform="cpu", calibration=calibration, use_native=False)}
        if native.ready():
            choices["auto, native"] = pk.prepare(w, rows, platform="cpu", calibration=calibration, use_native=True)
        speedups = _against_dense(w, rows, choices, rounds)
        cell = {"shape": shape, "block": block, "density": w.density, "rows": rows}
        out += [{**cell, "name": n, "reason": choices[n].reason, "speedup": s} for n, s in speedups.items()]
    return out


def _channels(small: bool, rounds: int) -> list[dict[str, Any]]:
    """Whole inputs gone: a smaller dense product after a gather."""
    import numpy as np

    import pallas_kernels as pk

    out = []
    random = np.random.default_rng(0)
    for shape in ((64, 32),) if small else ((4608, 512), (9216, 4096)):
        for density in (0.25, 0.1):
            kept = random.random(shape[0]) < density
            dense = random.normal(size=shape).astype(np.float32) * kept[:, None]
            w = pk.Channels.from_dense(dense)
            for rows in (1, 16, 128):
                (speedup,) = _against_dense(w, rows, {"channels": pk.prepare(w, rows, platform="cpu")}, rounds).values()
                out.append({"shape": shape, "density": w.density, "rows": rows, "speedup": speedup})
    return out


def _against_dense(w: Any, rows: int, choices: dict[str, Any], rounds: int) -> dict[str, float]:
    """Speed-ups over the better dense layout: root of the product of the ratios of medians and of minima."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import pallas_kernels as pk
    from pallas_kernels._calibration import interleave

    x = jnp.asarray(np.random.default_rng(1).normal(size=(rows, w.shape[0])), jnp.float32)
    product = jax.jit(pk.matmul)
    dense = w.todense()
    calls = {
        "inputs first": functools.partial(product, x, pk.Dense(dense)),
        "outputs first": functools.partial(product, x, pk.Dense(dense.T, transposed=True)),
        **{name: functools.partial(product, x, chosen) for name, chosen in choices.items()},
    }
    medians, minima = interleave(calls, rounds)
    best = [min(times["inputs first"], times["outputs first"]) for times in (medians, minima)]
    return {name: math.sqrt(best[0] / medians[name] * best[1] / minima[name]) for name in choices}


def _networks(small: bool, rounds: int, calibration: Any) -> list[dict[str, Any]]:
    """Whole networks at 90 % block sparsity against the better of two dense ones: milliseconds and speed-ups."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from compressjax import runtime
    from experiments.kernel_networks import NETWORKS, SMALL, prune
    from pallas_kernels._calibration import interleave

    out = []
    for name, network in (SMALL if small else NETWORKS).items():
        params, forward = network.init(), jax.jit(network.apply)
        unfolded = jax.jit(functools.partial(network.apply, unfold=True))
        for batch in (1, 16):
            x = jnp.asarray(np.random.default_rng(0).normal(size=(batch, *network.image)), jnp.float32)
            calls = {
                "convolutions": functools.partial(forward, params, x),
                "unfolded": functools.partial(unfolded, params, x),
            }
            chosen = {}
            for block in ((16, 16), (64, 64)):
                pruned, rules = prune(params, block, 0.1)
                rows = network.rows(batch)
                packed = runtime.pack(pruned, rules, batch=rows, platform="cpu", calibration=calibration)
                key = f"{block[0]}x{block[1]}"
                calls[key] = functools.partial(forward, packed, x)
                chosen[key] = [row.reason.split(":")[0] for row in runtime.report(packed).rows]
            medians, minima = interleave(calls, rounds)
            dense = min(("convolutions", "unfolded"), key=medians.__getitem__)
            out += [
                {
                    "network": name,
                    "batch": batch,
                    "block": key,
                    "forms": forms,
                    "dense": dense,
                    "convolutions_ms": 1e3 * medians["convolutions"],
                    "unfolded_ms": 1e3 * medians["unfolded"],
                    "packed_ms": 1e3 * medians[key],
                    "speedup": math.sqrt(medians[dense] / medians[key] * minima[dense] / minima[key]),
                }
                for key, forms in chosen.items()
            ]
    return out


def _device() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}"


def _bar(progress: bool) -> Callable[[Iterable[Any]], Iterable[Any]]:
    if not progress:
        return lambda cells: cells
    import tqdm

    return functools.partial(tqdm.tqdm, disable=not sys.stderr.isatty(), unit="product")


def main(argv: list[str]) -> None:
    """Flag shell around `run`."""
    refuse_arguments(argv)
    given = flags.FLAGS
    if not given["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    if given.calibrate and (given.small or given.what not in ("all", "forms")):
        raise app.UsageError("--calibrate needs the forms measured at full size: leave out --small and --what.")
    if given.suite != "cpu":
        from experiments import bench_device

        try:
            record = bench_device.measure(given.suite)
        except ValueError as error:
            raise app.UsageError(str(error)) from error
        print(bench_device.to_text(record))
        if given.out:
            Path(given.out).write_text(json.dumps(record, indent=1) + "\n")
        return
    from experiments import kernel_tables

    parts = {part: given.what in ("all", part) for part in ("forms", "choice", "networks")}
    record = run(small=given.small, rounds=given.rounds, **parts)
    print(kernel_tables.to_markdown(record))
    if given.calibrate:
        print(f"Calibration: {kernel_tables.write_calibration(record)}")
    if given.out:
        out = Path(given.out)
        out.write_text(json.dumps(record, indent=1) + "\n")
        if "measurements" in record:
            kernel_tables.plot(record, out.with_suffix(".svg"))
        print(f"Record: {out}")


if __name__ == "__main__":
    flags.DEFINE_enum("suite", "cpu", ["cpu", "gpu", "tpu"], "What to measure on.")
    flags.DEFINE_bool("small", False, "Tiny sizes, to see that it runs.")
    flags.DEFINE_enum("what", "all", ["all", "forms", "choice", "networks"], "Which part.")
    flags.DEFINE_bool("calibrate", False, "Let prepare go by these measurements from now on.")
    flags.DEFINE_integer("rounds", 9, "Times every form is measured.", lower_bound=1)
    flags.DEFINE_string("out", "", "JSON file to write; a plot is written beside it.")
    app.run(main)
