"""Speed and correctness of the kernels on a GPU or TPU: ``python -m experiments.bench_kernels --suite=gpu``, or tpu.

First every kernel is compared with dense float32.  Then every product is timed beside dense bfloat16 ones of the same
size, in both layouts of the weights, and the ratio to the faster is what counts.  The variants of a size take turns
within a round, dense ones first and once more last, so that a change of clocks shows.  One measurement is one program
that multiplies by several copies of the weights: more than the cache holds, and enough that starting it does not count.
The most telling sizes come first; what does not fit the time is listed as left out.

`run` returns a JSON-able record; the program writes it to ``$OUT`` or ``--out``, default ``results``.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import pallas_kernels as pk
from experiments.device_sizes import CONFIGS, Config, Size
from pallas_kernels._interface import Epilogue
from pallas_kernels.mosaic_gpu import blocks as kernels

# Of an H200: what a product costs at least, only to choose how often it is repeated.
FLOPS, BYTES = 7e14, 4e12


@dataclass(frozen=True)
class Variant:
    """A product to time.

    Attributes:
      name: For the record.
      function: Of activations and weights.
      weights: One copy.
      bytes: Of the weights.
      flops: Of the products that are not with zero.
      kind: "dense", "blocks", "bits", "gradient" or "cut".
      extra: For the record: density, block, bits.
    """

    name: str
    function: Callable[[Any, Any], Any]
    weights: Any
    bytes: int
    flops: float
    kind: str
    extra: dict[str, Any] = field(default_factory=dict)


def run(config: Config) -> dict[str, Any]:
    """Compares and times.

    Returns:
      Device and versions, the comparison, the timings, break-even densities, and what was left out.
    """
    start = time.monotonic()
    record: dict[str, Any] = {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "config": asdict(config),
        "correct": [],
        "timings": [],
        "left_out": [],
    }
    for row in _checks(config):
        record["correct"].append(row)
        if time.monotonic() - start > config.seconds / 3:
            record["left_out"].append("some comparisons")
            break
    for size in config.sizes:
        left = config.seconds - (time.monotonic() - start)
        name = f"{size.rows} rows, width {size.width}"
        if left < 0:
            record["left_out"].append(name)
            continue
        record["timings"].append({"rows": size.rows, "width": size.width, **_time(size, config, left)})
    record["break_even"] = [row for size in record["timings"] for row in break_even(size)]
    record["all_correct"] = all(row["ok"] for row in record["correct"])
    record["seconds"] = time.monotonic() - start
    return record


def block_weights(width: int, block: int, density: float, key: Any, bits: int | None = None) -> pk.BlockSparse:
    """A random pattern with random bfloat16 values, or codes, that never were dense."""
    count = -(-width // block)
    exists = np.random.default_rng(0).random((count, count)) < density
    exists[np.arange(count), np.arange(count)] = True
    columns, rows = np.nonzero(exists.T)
    shape = (len(rows), block, block)
    values = jax.random.normal(key, shape, jnp.bfloat16) if bits is None else code_weights(shape, bits, key)
    return pk.BlockSparse.from_blocks(values, rows, columns, (width, width))


def code_weights(shape: tuple[int, ...], bits: int, key: Any, group: int | None = None) -> pk.Quantized:
    """Random codes, one scale for each output and group of inputs."""
    *lead, k, n = shape
    packed = jax.random.randint(key, (*lead, k * bits // 8, n), -127, 128, jnp.int8)
    scale = jax.random.uniform(key, (*lead, k // (group or k), n), jnp.bfloat16, 0.5, 1.0)
    return pk.Quantized(packed, scale, None, shape, bits)


def _checks(config: Config) -> Iterator[dict[str, Any]]:
    """Every kernel against dense float32: relative Frobenius errors."""
    key, width, relu = jax.random.key(0), config.check_width, jax.nn.relu
    block_sizes = sorted({block for size in config.sizes for block in size.blocks if block <= width // 2})
    weights: dict[str, Any] = {f"blocks {b}": block_weights(width, b, 0.3, key) for b in block_sizes}
    for bits in (8, 4):
        weights[f"int{bits}"] = code_weights((width, width), bits, key)
        weights[f"int{bits} in groups"] = code_weights((width, width), bits, key, 64)
        if 128 in block_sizes:
            weights[f"int{bits} blocks"] = block_weights(width, 128, 0.3, key, bits)
    for name, w in weights.items():
        # In float32 `todense` does not round the products of codes and scales.
        dense = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == jnp.bfloat16 else leaf, w).todense()
        backwards = name.startswith("blocks")
        for rows in config.check_rows:
            x, g = (jax.random.normal(jax.random.key(seed), (rows, width), jnp.bfloat16) for seed in (1, 2))
            bias = jax.random.normal(jax.random.key(3), (width,), jnp.float32)
            yield _check(f"{name}, {rows} rows", _forward(config), (x, w, bias), relu(_exact(x, dense) + bias[None]))
            if backwards:
                yield _check(f"{name}, {rows} rows, dx", _transposed(config), (g, w), _exact(g, dense.T))
                yield _check(f"{name}, {rows} rows, dw", _outer(config), (x, g, w), w.gather(_exact(x.T, g)))


def _forward(config: Config) -> Callable[..., Any]:
    def call(x: Any, w: Any, bias: Any) -> Any:
        return pk.matmul(x, w, bias, jax.nn.relu, **config.how)

    return call


def _plain(config: Config) -> Callable[..., Any]:
    def call(x: Any, w: Any) -> Any:
        return pk.matmul(x, w, **config.how)

    return call


def _transposed(config: Config) -> Callable[..., Any]:
    def call(g: Any, w: Any) -> Any:
        return pk.matmul_transposed(g, w, **config.how)

    return call


def _outer(config: Config) -> Callable[..., Any]:
    def call(x: Any, g: Any, w: Any) -> Any:
        return pk.outer(x, g, w, **config.how)

    return call


def _outer_of_itself(config: Config) -> Callable[..., Any]:
    def call(x: Any, w: Any) -> Any:
        return pk.outer(x, x, w, **config.how)

    return call


def _exact(a: Any, b: Any) -> Any:
    return jnp.matmul(a.astype(jnp.float32), b.astype(jnp.float32), precision="highest")


def _check(name: str, function: Callable[..., Any], operands: tuple[Any, ...], exact: Any) -> dict[str, Any]:
    want = np.asarray(exact, np.float64)
    try:
        got = np.asarray(jax.jit(function)(*operands), np.float64)
    except Exception as problem:  # one kernel that fails must not hide the others
        return {"name": name, "ok": False, "problem": f"{type(problem).__name__}: {problem}"[:500]}
    error = float(np.linalg.norm(got - want) / np.linalg.norm(want))
    return {"name": name, "ok": error < 2**-8, "error": error}


def _variants(size: Size, config: Config) -> list[Variant]:
    rows, width = size.rows, size.width
    key = jax.random.key(0)
    full = 2.0 * rows * width * width
    product = _plain(config)
    dense = jax.random.normal(key, (width, width), jnp.bfloat16)
    kind, dense_bytes = "dense", dense.nbytes
    found = [
        Variant("dense", lambda x, w: x @ w, dense, dense_bytes, full, kind),
        Variant("dense, outputs first", lambda x, w: x @ w.T, dense, dense_bytes, full, kind),
    ]
    for block in size.blocks:
        for density in size.densities:
            w = block_weights(width, block, density, key)
            extra = {"block": block, "density": w.density}
            flops = full * w.density
            found.append(Variant(f"blocks {block}, {density:.0%}", product, w, w.nbytes, flops, "blocks", extra))
            if size.gradients and density == sorted(size.densities)[1]:
                turned, outer = _transposed(config), _outer_of_itself(config)
                found.append(Variant(f"dx, {block}, {density:.0%}", turned, w, w.nbytes, flops, "gradient", extra))
                found.append(Variant(f"dw, {block}, {density:.0%}", outer, w, w.nbytes, flops, "gradient", extra))
            if size.cuts and density == 0.25:
                for tall, groups in ((64, 1), (128, 1), (64, 2)):
                    name = f"blocks {block}, {density:.0%}, {groups} x {tall} rows"
                    function = _cut(kernels.Tiling(tall, groups), config)
                    found.append(Variant(name, function, w, w.nbytes, flops, "cut", extra))
    for bits in size.bits:
        q = code_weights((width, width), bits, key)
        found.append(Variant(f"int{bits}", product, q, q.nbytes, full, "bits", {"bits": bits}))
        grouped = code_weights((width, width), bits, key, 128)
        found.append(
            Variant(f"int{bits} in groups of 128", product, grouped, grouped.nbytes, full, "bits", {"bits": bits})
        )
        if size.densities and max(size.blocks) == 128:
            w = block_weights(width, 128, min(size.densities), key, bits)
            extra = {"block": 128, "density": w.density, "bits": bits}
            name = f"int{bits} blocks, {min(size.densities):.0%}"
            found.append(Variant(name, product, w, w.nbytes, full * w.density, "bits", extra))
    # Last once more, to show drift.
    return [*found, Variant("dense again", found[0].function, dense, dense_bytes, full, kind)]


def _cut(cut: kernels.Tiling, config: Config) -> Callable[[Any, Any], Any]:
    epilogue = Epilogue(None, jnp.dtype(jnp.bfloat16))
    return lambda x, w: kernels.product(x, w, None, epilogue, cut=cut, interpret=config.interpret)


def _time(size: Size, config: Config, left: float) -> dict[str, Any]:
    """Medians and minima of all variants of a size, in milliseconds, and what follows from them."""
    end = time.monotonic() + left
    programs: dict[str, Callable[[], Any]] = {}
    copies, problems, known = {}, [], {v.name: v for v in _variants(size, config)}
    x = jax.random.normal(jax.random.key(4), (size.rows, size.width), jnp.bfloat16)
    for name, variant in known.items():
        if time.monotonic() > end:
            problems.append({"name": name, "problem": "no time left"})
            continue
        copies[name] = _copies(variant, size, config)
        try:
            programs[name] = _program(variant, x, copies[name])
            programs[name]()
        except Exception as problem:  # one kernel that fails must not hide the others
            problems.append({"name": name, "problem": f"{type(problem).__name__}: {problem}"[:500]})
            programs.pop(name, None)
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(config.rounds):
        for name, program in programs.items():
            begin = time.perf_counter()
            program()
            times[name].append((time.perf_counter() - begin) / copies[name] * 1e3)
        if time.monotonic() > end:
            break
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    best = min((medians[n] for n in medians if known[n].kind == "dense"), default=float("nan"))
    rows = []
    for name, taken in times.items():
        variant, seconds = known[name], medians[name] / 1e3
        rows.append(
            {
                "name": name,
                "kind": variant.kind,
                **variant.extra,
                "ms": medians[name],
                "least_ms": min(taken),
                "rounds": len(taken),
                "copies": copies[name],
                "tflops": variant.flops / seconds / 1e12,
                "gbytes": variant.bytes / seconds / 1e9,
                "speedup": best / medians[name],
                # The share of the dense throughput that the products with something have.
                "of_dense": best / medians[name] * variant.flops / (2.0 * size.rows * size.width**2),
            }
        )
    return {"rows_of_table": rows, "problems": problems}


def _copies(variant: Variant, size: Size, config: Config) -> int:
    """Products in one program: about two milliseconds of them."""
    activations = 4 * size.rows * size.width
    least = max(variant.flops / FLOPS, (variant.bytes + activations) / BYTES)
    return int(np.clip(2e-3 / least, 1, config.most_copies))


def _program(variant: Variant, x: Any, copies: int) -> Callable[[], Any]:
    """Products of different activations and weights, so that nothing is shared and the cache does not help."""
    one = jax.jit(variant.function)
    weights = [jax.tree.map(lambda leaf, i=i: _other(leaf, i), variant.weights) for i in range(copies)]
    xs = [_other(x, i) for i in range(copies)]
    program = jax.jit(lambda xs, weights: [one(x, w) for x, w in zip(xs, weights, strict=True)])
    return lambda: jax.block_until_ready(program(xs, weights))


def _other(leaf: Any, i: int) -> Any:
    """Another copy of what is multiplied with; the pattern, which is of int32, stays."""
    return leaf + jnp.asarray(i, leaf.dtype) if leaf.dtype in (jnp.bfloat16, jnp.int8) else leaf


def break_even(size: dict[str, Any]) -> list[dict[str, Any]]:
    """The density below which blocks are faster than dense, by interpolation between densities.

    >>> rows = [{"kind": "blocks", "block": 64, "density": d, "speedup": s} for d, s in ((0.25, 2.0), (0.75, 0.5))]
    >>> break_even({"rows": 1, "width": 2, "rows_of_table": rows})
    [{'rows': 1, 'width': 2, 'block': 64, 'density': 0.5}]
    """
    found = []
    table = [row for row in size["rows_of_table"] if row["kind"] == "blocks"]
    for block in sorted({row["block"] for row in table}):
        points = sorted((row["density"], np.log(row["speedup"])) for row in table if row["block"] == block)
        density = None
        if points[0][1] > 0:
            density = points[-1][0]
            for (low, gain), (high, loss) in itertools.pairwise(points):
                if loss <= 0:
                    density = float(low + (high - low) * gain / (gain - loss))
                    break
        found.append({"rows": size["rows"], "width": size["width"], "block": block, "density": density})
    return found


def to_text(record: dict[str, Any]) -> str:
    """The record as a table."""
    wrong = [row for row in record["correct"] if not row["ok"]]
    lines = [f"{record['device']}, JAX {record['jax']}: {len(record['correct'])} comparisons, {len(wrong)} failed"]
    lines += [f"  WRONG {row}" for row in wrong]
    for size in record["timings"]:
        lines.append(f"{size['rows']} rows, {size['width']} x {size['width']}")
        for row in size["rows_of_table"]:
            lines.append(
                f"  {row['name']:32s}{row['ms']:9.4f} ms{row['tflops']:8.1f} TFLOP/s{row['gbytes']:8.0f} GB/s"
                f"{row['speedup']:7.2f}x{row['of_dense']:7.0%} of dense"
            )
        lines += [f"  FAILED {problem}" for problem in size["problems"]]
    lines += [f"break-even density: {row}" for row in record["break_even"]]
    lines += [f"left out: {name}" for name in record["left_out"]]
    return "\n".join(lines)


def measure(platform: str) -> dict[str, Any]:
    """The record of the device at hand.

    Args:
      platform: "gpu" or "tpu".

    Raises:
      ValueError: If there is none.
    """
    if jax.default_backend() != platform:
        compiler = {"gpu": "aot_cuda", "tpu": "aot_tpu"}[platform]
        raise ValueError(
            f"There is no {platform.upper()} here; experiments.{compiler} compiles the kernels without one."
        )
    return run(CONFIGS[platform])
