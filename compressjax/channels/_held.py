"""What arrays hold at masked channels, and the primitives that only hand it on."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jax import dtypes
from jax.lax import GatherScatterMode

from compressjax.channels._dims import Dim
from compressjax.channels._fold import Number, agreed
from compressjax.channels._program import Step
from compressjax.channels._rules_shape import gather_axes


@dataclass(frozen=True)
class Held:
    """What a value holds.

    Attributes:
      all: The number that fills it, if it is one.
      axes: Per axis: group to the number held at the positions of its masked members.
    """

    all: Number
    axes: tuple[dict[Dim, Number], ...]

    def at(self, axis: int | None, atom: Dim) -> Number:
        """The number at masked members along one axis; None stands for an axis it does not have."""
        return self.all if axis is None else self.axes[axis].get(atom, self.all)


def zero(number: Number) -> Number:
    """What survives a sum: 0."""
    return 0.0 if number is not None and number == 0 else None


def _straight(step: Step) -> dict[int, int]:
    return {i: i for i in range(len(step.ins[0].shape))}


def _without(step: Step) -> dict[int, int]:
    """Places after some axes are dropped."""
    p = step.params
    gone = {i % len(step.ins[0].shape) for i in p.get("axes", p.get("dimensions", (p.get("axis"),)))}
    return dict(enumerate(i for i in range(len(step.ins[0].shape)) if i not in gone))


def _broadcast(step: Step) -> dict[int, int]:
    """Where the operand has the axis in full."""
    shape, where = step.outs[0].shape, step.params["broadcast_dimensions"]
    return {j: i for i, j in enumerate(where) if step.ins[0].shape[i] == shape[j]}


# Result axis to operand axis, for steps that hand on one operand's numbers; axes left out hold what fills the operand.
SOURCES: dict[str, Callable[[Step], dict[int, int]]] = {
    **dict.fromkeys(
        ("slice", "split", "dynamic_slice", "tile", "top_k", "rev", "sort", "bitcast_convert_type"), _straight
    ),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin"), _straight),
    **{f"reduce_window_{name}": _straight for name in ("sum", "max", "min")},
    **{f"reduce_{name}": _without for name in ("max", "min", "prod", "and", "or")},
    "squeeze": _without,
    "unstack": _without,
    "broadcast_in_dim": _broadcast,
    "transpose": lambda step: dict(enumerate(step.params["permutation"])),
    "gather": lambda step: {j: i for i, j in gather_axes(step).items()},
}


def _filled(step: Step, number: Number) -> Number:
    """A lookup out of bounds gives the fill value; nan, the default, is nan for all channels, masked or not."""
    fill = step.params["fill_value"]
    if step.params["mode"] != GatherScatterMode.FILL_OR_DROP:
        return number
    if fill is None or fill != fill:
        return number if dtypes.issubdtype(step.outs[0].dtype, np.inexact) else None
    return agreed([number, fill])


def _pooled(step: Step, number: Number) -> Number:
    """A window may lie in padding or between dilated entries; it holds no entry then."""
    p = step.params
    reach = [(n - 1) * gap + 1 for n, gap in zip(p["window_dimensions"], p["window_dilation"], strict=True)]
    outside = any(max(pad) >= n for pad, n in zip(p["padding"], reach, strict=True))
    return None if outside or any(gap > 1 for gap in p["base_dilation"]) else number


# Of those, the ones that keep only some numbers: sums and products of many equal ones, bits of another type.
SURVIVES: dict[str, Callable[[Step, Number], Number]] = {
    **dict.fromkeys(
        ("cumsum", "reduce_window_sum", "bitcast_convert_type", "reduce_prod", "cumprod"),
        lambda _, number: zero(number),
    ),
    **dict.fromkeys(("reduce_window_max", "reduce_window_min"), _pooled),
    "gather": _filled,
}
