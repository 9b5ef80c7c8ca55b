"""Layers with correlated activations of unequal strength, as trained networks have them."""

import jax.numpy as jnp
import numpy as np

from compressjax import oneshot


def correlated(rows: int, inputs: int, seed: int = 0) -> np.ndarray:
    """Activations (rows, inputs): neighbours correlate by 0.8, scales differ by a factor of e or so."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(rows, inputs))
    x = np.empty_like(noise)
    x[:, 0] = noise[:, 0]
    for i in range(1, inputs):
        x[:, i] = 0.8 * x[:, i - 1] + 0.6 * noise[:, i]
    return (x * np.exp(0.7 * rng.normal(size=inputs))).astype(np.float32)


def layer(inputs: int, outputs: int, rows: int = 256, seed: int = 0) -> tuple:
    """Weights, statistics, activations."""
    x = correlated(rows, inputs, seed)
    w = np.random.default_rng(100 + seed).normal(size=(inputs, outputs)).astype(np.float32)
    return jnp.asarray(w), oneshot.add(oneshot.start(inputs), jnp.asarray(x)), x


def exact_error(found, w, x) -> float:
    """The relative output error in float64."""
    x = np.asarray(x, np.float64)
    wrong, whole = x @ (np.asarray(found, np.float64) - np.asarray(w, np.float64)), x @ np.asarray(w, np.float64)
    return float(np.sum(wrong**2) / np.sum(whole**2))
