"""Networks with random weights, as plain functions: what `experiments.bench_kernels` times from end to end."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import pallas_kernels as pk
from compressjax import runtime


@dataclass(frozen=True)
class Conv:
    """A convolution with bias and ReLU, "SAME"."""

    outputs: int
    window: int = 3
    stride: int = 1


@dataclass(frozen=True)
class Pool:
    """Max pooling, "VALID"."""

    window: int = 2
    stride: int = 2


@dataclass(frozen=True)
class Linear:
    """A fully connected layer with bias; ReLU but for the last."""

    outputs: int


Layer = Conv | Pool | Linear


@dataclass(frozen=True)
class Network:
    """Layers one after the other, on images of a shape."""

    image: tuple[int, int, int]
    layers: tuple[Layer, ...]

    def init(self, seed: int = 0) -> dict[str, Any]:
        """Random parameters: "layer<i>/kernel" and "/bias"."""
        random = np.random.default_rng(seed)
        params = {}
        for i, (layer, shape) in enumerate(zip(self.layers, self.shapes(1), strict=True)):
            if isinstance(layer, Pool):
                continue
            inputs: int = shape[-1] if isinstance(layer, Conv) else math.prod(shape[1:])
            window: tuple[int, ...] = (layer.window, layer.window) if isinstance(layer, Conv) else ()
            spread = math.sqrt(2 / (inputs * math.prod(window)))
            kernel = spread * random.normal(size=(*window, inputs, layer.outputs))
            params[f"layer{i}"] = {
                "kernel": jnp.asarray(kernel, jnp.float32),
                "bias": jnp.zeros(layer.outputs),
            }
        return params

    def shapes(self, batch: int) -> list[tuple[int, ...]]:
        """Shape of what enters every layer."""
        out: list[tuple[int, ...]] = []
        now: tuple[int, ...] = (batch, *self.image)
        for layer in self.layers:
            out.append(now)
            if isinstance(layer, Linear):
                now = (batch, layer.outputs)
                continue
            height, width = now[1:3]
            if isinstance(layer, Conv):
                now = (batch, -(-height // layer.stride), -(-width // layer.stride), layer.outputs)
            else:
                sides = ((side - layer.window) // layer.stride + 1 for side in (height, width))
                now = (batch, *sides, now[3])
        return out

    def rows(self, batch: int) -> dict[str, int]:
        """Rows of the product of every layer, by path of its kernel."""
        entering = [*self.shapes(batch), (batch, 0)]
        return {
            f"layer{i}/kernel": math.prod(entering[i + 1][:-1])
            for i, layer in enumerate(self.layers)
            if not isinstance(layer, Pool)
        }

    def apply(self, params: dict[str, Any], x: jax.Array, *, unfold: bool = False) -> jax.Array:
        """Logits; the parameters may be dense or packed.  `unfold` makes dense convolutions products of patches."""
        for i, layer in enumerate(self.layers):
            if isinstance(layer, Pool):
                window, strides = (1, layer.window, layer.window, 1), (1, layer.stride, layer.stride, 1)
                x = lax.reduce_window(x, -jnp.inf, lax.max, window, strides, "VALID")
                continue
            kernel, bias = params[f"layer{i}"]["kernel"], params[f"layer{i}"]["bias"]
            if isinstance(layer, Conv) and unfold:
                patches = pk.patches(x, (layer.window, layer.window), (layer.stride, layer.stride))
                x = runtime.linear(patches, kernel.reshape(-1, layer.outputs), bias, jax.nn.relu)
            elif isinstance(layer, Conv):
                x = runtime.conv(x, kernel, bias, jax.nn.relu, strides=layer.stride)
            else:
                last = i + 1 == len(self.layers)
                x = runtime.linear(x.reshape(len(x), -1), kernel, bias, None if last else jax.nn.relu)
        return x


def _vgg(widths: Sequence[int], outputs: Sequence[int]) -> tuple[Layer, ...]:
    return (*(Conv(width) if width else Pool() for width in widths), *(Linear(size) for size in outputs))


_POOLED = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
NETWORKS = {
    "VGG-16, 32x32": Network((32, 32, 3), _vgg(_POOLED, (512, 10))),
    "AlexNet, 224x224": Network(
        (224, 224, 3),
        (
            Conv(96, 11, 4), Pool(3), Conv(256, 5), Pool(3), Conv(384), Conv(384), Conv(256), Pool(3),
            Linear(4096), Linear(4096), Linear(1000),
        ),
    ),
}  # fmt: skip
SMALL = {"tiny": Network((8, 8, 3), (Conv(16), Pool(), Conv(32), Linear(10)))}


def prune(params: dict[str, Any], block: tuple[int, int], density: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keeps the blocks of largest norm in every kernel; the first and the last layer stay dense.

    Returns:
      The pruned parameters, and rules for `runtime.pack`.
    """
    names = list(params)[1:-1]
    pruned = {name: dict(leaves) for name, leaves in params.items()}
    for name in names:
        kernel = np.asarray(params[name]["kernel"])
        matrix = kernel.reshape(-1, kernel.shape[-1])
        tall, wide = -(-matrix.shape[0] // block[0]), -(-matrix.shape[1] // block[1])
        padded = np.zeros((tall * block[0], wide * block[1]), np.float32)
        padded[: matrix.shape[0], : matrix.shape[1]] = matrix
        energy = (padded.reshape(tall, block[0], wide, block[1]) ** 2).sum((1, 3))
        kept = energy > np.quantile(energy, 1 - density)
        mask = np.kron(kept, np.ones(block, bool))[: matrix.shape[0], : matrix.shape[1]]
        pruned[name]["kernel"] = jnp.asarray((matrix * mask).reshape(kernel.shape))
    return pruned, {f"{name}/kernel": runtime.As(block=block) for name in names}
