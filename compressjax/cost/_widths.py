"""Costs as functions of channel widths: the axis terms that `compressjax.channels` finds, put into `Layers`.

An axis of a traced program is a known combination of channel groups (``4*4*g1`` after a flattening), so that the layers
of every network that `shrink` can make follow from the widths of its groups, without tracing anything again.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from compressjax import channels
from compressjax.cost._check import Range, check
from compressjax.cost._layers import Layers, namespace
from compressjax.cost._sizes import conv_sizes, dot_sizes


def of_widths(net: channels.Net, layers: Layers) -> Callable[[Mapping[str, Any]], Layers]:
    """A pure function from group widths to layers.

    Args:
      net: From `compressjax.channels.trace`.
      layers: From `compressjax.cost.layers`, of the same function and inputs; bits and densities set on it stay.

    Returns:
      Widths (group name to a number, NumPy or JAX, traced or not; missing groups are whole) -> `Layers`.  The function
      raises ValueError for an unknown group, an array (a population is a `jax.vmap`), and for a number that is not
      traced and not within 0 and the group's size.

    Raises:
      ValueError: If `net` has no operation for one of the layers.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from compressjax import cost
    >>> f, x = lambda p, x: x @ p["a"] @ p["b"], jnp.ones((1, 4))
    >>> params = {"a": jnp.ones((4, 8)), "b": jnp.ones((8, 2))}
    >>> at = of_widths(channels.trace(f, params, x), cost.layers(f, params, x))
    >>> cost.macs(at({"g0": 5}))
    array([20., 10.])
    >>> jax.vmap(lambda width: cost.macs(at({"g0": width})).sum())(jnp.array([8.0, 5.0, 1.0]))
    Array([48., 30.,  6.], dtype=float32)
    """
    rest = iter(op for op in net.operations if op.primitive in ("dot_general", "conv_general_dilated"))
    matched = []
    for i, name in enumerate(layers.names):
        # Branches of a `cond` that were not counted are passed over.
        op = next((op for op in rest if _fits(op, layers, i)), None)
        if op is None:
            raise ValueError(
                f"The net has no operation of the size of layer {name!r}: trace the same function for both."
            )
        matched.append(op)
    known = {group.name: group.size for group in net.groups}
    sizes = [_sizes(op, layers.weight_operands[i], {}) for i, op in enumerate(matched)]
    changing = [field for field in sizes[0] if field not in ("window", "valid_taps")] if sizes else []

    def at(widths: Mapping[str, Any]) -> Layers:
        for name, width in widths.items():
            if name not in known:
                raise ValueError(f"widths names {name!r}, which is no group. Groups: {', '.join(sorted(known))}.")
            if np.shape(width):
                raise ValueError(
                    f"The width of group {name!r} has shape {np.shape(width)}: give one number, and use jax.vmap for a "
                    "population."
                )
            check(f"The width of group {name!r}", width, Range(high=known[name]))
        found = [_sizes(op, layers.weight_operands[i], widths) for i, op in enumerate(matched)]
        changes = {}
        for field in changing:
            entries = [row[field] for row in found]
            xp = namespace(*entries)
            changes[field] = xp.stack([xp.asarray(entry, dtype=xp.result_type(float)) for entry in entries])
        return layers.replace(**changes)

    return at


def _sizes(op: channels.Operation, weight: int, widths: Mapping[str, Any]) -> dict[str, Any]:
    lhs, rhs = ([term.at(widths) for term in terms] for terms in op.inputs)
    if op.primitive == "dot_general":
        return dot_sizes(op.params, (lhs, rhs), weight)
    (groups,) = op.roles["groups"] if op.roles else (None,)
    feature_groups = op.params["feature_group_count"] if groups is None else groups.at(widths)
    return conv_sizes(op.params, lhs, rhs, [term.at(widths) for term in op.outputs[0]], feature_groups)


def _fits(op: channels.Operation, layers: Layers, i: int) -> bool:
    if (op.primitive == "conv_general_dilated") != (layers.geometry[i] is not None):
        return False
    return all(
        value == np.asarray(getattr(layers, field))[i]
        for field, value in _sizes(op, layers.weight_operands[i], {}).items()
        if field != "valid_taps"
    )
