"""Packed matrices of every format, and the one comparison of law 5."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import pallas_kernels as pk


def weights(k: int = 24, n: int = 20, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(k, n)).astype(np.float32)


def block_mask(k: int, n: int, block: tuple[int, int], density: float, seed: int = 0) -> np.ndarray:
    """A mask of whole blocks, cut to [k, n]."""
    tall, wide = -(-k // block[0]), -(-n // block[1])
    exists = np.random.default_rng(seed).random((tall, wide)) < density
    return np.kron(exists, np.ones(block, bool))[:k, :n]


def blocks(k: int = 24, n: int = 20, block: tuple[int, int] = (4, 4), density: float = 0.4, seed: int = 0) -> Any:
    """A random block-sparse matrix."""
    mask = block_mask(k, n, block, density, seed)
    return pk.BlockSparse.from_dense(weights(k, n, seed) * mask, block, mask)


def quantized_blocks(bits: int, **kwargs: Any) -> Any:
    w = blocks(**kwargs)
    return w.with_values(pk.Quantized.from_dense(np.asarray(w.values), bits))


def codebook() -> Any:
    codes = np.random.default_rng(1).integers(0, 5, (24, 20))
    scale = np.linspace(1, 2, 20, dtype=np.float32)[None]
    return pk.Quantized.from_codes(codes, scale, np.array([-1.0, -0.4, 0.0, 0.3, 1.0], np.float32), bits=4)


FORMATS: dict[str, Callable[[], Any]] = {
    "blocks": blocks,
    "ragged blocks": lambda: blocks(23, 19, (5, 3)),
    "single weights": lambda: blocks(block=(1, 1), density=0.2),
    "one column": lambda: blocks(block=(1, 4)),
    "all blocks": lambda: blocks(density=2.0),
    "no blocks": lambda: blocks(density=0.0),
    "2:4": lambda: pk.NM.from_dense(weights() * (np.arange(24)[:, None] % 4 < 2), 2, 4),
    "1:3": lambda: pk.NM.from_dense(weights() * (np.arange(24)[:, None] % 3 == 1), 1, 3),
    "channels": lambda: pk.Channels.from_dense(weights() * (np.arange(24)[:, None] % 3 > 0) * (np.arange(20) % 2)),
    "inputs": lambda: pk.Channels.from_dense(weights() * (np.arange(24)[:, None] % 3 > 0)),
    "int8": lambda: pk.Quantized.from_dense(weights()),
    "int4 in groups": lambda: pk.Quantized.from_dense(weights(), 4, 6),
    "codebook": codebook,
    "int8 blocks": lambda: quantized_blocks(8),
    "int4 blocks": lambda: quantized_blocks(4),
    "sliced": lambda: pk.Sliced.from_blocks(blocks(23, 19, (5, 3))),
    "dense": lambda: pk.Dense(jnp.asarray(weights())),
    "dense, outputs first": lambda: pk.Dense(jnp.asarray(weights().T), transposed=True),
}


def error(got: Any, want: Any) -> float:
    """Relative Frobenius error in float64."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    return float(np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-30))


def cast(w: Any, dtype: Any) -> Any:
    """The float leaves of a format in another dtype."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, np.floating) else leaf, w)
