"""TPU kernels, interpreted on the CPU: law 5 for the product and both gradients, and what is refused."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

import pallas_kernels as pk
from pallas_kernels import mosaic_tpu
from pallas_kernels._interface import Epilogue, on_pattern
from tests.pallas_kernels import cases

F32, BF16 = jnp.float32, jnp.bfloat16
TOLERANCE = {F32: 1e-6, BF16: 1e-2}

FORMATS: dict[str, Callable[[], Any]] = {
    "blocks": lambda: cases.blocks(24, 40, (8, 8)),
    "ragged blocks": lambda: cases.blocks(23, 37, (8, 16)),
    "odd blocks": cases.FORMATS["ragged blocks"],
    "no blocks": lambda: cases.blocks(16, 24, (8, 8), 0.0),
    "int8 blocks": lambda: cases.quantized_blocks(8, k=24, n=40, block=(8, 8)),
    "int4 blocks": lambda: cases.quantized_blocks(4, k=23, n=20, block=(16, 8)),
    "2:4": cases.FORMATS["2:4"],
    "1:3": cases.FORMATS["1:3"],
    "int8": cases.FORMATS["int8"],
    "int4 in groups": cases.FORMATS["int4 in groups"],
    "codebook": cases.FORMATS["codebook"],
}
# Compiling an interpreted kernel takes a second: each format has one dtype in every run, and both among the slow tests.
HALF = ("blocks", "odd blocks", "int4 blocks", "2:4")
LAW = [
    pytest.param(name, dtype, id=f"{name}, {jnp.dtype(dtype)}", marks=[pytest.mark.slow] * slow)
    for name in FORMATS
    for dtype, slow in ((F32, name in HALF), (BF16, name not in HALF))
]


def operands(w: Any, rows: int, dtype: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Activations, cotangents and a bias."""
    rng = np.random.default_rng(1)
    x, g = (jnp.asarray(rng.normal(size=(rows, size)), dtype) for size in w.shape)
    return x, g, jnp.asarray(rng.normal(size=w.shape[1]), dtype)


def float64(*arrays: Any) -> list[np.ndarray]:
    return [np.asarray(array.astype(F32)).astype(np.float64) for array in arrays]


def floats(tree: Any) -> list[Any]:
    """The cotangents of float leaves."""
    return [leaf for leaf in jax.tree.leaves(tree) if leaf.dtype != jax.dtypes.float0]


@pytest.mark.parametrize("name, dtype", LAW)
def test_product_and_gradients_are_those_of_float64(name: str, dtype: Any) -> None:
    w = cases.cast(FORMATS[name](), dtype)
    x, g, bias = operands(w, 11, dtype)

    @jax.jit
    def run(x: Any, w: Any, bias: Any, g: Any) -> tuple[Any, Any, Any]:
        y, pull = jax.vjp(lambda *a: pk.matmul(*a, implementation="mosaic_tpu", interpret=True), x, w, bias)
        dx, dw, _ = pull(g)
        return y, dx, floats(dw)

    y, dx, dw = run(x, w, bias, g)
    dense, x64, g64, bias64 = float64(w.todense(), x, g, bias)
    assert (y.dtype, dx.dtype) == (dtype, dtype)
    assert cases.error(y, x64 @ dense + bias64) < TOLERANCE[dtype]
    assert cases.error(dx, g64 @ dense.T) < TOLERANCE[dtype]
    # The gradient of the values, pulled back to scales and codebooks if there are any.
    dvalues = on_pattern(jnp.asarray(x64.T @ g64, F32), w.dequantize()).astype(dtype)
    if isinstance(w, pk.BlockSparse):
        dvalues = jnp.where(w.live[:, None, None], dvalues, 0)
    _, pull = jax.vjp(lambda w: w.dequantize().values, w)
    for got, want in zip(dw, floats(pull(dvalues)), strict=True):
        assert cases.error(got, want) < TOLERANCE[dtype]


@pytest.mark.parametrize("name", ["ragged blocks", "int4 in groups"])
def test_epilogue_is_applied_to_float32_sums(name: str) -> None:
    w = FORMATS[name]()
    x, _, bias = operands(w, 3, BF16)
    y = jax.jit(lambda x, w, b: mosaic_tpu.matmul(x, w, b, Epilogue(jnp.tanh, F32), interpret=True))(x, w, bias)
    dense, x64, bias64 = float64(w.todense(), x, bias)
    assert y.dtype == F32
    assert cases.error(y, np.tanh(x64 @ dense + bias64)) < TOLERANCE[BF16]


def test_unquantized_weights_are_not_rounded_to_the_activations() -> None:
    w = cases.blocks(16, 8, (8, 8), 2.0)
    x, _, _ = operands(w, 3, BF16)
    y = jax.jit(lambda x, w: mosaic_tpu.matmul(x, w, None, Epilogue(None, F32), interpret=True))(x, w)
    dense, x64 = float64(w.todense(), x)
    assert cases.error(y, x64 @ dense) < TOLERANCE[F32]


def test_blocks_that_only_fill_the_list_add_nothing() -> None:
    mask = cases.block_mask(16, 24, (8, 8), 0.5)
    dense = cases.weights(16, 24) * mask
    w = pk.BlockSparse.from_dense(dense, (8, 8), mask, length=9)
    assert w.rows.shape[0] == 9 > mask.sum() / 64
    x, g, _ = operands(w, 5, F32)
    y = jax.jit(lambda x, w: mosaic_tpu.matmul(x, w, None, Epilogue(None, F32), interpret=True))(x, w)
    dx = jax.jit(lambda g, w: mosaic_tpu.transposed(g, w, F32, interpret=True))(g, w)
    x64, g64 = float64(x, g)
    assert cases.error(y, x64 @ dense.astype(np.float64)) < TOLERANCE[F32]
    assert cases.error(dx, g64 @ dense.T.astype(np.float64)) < TOLERANCE[F32]


def test_no_rows_give_no_rows() -> None:
    w = cases.blocks(16, 8, (8, 8))
    x, g = jnp.zeros((0, 16)), jnp.zeros((0, 8))
    assert mosaic_tpu.matmul(x, w, None, Epilogue(None, F32), interpret=True).shape == (0, 8)
    assert not np.asarray(mosaic_tpu.outer(x, g, w, interpret=True)).any()


SIMULATED = [
    "ragged blocks",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("int8 blocks", "2:4", "codebook")),
]


@pytest.mark.parametrize("name", SIMULATED)
def test_simulated_memories_and_transfers_give_the_same(name: str) -> None:
    w = FORMATS[name]()
    x, g, bias = operands(w, 11, F32)
    simulated = pltpu.InterpretParams(uninitialized_memory="nan")
    y = jax.jit(lambda x, w, b: mosaic_tpu.matmul(x, w, b, Epilogue(None, F32), interpret=simulated))(x, w, bias)
    dx = jax.jit(lambda g, w: mosaic_tpu.transposed(g, w, F32, interpret=simulated))(g, w)
    dense, x64, g64, bias64 = float64(w.todense(), x, g, bias)
    assert cases.error(y, x64 @ dense + bias64) < TOLERANCE[F32]
    assert cases.error(dx, g64 @ dense.T) < TOLERANCE[F32]
    if name == "ragged blocks":
        dw = jax.jit(lambda x, g, w: mosaic_tpu.outer(x, g, w, interpret=simulated))(x, g, w)
        assert cases.error(dw, w.gather(jnp.asarray(x64.T @ g64, F32))) < TOLERANCE[F32]


def shapes(w: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), w)


def block_list(count: int, block: tuple[int, int], outputs: int = 1) -> Any:
    """A pattern with as many blocks, all of them shapes."""
    rows = np.arange(count, dtype=np.int32)
    values = jax.ShapeDtypeStruct((count, *block), F32)
    return pk.BlockSparse.from_blocks(values, rows, np.zeros(count, np.int32), (count * block[0], block[1]))


def codes(k: int, group: int, levels: int | None = None) -> Any:
    rng = np.random.default_rng(0)
    scale = np.ones((k // group, 128), np.float32)
    if levels is None:
        return pk.Quantized.from_codes(rng.integers(-7, 8, (k, 128)), scale, bits=8)
    return pk.Quantized.from_codes(rng.integers(0, levels, (k, 128)), scale, np.arange(float(levels)), bits=8)


REFUSED: dict[str, tuple[str, Callable[[], Any], Any, str]] = {
    "small blocks": ("matmul", lambda: cases.blocks(24, 40, (8, 8)), F32, "multiples of 128 both ways"),
    "many blocks": ("matmul", lambda: block_list(80_001, (128, 128)), F32, "split the outputs into several matrices"),
    "large blocks": ("matmul", lambda: block_list(1, (2048, 2048)), F32, "exceed vector memory"),
    "large blocks, outer": ("outer", lambda: block_list(1, (2048, 2048)), F32, "exceed vector memory"),
    "half precision": ("matmul", lambda: cases.blocks(128, 128, (128, 128)), jnp.float16, "activations are float16"),
    "half weights": (
        "matmul",
        lambda: cases.cast(cases.blocks(128, 128, (128, 128)), jnp.float16),
        F32,
        "weights are float16",
    ),
    "dense": ("matmul", lambda: pk.Dense(np.ones((8, 8), np.float32)), F32, "need no kernel"),
    "channels": ("matmul", cases.FORMATS["channels"], F32, "smaller dense product"),
    "N:M, outer": ("outer", cases.FORMATS["2:4"], F32, "is a dense product"),
    "long groups": ("matmul", lambda: pk.NM.from_dense(np.eye(100, dtype=np.float32), 1, 100), F32, "vector memory"),
    "odd groups": ("matmul", lambda: codes(1000, 100), F32, "pieces of 4 rows"),
    "long codebook": ("matmul", lambda: codes(128, 128, 200), F32, "at most 16 of them: this one has 200"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_kernel_is_refused_with_a_clause(name: str) -> None:
    operation, make, dtype, clause = REFUSED[name]
    w = make()
    x = jax.ShapeDtypeStruct((4, w.shape[0]), dtype)
    why = pk.refusal("mosaic_tpu", operation, x, w, "tpu")
    assert why is not None
    assert clause in why


def test_a_refused_product_raises_before_anything_is_compiled() -> None:
    with pytest.raises(ValueError, match=r"cannot compute matmul of \(2, 24\) by \(24, 20\): blocks of \(4, 4\)"):
        pk.matmul(jnp.ones((2, 24)), cases.blocks(), implementation="mosaic_tpu", platform="tpu")
    with pytest.raises(ValueError, match="it runs on tpu, and this program is for cpu"):
        pk.matmul(jnp.ones((2, 24)), cases.blocks(), implementation="mosaic_tpu")
