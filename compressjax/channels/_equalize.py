r"""Rescaling hidden units without changing the function, and choosing the scales that quantization likes best.

In a chain with ReLU (or any activation with f(s x) = s f(x) for s > 0) and max or average pooling, unit c of layer l
may be scaled by s_c > 0 if every weight that reads it is divided by s_c.  The function stays; the weights, and so what
a level set does to them, change.  `equalize` minimises the relative error of quantization over all such scalings::

    min_s  sum_l  1/||W_l||^2  sum_ij  (e_ij / r_ij)^2,   e = r W - Q(r W),   r_ij = s_{l,j} / s_{l-1,i}

The error is measured in the original scale, where it acts.  It needs no data and costs nothing in the file: the levels
stay one set per layer, but act as if every unit had its own.

Source: Nagel, van Baalen, Blankevoort, Welling, "Data-Free Quantization Through Weight Equalization and Bias
Correction", ICCV 2019 (arXiv 1906.04721), which matches the ranges of neighbouring layers in closed form; here the
quantization error itself is minimised, by gradient descent on log s with the levels fitted anew in every step.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from compressjax import trees
from compressjax.channels._chain import _kernels
from compressjax.quantizers import Quantizer

Tree = Any
Factors = Mapping[str, Float[Array, " units"]]


def rescale(params: Tree, chain: Sequence[str], factors: Factors) -> Tree:
    """Multiplies hidden units by positive factors and divides what reads them by the same.

    The function is the same (to rounding) for activations with f(s x) = s f(x), s > 0, and pooling within channels.

    Args:
      params: Parameter tree with leaves ``layer/kernel``; biases may be missing.
      chain: Layer names in order, output layer last.
      factors: Per hidden layer one positive factor per unit; a layer without entry keeps its scale.

    Returns:
      Parameters of the same shapes and dtypes.

    Raises:
      ValueError: If a factor does not belong to a hidden unit or is not positive, or the layers do not fit together.

    >>> params = {"a": {"kernel": jnp.ones((1, 2)), "bias": jnp.ones(2)}, "b": {"kernel": jnp.ones((2, 1))}}
    >>> scaled = rescale(params, ("a", "b"), {"a": jnp.array([2.0, 4.0])})
    >>> scaled["a"]["kernel"].tolist(), scaled["a"]["bias"].tolist(), scaled["b"]["kernel"].tolist()
    ([[2.0, 4.0]], [2.0, 4.0], [[0.5], [0.25]])
    """
    kernels = _kernels(params, chain)
    for layer, factor in factors.items():
        if layer not in chain[:-1]:
            raise ValueError(f"factors names {layer!r}, which is no hidden layer of the chain {tuple(chain)}.")
        if np.shape(factor) != kernels[layer].shape[-1:]:
            raise ValueError(f"factors[{layer!r}] has shape {np.shape(factor)}, not {kernels[layer].shape[-1:]}.")
        if not (np.asarray(factor) > 0).all() or not np.isfinite(factor).all():
            raise ValueError(f"factors[{layer!r}] must be positive and finite.")
    leaves = trees.leaves(params)
    ratio = _ratios({layer: kernel.shape for layer, kernel in kernels.items()}, chain, factors)
    changed = {f"{layer}/kernel": jnp.asarray(leaves[f"{layer}/kernel"]) * ratio[layer] for layer in chain}
    for layer, factor in factors.items():
        if f"{layer}/bias" in leaves:
            changed[f"{layer}/bias"] = jnp.asarray(leaves[f"{layer}/bias"]) * jnp.asarray(factor)
    return trees.update(params, {path: value.astype(leaves[path].dtype) for path, value in changed.items()})


def equalize(
    params: Tree,
    chain: Sequence[str],
    rules: trees.Rules[Quantizer | None],
    *,
    steps: int = 150,
    learning_rate: float = 0.04,
) -> Tree:
    """Rescales hidden units so that the level sets fit the weights best; the function stays the same.

    Args:
      params: Parameter tree with leaves ``layer/kernel``.  Zeros stay zeros.
      chain: Layer names in order, output layer last.
      rules: Glob to quantizer; kernels of the chain without one are rescaled but do not count.
      steps: Gradient steps (Adam, cosine) on the logarithms of the scales; they start from the given scales.
      learning_rate: Of the first step.

    Returns:
      Parameters of the same shapes; never worse by the objective than the given ones.

    Raises:
      ValueError: If a rule has no effect or names a leaf that is no kernel of the chain, or the layers do not fit
        together.

    >>> from compressjax.quantizers import Binary
    >>> params = {"a": {"kernel": jnp.array([[1.0, 4.0]])}, "b": {"kernel": jnp.array([[6.0], [1.5]])}}
    >>> equal = equalize(params, ("a", "b"), {"*": Binary()})  # a can become +-2, b +-3: no error is left
    >>> bool(jnp.ptp(equal["a"]["kernel"]) < 0.01), bool(jnp.ptp(equal["b"]["kernel"]) < 0.01)
    (True, True)
    """
    kernels = {layer: jnp.asarray(kernel, jnp.float32) for layer, kernel in _kernels(params, chain).items()}
    shapes = {layer: kernel.shape for layer, kernel in kernels.items()}
    sets: dict[str, Quantizer] = {}
    for path, quantizer in trees.assign(rules, params).items():
        layer = path.removesuffix("/kernel")
        if layer not in kernels or layer == path:
            raise ValueError(f"equalize: a rule names {path!r}, which is no kernel of the chain {tuple(chain)}.")
        sets[layer] = quantizer
    size = {layer: jnp.maximum(jnp.sum(jnp.square(kernels[layer])), jnp.finfo(jnp.float32).tiny) for layer in sets}

    def error(logs: dict[str, Array]) -> Array:
        ratio = _ratios(shapes, chain, {layer: jnp.exp(value) for layer, value in logs.items()})
        total = jnp.zeros(())
        for layer, quantizer in sets.items():
            scaled = kernels[layer] * ratio[layer]
            # By the envelope theorem the best levels and codes may be taken as constants of the gradient.
            nearest = jax.lax.stop_gradient(quantizer.project(scaled))
            total += jnp.sum(jnp.square((scaled - nearest) / ratio[layer])) / size[layer]
        return total

    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, max(steps, 1)))

    @jax.jit
    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        logs, inner, best, least = state
        value, gradient = jax.value_and_grad(error)(logs)
        best = jax.tree.map(lambda new, old: jnp.where(value < least, new, old), logs, best)
        updates, inner = optimizer.update(gradient, inner, logs)
        return optax.apply_updates(logs, updates), inner, best, jnp.minimum(value, least)

    logs = {layer: jnp.zeros(kernels[layer].shape[-1]) for layer in chain[:-1]}
    state: tuple[Any, ...] = (logs, optimizer.init(logs), logs, jnp.asarray(jnp.inf, jnp.float32))
    for _ in range(steps):
        state = step(state)
    return rescale(params, chain, {layer: jnp.exp(value) for layer, value in state[2].items()})


def _ratios(
    shapes: Mapping[str, tuple[int, ...]], chain: Sequence[str], factors: Factors
) -> dict[str, Float[Array, "..."]]:
    """Per layer what its kernel is multiplied by: the factor of the unit written over that of the unit read."""
    out: dict[str, Any] = {layer: jnp.ones((1,) * len(shapes[layer])) for layer in chain}
    for layer, reader in itertools.pairwise(chain):
        if layer in factors:
            factor = jnp.asarray(factors[layer])
            out[layer] = out[layer] * _along(factor, -1, len(shapes[layer]))
            # After a flattening with channels last, row r reads unit r modulo the units.
            rows = jnp.tile(factor, shapes[reader][-2] // factor.size)
            out[reader] = out[reader] / _along(rows, -2, len(shapes[reader]))
    return out


def _along(vector: Float[Array, " n"], axis: int, rank: int) -> Float[Array, "..."]:
    """The vector as an array of `rank` axes that varies along one of them."""
    shape = [1] * rank
    shape[axis] = -1
    return vector.reshape(shape)
