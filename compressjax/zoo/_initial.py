"""Initial parameters by leaf name, from one draw of normal numbers for the whole network.

Kernels have standard deviation sqrt(gain / fan_in), with gain 2 for convolutions, which a ReLU follows, and 1
elsewhere; embeddings 0.02; scales and variances are 1, everything else is 0.  One draw, because XLA:CPU takes seconds
to compile each of them: module by module, ResNet-20 took a minute of processor time.

Reference: K. He, X. Zhang, S. Ren, J. Sun, "Delving deep into rectifiers", ICCV 2015 (arXiv 1502.01852).
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from compressjax import trees

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
_CONSTANT = {"scale": 1.0, "var": 1.0, "bias": 0.0, "mean": 0.0}
_EMBEDDING = ("embedding", "positions")
_HEADS = ("query", "key", "value")  # (in, heads..., width): only the first axis is summed over


def deviation(path: str, shape: tuple[int, ...]) -> float | None:
    """Standard deviation of a leaf at the start, or None if it starts constant.

    >>> deviation("conv1/kernel", (3, 3, 16, 32)) == (2 / 144) ** 0.5, deviation("norm/scale", (16,))
    (True, None)
    """
    *layers, leaf = path.split("/")
    if leaf in _CONSTANT:
        return None
    if leaf in _EMBEDDING:
        return 0.02
    fan_in = shape[0] if layers[-1] in _HEADS else math.prod(shape[:-1])
    convolution = len(shape) == 4 and layers[-1] not in (*_HEADS, "out")
    return math.sqrt((2.0 if convolution else 1.0) / fan_in)


def example(input_shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    """One image, or one sequence of tokens."""
    return jax.ShapeDtypeStruct((1, *input_shape), jnp.float32 if len(input_shape) == 3 else jnp.int32)


@functools.lru_cache(maxsize=64)
def shapes(module: nn.Module, input_shape: tuple[int, ...]) -> Any:
    """The module's parameters as `jax.ShapeDtypeStruct`; nothing is computed."""
    init = functools.partial(module.init, mutable=["params"])
    return jax.eval_shape(init, jax.random.key(0), example(input_shape))["params"]


@functools.partial(jax.jit, static_argnums=0)
def draw(leaves: Shapes, key: PRNGKeyArray) -> dict[str, Any]:
    """The leaves as a leaf dictionary."""
    spread = {path: deviation(path, shape) for path, shape in leaves}
    total = sum(math.prod(shape) for path, shape in leaves if spread[path] is not None)
    normal = jax.random.normal(key, (total,))
    out, at = {}, 0
    for path, shape in leaves:
        if (std := spread[path]) is None:
            out[path] = jnp.full(shape, _CONSTANT[path.rsplit("/", 1)[-1]], jnp.float32)
        else:
            size = math.prod(shape)
            out[path] = std * jax.lax.slice(normal, (at,), (at + size,)).reshape(shape)
            at += size
    return out


def initial(module: nn.Module, input_shape: tuple[int, ...], key: PRNGKeyArray) -> dict[str, Any]:
    """Fresh parameters of a module, a plain nested dictionary."""
    tree = shapes(module, input_shape)
    return trees.update(tree, draw(tuple(trees.shapes(tree).items()), key))
