"""Compiles every TPU kernel for real TPUs, on a machine without one: ``python -m experiments.aot_tpu``.

The TPU compiler is a library that runs on any x86 Linux (the package libtpu, which ``pip install .[tpu]`` brings); it
is asked for one device of each generation.  That a kernel compiles says that its operations exist there, and that its
tiles fit the vector and scalar memories.  It says nothing about numbers or speed: nothing is run.
"""

import importlib.util
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax.experimental import topologies

import pallas_kernels as pk
from experiments.launch import refuse_arguments

# One device each; the names are those of the compiler.
GENERATIONS = {"v4": "v4:2x2x1", "v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}

_ONLY = flags.DEFINE_string("only", "", "Compile only the kernels whose name contains this.")
_GENERATIONS = flags.DEFINE_multi_enum(
    "generation", list(GENERATIONS), list(GENERATIONS), "Compile for this generation only; may be given several times."
)


@dataclass(frozen=True)
class Case:
    """A product to compile.

    Attributes:
      rows: M.
      dtype: Of the activations.
      weights: Builds packed weights whose leaves may be shapes only.
    """

    rows: int
    dtype: Any
    weights: Callable[[], Any]

    def operations(self) -> tuple[str, ...]:
        """Names in `OPERATIONS`: only float blocks have a kernel of their own for the gradient of the weights."""
        w = self.weights()
        sampled = isinstance(w, pk.BlockSparse) and not isinstance(w.values, pk.Quantized)
        return ("matmul", "transposed", "outer") if sampled else ("matmul", "transposed")

    def arguments(self) -> tuple[Any, Any, Any, Any]:
        """Shapes of x, w, bias and the cotangent g of the product."""
        w = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), self.weights())
        x, g = (jax.ShapeDtypeStruct((self.rows, size), self.dtype) for size in w.shape)
        return x, w, jax.ShapeDtypeStruct((w.shape[1],), jnp.float32), g


def block_list(k: int, n: int, block: tuple[int, int], density: float, values: Callable[..., Any]) -> pk.BlockSparse:
    """A random pattern; `values` makes what the blocks hold from their shape [T, bk, bn]."""
    exists = np.random.default_rng(0).random((-(-k // block[0]), -(-n // block[1]))) < density
    exists[0], exists[:, 0] = True, True
    columns, rows = np.nonzero(exists.T)
    return pk.BlockSparse.from_blocks(values((len(rows), *block)), rows, columns, (k, n))


def floats(dtype: Any) -> Callable[[tuple[int, ...]], Any]:
    return lambda shape: jax.ShapeDtypeStruct(shape, dtype)


def codes(bits: int, groups: int = 1, levels: int = 0, dtype: Any = jnp.float32) -> Callable[[tuple[int, ...]], Any]:
    """Quantized tensors of a shape, of shapes only."""

    def make(shape: tuple[int, ...]) -> pk.Quantized:
        *lead, k, n = shape
        packed = jax.ShapeDtypeStruct((*lead, k * bits // 8, n), jnp.int8)
        codebook = jax.ShapeDtypeStruct((levels,), dtype) if levels else None
        return pk.Quantized(packed, jax.ShapeDtypeStruct((*lead, groups, n), dtype), codebook, shape, bits)

    return make


def nm(k: int, n: int, keep: int, m: int, dtype: Any) -> pk.NM:
    planes = (keep, k // m, n)
    return pk.NM(jax.ShapeDtypeStruct(planes, dtype), jax.ShapeDtypeStruct(planes, jnp.int8), (k, n), m)


B16, F32 = jnp.bfloat16, jnp.float32
SQUARE = (128, 128)
CASES: dict[str, Case] = {
    "blocks 128x128, bf16": Case(1024, B16, lambda: block_list(4096, 4096, SQUARE, 0.1, floats(B16))),
    "blocks 128x128, f32": Case(1024, F32, lambda: block_list(4096, 4096, SQUARE, 0.1, floats(F32))),
    "blocks 128x128, one row": Case(1, B16, lambda: block_list(4096, 9216, SQUARE, 0.1, floats(B16))),
    "blocks 128x128, ragged": Case(100, B16, lambda: block_list(1000, 700, SQUARE, 0.3, floats(B16))),
    "blocks 128x128, bf16 x, f32 w": Case(256, B16, lambda: block_list(1024, 1024, SQUARE, 0.3, floats(F32))),
    "blocks 256x128, bf16": Case(512, B16, lambda: block_list(4096, 2048, (256, 128), 0.1, floats(B16))),
    "blocks 512x512, f32": Case(512, F32, lambda: block_list(4096, 4096, (512, 512), 0.3, floats(F32))),
    "blocks 128x128, 65536 inputs": Case(64, B16, lambda: block_list(65536, 512, SQUARE, 0.1, floats(B16))),
    "80000 blocks 128x128": Case(16, B16, lambda: block_list(25600, 51200, SQUARE, 2, floats(B16))),
    "blocks, int8": Case(256, B16, lambda: block_list(4096, 4096, SQUARE, 0.1, codes(8))),
    "blocks, int8 in groups, f32": Case(256, F32, lambda: block_list(4096, 4096, SQUARE, 0.1, codes(8, 4))),
    "blocks, int4": Case(256, B16, lambda: block_list(4096, 4096, SQUARE, 0.1, codes(4))),
    "blocks, codebook of 16": Case(256, B16, lambda: block_list(4096, 4096, SQUARE, 0.1, codes(4, 1, 16))),
    "2:4, bf16": Case(64, B16, lambda: nm(4096, 4096, 2, 4, B16)),
    "2:4, f32": Case(1024, F32, lambda: nm(4096, 4096, 2, 4, F32)),
    "1:4, ragged": Case(10, B16, lambda: nm(1000, 700, 1, 4, B16)),
    "4:8, bf16": Case(512, B16, lambda: nm(4096, 4096, 4, 8, B16)),
    "1:16, bf16": Case(64, B16, lambda: nm(4096, 4096, 1, 16, B16)),
    "int8, bf16": Case(16, B16, lambda: codes(8)((4096, 4096))),
    "int8, f32": Case(256, F32, lambda: codes(8)((4096, 4096))),
    "int8 in groups of 128": Case(16, B16, lambda: codes(8, 32)((4096, 4096))),
    "int4, bf16": Case(16, B16, lambda: codes(4)((4096, 4096))),
    "int4 in groups of 32": Case(16, B16, lambda: codes(4, 128)((4096, 4096))),
    "int4, ragged": Case(10, B16, lambda: codes(4)((1000, 700))),
    "codebook of 16": Case(16, B16, lambda: codes(4, 1, 16)((4096, 4096))),
}


def matmul(x: Any, w: Any, bias: Any, g: Any) -> Any:
    """The product with its epilogue."""
    return pk.matmul(x, w, bias, jax.nn.gelu, implementation="mosaic_tpu", platform="tpu")


def transposed(x: Any, w: Any, bias: Any, g: Any) -> Any:
    """The gradient of the input."""
    return pk.matmul_transposed(g, w, implementation="mosaic_tpu", platform="tpu")


def outer(x: Any, w: Any, bias: Any, g: Any) -> Any:
    """The gradient of the weights."""
    return pk.outer(x, g, w, implementation="mosaic_tpu", platform="tpu")


OPERATIONS = {"matmul": matmul, "transposed": transposed, "outer": outer}


def compile_for(topology: str, case: Case, operation: str) -> tuple[str, float]:
    """Compiles one operation for one generation.

    Returns:
      "ok" or the first line of what the compiler said, and seconds.
    """
    device = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[0]
    here = jax.sharding.SingleDeviceSharding(device)
    arguments = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here), case.arguments())
    start = time.perf_counter()
    try:
        text = jax.jit(OPERATIONS[operation]).lower(*arguments).compile().as_text()
        answer = "ok" if "tpu_custom_call" in (text or "") else "no kernel in the program"
    except Exception as error:  # whatever a compiler raises is a row of the table
        answer = next(line for line in str(error).splitlines() if line.strip())
    return answer, time.perf_counter() - start


def use_compiler() -> None:
    """Prepares JAX to compile for TPUs that are not there; before anything else that uses a device."""
    if importlib.util.find_spec("libtpu") is None:
        raise app.UsageError("The TPU compiler, libtpu, is not installed here: run `make aot-tpu`.")
    # Without these the library looks for the machine it expects to run on.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)


def main(argv: list[str]) -> None:
    refuse_arguments(argv)
    use_compiler()
    names, failures = _GENERATIONS.value, []
    print(f"JAX {jax.__version__}: seconds to compile the product, the gradient of its input, and that of its weights")
    print(f"{'kernel':32s}" + "".join(f"{name:>20s}" for name in names))
    for title, case in CASES.items():
        if _ONLY.value not in title:
            continue
        cells = []
        for name in names:
            answers = {operation: compile_for(GENERATIONS[name], case, operation) for operation in case.operations()}
            failures += [f"{title}, {op}, {name}: {answer}" for op, (answer, _) in answers.items() if answer != "ok"]
            cells.append(" / ".join(f"{s:.1f}" if answer == "ok" else "failed" for answer, s in answers.values()))
        print(f"{title:32s}" + "".join(f"{cell:>20s}" for cell in cells), flush=True)
    print("\n".join(failures) or "All compile.")
    sys.exit(bool(failures))


if __name__ == "__main__":
    app.run(main)
