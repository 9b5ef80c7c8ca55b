"""Batch normalization folded into the layer before it: one operation less, and the weights that integers need.

    (W x + b - mean) f + shift  =  (W f) x + (b - mean) f + shift,     f = scale / sqrt(var + epsilon)  per output

In evaluation mode a normalization is affine, so that the layer's kernel and bias can do its work.  Quantize afterwards:
f differs between channels by orders of magnitude, which is what one step per channel is for.

Source: Jacob et al., CVPR 2018 (arXiv 1712.05877), section 3.2.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from compressjax import trees


def fold_norm(
    layer: Mapping[str, Float[Array, "..."]], norm: Mapping[str, Float[Array, "outputs"]], epsilon: float = 1e-5
) -> dict[str, Float[Array, "..."]]:
    """One layer that computes what it and the batch normalization after it compute.

    Args:
      layer: ``kernel`` (..., outputs), and ``bias`` (outputs,) if it has one.
      norm: ``scale``, ``bias``, ``mean`` and ``var``, (outputs,) each.
      epsilon: Of the normalization, added to the variance.

    Returns:
      ``kernel`` and ``bias``, in the dtype of the kernel.

    Raises:
      ValueError: If a leaf is missing or has another number of outputs.

    >>> layer = {"kernel": jnp.array([[2.0]])}
    >>> norm = {"scale": jnp.ones(1), "bias": jnp.ones(1), "mean": jnp.full(1, 3.0), "var": jnp.full(1, 4.0)}
    >>> fold_norm(layer, norm, epsilon=0.0)
    {'kernel': Array([[1.]], dtype=float32), 'bias': Array([-0.5], dtype=float32)}
    """
    for owner, known, names in (("layer", layer, ("kernel",)), ("norm", norm, ("scale", "bias", "mean", "var"))):
        missing = [name for name in names if name not in known]
        if missing:
            raise ValueError(f"fold_norm: the {owner} has no {missing[0]!r}; it has {', '.join(known)}.")
    kernel = layer["kernel"]
    outputs = kernel.shape[-1]
    for name, leaf in norm.items():
        if leaf.shape != (outputs,):
            raise ValueError(f"fold_norm: {name} has shape {leaf.shape}, the layer {outputs} outputs: do they belong?")
    factor = norm["scale"] / jnp.sqrt(norm["var"] + epsilon)
    before = layer.get("bias", jnp.zeros_like(norm["mean"]))
    return {
        "kernel": (kernel * factor.reshape((1,) * (kernel.ndim - 1) + (-1,))).astype(kernel.dtype),
        "bias": ((before - norm["mean"]) * factor + norm["bias"]).astype(kernel.dtype),
    }


def fold_norms(params: Any, pairs: Mapping[str, str], epsilon: float = 1e-5) -> Any:
    """A network whose batch normalizations only shift: their factors are in the kernels before them.

    The structure stays, so that the same module runs it: kernels take the factor, and of the normalization remains what
    adds the folded bias.

    Args:
      params: Parameters of a network.
      pairs: Path of a layer to the path of the normalization after it, such as ``{"conv0": "norm0"}``.
      epsilon: Of the normalizations.

    Returns:
      Parameters of the same structure, for the same module in evaluation mode.

    Raises:
      ValueError: If a path is no layer or no normalization, they do not fit together, or two layers name one
        normalization, of which a single bias would remain.

    >>> norm = {"scale": jnp.ones(1), "bias": jnp.ones(1), "mean": jnp.full(1, 3.0), "var": jnp.full(1, 4.0)}
    >>> folded = fold_norms({"conv": {"kernel": jnp.array([[2.0]])}, "norm": norm}, {"conv": "norm"}, epsilon=0.0)
    >>> folded["conv"]["kernel"], folded["norm"]["bias"]
    (Array([[1.]], dtype=float32), Array([-0.5], dtype=float32))
    """
    known = trees.leaves(params)
    changes: dict[str, Array] = {}
    for layer, norm in pairs.items():
        if f"{norm}/bias" in changes:
            raise ValueError(f"{layer} and {norm}: another layer is folded with this normalization already.")
        try:
            folded = fold_norm(_below(known, layer), _below(known, norm), epsilon)
        except ValueError as error:
            raise ValueError(f"{layer} and {norm}: {error}") from error
        changes[f"{layer}/kernel"] = folded["kernel"]
        if f"{layer}/bias" in known:
            changes[f"{layer}/bias"] = jnp.zeros_like(known[f"{layer}/bias"])
        changes[f"{norm}/bias"] = folded["bias"]
        changes[f"{norm}/mean"] = jnp.zeros_like(known[f"{norm}/mean"])
        # One over the root of 1 + epsilon is what the module will multiply with.
        changes[f"{norm}/var"] = jnp.ones_like(known[f"{norm}/var"])
        changes[f"{norm}/scale"] = jnp.full_like(known[f"{norm}/scale"], (1.0 + epsilon) ** 0.5)
    return trees.update(params, changes)


def _below(known: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The leaves right below a path, by name."""
    own = {name.removeprefix(f"{path}/"): leaf for name, leaf in known.items() if name.startswith(f"{path}/")}
    return {name: leaf for name, leaf in own.items() if "/" not in name}
