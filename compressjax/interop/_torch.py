"""Weights in PyTorch's names and layout to a nested dictionary in Flax's.

PyTorch stores a convolution as (out, in, kh, kw) and a linear layer as (out, in); Flax as (kh, kw, in, out) and
(in, out).  PyTorch flattens features as (channel, height, width), Flax models as (height, width, channel), so the first
linear layer after a convolution needs its inputs reordered as well.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from compressjax import trees

# Axes of `weight` by its number of axes.  Transposed convolutions, (in, out, kh, kw), need a rule of their own.
_AXES = {2: (1, 0), 3: (2, 1, 0), 4: (2, 3, 1, 0), 5: (2, 3, 4, 1, 0)}
_RENAMED = {"running_mean": "mean", "running_var": "var"}


def _flax_path(name: str, ndim: int) -> str:
    *parents, last = name.split(".")
    if last == "weight":
        last = "kernel" if ndim > 1 else "scale"
    return "/".join([*parents, _RENAMED.get(last, last)])


def from_torch(
    weights: Mapping[str, ArrayLike],
    *,
    axes: "trees.Rules[tuple[int, ...] | None] | None" = None,
    flattened: Mapping[str, tuple[int, int, int]] | None = None,
) -> dict[str, Any]:
    """Converts a PyTorch state dictionary.

    Names become paths (``layer1.0.conv1.weight`` to ``layer1/0/conv1/kernel``; a one-dimensional ``weight`` is a
    ``scale``; running statistics become ``mean`` and ``var``; ``num_batches_tracked`` is dropped), and kernels change
    layout by their number of axes unless a rule in `axes` says otherwise.

    Args:
      weights: Name to array, as in ``state_dict()`` or an ``.npz`` file; anything `numpy.asarray` reads.
      axes: Rules from *resulting path* to the order of axes for `numpy.transpose`; None keeps the layout as it is.
      flattened: Resulting path of each linear layer's kernel that reads flattened features, with their shape (channels,
        height, width) in PyTorch.

    Returns:
      Nested dictionary of JAX arrays.  Running statistics lie beside the scale and bias of their layer.

    Raises:
      ValueError: If a rule has no effect or does not fit its array, or two names meet in one path.

    >>> params = from_torch({"fc.weight": np.zeros((3, 2)), "conv.weight": np.zeros((8, 1, 5, 5))})
    >>> params["fc"]["kernel"].shape, params["conv"]["kernel"].shape
    ((2, 3), (5, 5, 1, 8))
    """
    flat: dict[str, np.ndarray] = {}
    for name, weight in weights.items():
        if name.rsplit(".", 1)[-1] == "num_batches_tracked":
            continue
        value = np.asarray(weight)
        path = _flax_path(name, value.ndim)
        if path in flat or any(path.startswith(f"{other}/") or other.startswith(f"{path}/") for other in flat):
            raise ValueError(f"{name!r} becomes the path {path!r}, which another weight takes or passes: rename one.")
        flat[path] = value

    # A rule of None must still win over the default, so that exempt leaves are told apart from unmentioned ones.
    wrapped = {pattern: (order,) for pattern, order in (axes or {}).items()}
    orders = {path: order for path, (order,) in trees.assign(wrapped, flat).items()}
    flattened = flattened or {}
    for path in flattened:
        if path not in flat:
            raise ValueError(f"flattened names {path!r}, but no weight has this path: {', '.join(flat)}.")

    out: dict[str, Any] = {}
    for path, value in flat.items():
        if path in flattened:
            shape = flattened[path]
            if value.ndim != 2 or value.shape[1] != np.prod(shape):
                raise ValueError(f"{path} has shape {value.shape} in PyTorch, which does not read features {shape}.")
            value = value.reshape(-1, *shape).transpose(0, 2, 3, 1).reshape(value.shape)
        order = orders[path] if path in orders else _AXES.get(value.ndim) if path.endswith("kernel") else None
        if order is not None:
            if sorted(order) != list(range(value.ndim)):
                raise ValueError(f"The axes {order} are no order of the {value.ndim} axes of {path} {value.shape}.")
            value = value.transpose(order)
        *parents, last = path.split("/")
        node = out
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = jnp.asarray(value)
    return out
