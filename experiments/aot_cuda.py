"""Compiles every Hopper kernel for sm_90a, on a machine without a GPU: ``python -m experiments.aot_cuda``.

The CUDA compilers are libraries that run on any x86 Linux (what ``pip install .[cuda]`` brings); they are told what an
H200 is.  The table shows the registers of a thread and the bytes it spills: a kernel that spills is slow, and so is one
whose products the assembler had to put in a row.  That a kernel compiles says nothing about races, numbers or speed:
nothing is run.
"""

import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax.experimental import topologies

import pallas_kernels as pk
from experiments.launch import refuse_arguments

H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 4800000000000 l2_cache_size: 62914560
  clock_rate_ghz: 1.98 device_memory_size: 150754820096 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 minor: 0 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 28 } device_description_str: "NVIDIA H200"
"""

_FILTER = flags.DEFINE_string("kernels", "", "Compile only the kernels whose name contains this.")


@dataclass(frozen=True)
class Row:
    """One kernel, compiled.

    Attributes:
      registers: Of a thread.
      spills: Bytes a thread stores to memory for want of registers.
      seconds: To compile.
      problem: What the compiler said, or None.
    """

    registers: int
    spills: int
    seconds: float
    problem: str | None


def blocks(k: int, n: int, block: tuple[int, int], values: Callable[..., Any], density: float = 0.25) -> pk.BlockSparse:
    """A random pattern; `values` makes what the blocks hold from their shape [T, bk, bn]."""
    exists = np.random.default_rng(0).random((-(-k // block[0]), -(-n // block[1]))) < density
    exists[0], exists[:, 0] = True, True
    columns, rows = np.nonzero(exists.T)
    return pk.BlockSparse.from_blocks(values((len(rows), *block)), rows, columns, (k, n))


def floats(dtype: Any) -> Callable[[tuple[int, ...]], Any]:
    """Makes arrays that are shapes only."""
    return lambda shape: jax.ShapeDtypeStruct(shape, dtype)


def codes(bits: int, groups: int = 1) -> Callable[[tuple[int, ...]], pk.Quantized]:
    """Makes quantized tensors that are shapes only."""

    def make(shape: tuple[int, ...]) -> pk.Quantized:
        *lead, k, n = shape
        packed = jax.ShapeDtypeStruct((*lead, k * bits // 8, n), jnp.int8)
        return pk.Quantized(packed, jax.ShapeDtypeStruct((*lead, groups, n), jnp.bfloat16), None, shape, bits)

    return make


Call = tuple[Callable[..., Any], tuple[Any, ...]]


def forward(rows: int, w: Any, activation: Any = None, dtype: Any = jnp.bfloat16, bias: bool = True) -> Call:
    """The product, with its operands."""
    x, b = jax.ShapeDtypeStruct((rows, w.shape[0]), dtype), jax.ShapeDtypeStruct((w.shape[1],), jnp.float32)

    def call(x: Any, w: Any, b: Any = None) -> Any:
        return pk.matmul(x, w, b, activation, implementation="mosaic_gpu", platform="gpu")

    return call, (x, w, *(b,) * bias)


def transposed(rows: int, w: Any) -> Call:
    """The gradient of the input, with its operands."""
    g = jax.ShapeDtypeStruct((rows, w.shape[1]), w.dtype)
    return lambda g, w: pk.matmul_transposed(g, w, implementation="mosaic_gpu", platform="gpu"), (g, w)


def outer(rows: int, w: Any) -> Call:
    """The gradient of the weights, with its operands."""
    x, g = (jax.ShapeDtypeStruct((rows, size), jnp.bfloat16) for size in w.shape)
    return lambda x, g, w: pk.outer(x, g, w, implementation="mosaic_gpu", platform="gpu"), (x, g, w)


def cases() -> dict[str, Call]:
    """Every kernel in every form that is compiled differently."""
    bf16, found = floats(jnp.bfloat16), {}
    for block in ((64, 64), (64, 128), (128, 64), (128, 128)):
        w = blocks(4096, 4096, block, bf16)
        name = f"{block[0]}x{block[1]}"
        for rows in (16, 256, 4096):
            found[f"DSD {name}, {rows} rows"] = forward(rows, w, bias=False)
            found[f"DSD^T {name}, {rows} rows"] = transposed(rows, w)
        found[f"SDD {name}, 4096 rows"] = outer(4096, w)
    for name in ("relu", "gelu", "silu", "tanh", "leaky_relu", "softplus"):
        found[f"DSD 128x128, bias, {name}"] = forward(4096, w, getattr(jax.nn, name))
    half = blocks(4096, 4096, (128, 128), floats(jnp.float16))
    found["DSD 128x128, float16"] = forward(4096, half, dtype=jnp.float16)
    found["DSD 128x128, ragged"] = forward(1000, blocks(1000, 700, (128, 128), bf16))
    found["SDD 128x128, float32 out"] = outer(4096, blocks(4096, 4096, (128, 128), floats(jnp.float32)))
    for bits in (8, 4):
        for rows in (1, 16, 64, 512):
            found[f"int{bits}, {rows} rows"] = forward(rows, codes(bits)((4096, 4096)))
        for group in (128, 64):
            found[f"int{bits} in groups of {group}, 16 rows"] = forward(16, codes(bits, 4096 // group)((4096, 4096)))
        for rows in (16, 512):
            found[f"int{bits} blocks 128x128, {rows} rows"] = forward(rows, blocks(4096, 4096, (128, 128), codes(bits)))
    return found


@contextmanager
def printed() -> Iterator[list[str]]:
    """Collects what the process writes to its standard streams, compilers in C++ included."""
    text: list[str] = []
    with tempfile.TemporaryFile() as file:
        sys.stdout.flush()
        kept = [os.dup(stream) for stream in (1, 2)]
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
        try:
            yield text
        finally:
            for stream, old in zip((1, 2), kept, strict=True):
                os.dup2(old, stream)
                os.close(old)
            file.seek(0)
            text.append(file.read().decode(errors="replace"))


def compile_case(call: Call, device: Any) -> Row:
    """Compiles one product for the described GPU."""
    function, operands = call
    here = jax.sharding.SingleDeviceSharding(device)
    operands = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here), operands)
    start = time.perf_counter()
    problem: str | None = None
    with printed() as text:
        try:
            program = jax.jit(function).lower(*operands).compile().as_text() or ""
            if "mosaic_gpu" not in program:
                problem = "no kernel in the program"
        except Exception as error:  # whatever a compiler raises is a row of the table
            problem = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    registers = [int(n) for n in re.findall(r"Used (\d+) registers", text[0])]
    spills = [int(n) for n in re.findall(r"(\d+) bytes spill stores", text[0])]
    if "serialized" in text[0]:
        problem = "the assembler serialized its products"
    if problem is None and not registers:
        problem = "the assembler reported no registers"
    return Row(max(registers, default=0), max(spills, default=0), time.perf_counter() - start, problem)


def main(argv: list[str]) -> None:
    refuse_arguments(argv)
    os.environ["MOSAIC_GPU_DUMP_PTXAS"] = "1"
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)
    topology = topologies.get_topology_desc(platform="cuda", topology_name="h200", target_config=H200, topology="1x1x1")
    print(f"JAX {jax.__version__}, sm_90a")
    print(f"{'kernel':40s}{'registers':>10s}{'spills':>8s}{'seconds':>9s}  ok")
    failed = 0
    wanted = _FILTER.value
    for name, case in cases().items():
        if wanted not in name:
            continue
        row = compile_case(case, topology.devices[0])
        failed += row.problem is not None or row.spills > 0
        verdict = row.problem or ("yes" if not row.spills else "spills")
        print(f"{name:40s}{row.registers:10d}{row.spills:8d}{row.seconds:9.1f}  {verdict}", flush=True)
    print(f"{failed} failed or spill." if failed else "All compile, and none spills.")
    sys.exit(bool(failed))


if __name__ == "__main__":
    app.run(main)
