"""From the shapes of a contraction to the numbers of a layer.

Sizes may be whole numbers, or arrays and tracers that stand for them: the same few formulas serve the traced program
and a population of other widths.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from compressjax.cost._layers import Geometry

Shape = Sequence[Any]


def _product(sizes: Iterable[Any]) -> Any:
    return math.prod(sizes, start=1.0)


def dot_sizes(params: Mapping[str, Any], shapes: Sequence[Shape], weight: int) -> dict[str, Any]:
    """Numbers of a ``dot_general`` whose operand number `weight` counts as the weight.

    The other operand's first free axis is the batch, its other free axes are positions; axes that both operands keep
    are groups.

    >>> sizes = dot_sizes({"dimension_numbers": (((2,), (0,)), ((), ()))}, [(2, 3, 4), (4, 5)], weight=1)
    >>> sizes["batch"], sizes["positions"], sizes["inputs"], sizes["outputs"]
    (2.0, 3.0, 4.0, 5.0)
    """
    summed, batched = params["dimension_numbers"]
    data = 1 - weight
    free = [
        [n for axis, n in enumerate(shapes[side]) if axis not in (*summed[side], *batched[side])] for side in (0, 1)
    ]
    groups = _product(shapes[data][axis] for axis in batched[data])
    places = _product(free[data][1:])
    return {
        "batch": _product(free[data][:1]),
        "positions": places,
        "input_positions": places,
        "output_positions": places,
        "valid_taps": places,
        "window": 1.0,
        "inputs": _product(shapes[data][axis] for axis in summed[data]),
        "outputs": _product(free[weight]) * groups,
        "groups": groups,
    }


def conv_sizes(params: Mapping[str, Any], lhs: Shape, rhs: Shape, out: Shape, feature_groups: Any) -> dict[str, Any]:
    """Numbers of a ``conv_general_dilated``, but for its valid taps; they and `geometry` need whole numbers.

    Taps on the zeros between the entries of a dilated input are nobody's work: along such an axis every *input* meets
    each tap.
    """
    specs = params["dimension_numbers"]
    before, after = [lhs[axis] for axis in specs.lhs_spec[2:]], [out[axis] for axis in specs.out_spec[2:]]
    moved = zip(before, after, params["lhs_dilation"], strict=True)
    return {
        "batch": 1.0 * out[specs.out_spec[0]],
        "positions": _product(n if step > 1 else places for n, places, step in moved),
        "input_positions": _product(before),
        "output_positions": _product(after),
        "window": _product(rhs[axis] for axis in specs.rhs_spec[2:]),
        "inputs": 1.0 * rhs[specs.rhs_spec[1]],
        "outputs": 1.0 * rhs[specs.rhs_spec[0]],
        "groups": 1.0 * feature_groups * params["batch_group_count"],
    }


def geometry(params: Mapping[str, Any], lhs: Sequence[int], rhs: Sequence[int]) -> Geometry:
    """How a ``conv_general_dilated`` moves over space."""
    specs = params["dimension_numbers"]
    return Geometry(
        tuple(lhs[axis] for axis in specs.lhs_spec[2:]),
        tuple(rhs[axis] for axis in specs.rhs_spec[2:]),
        tuple(params["window_strides"]),
        tuple((int(low), int(high)) for low, high in params["padding"]),
        tuple(params["lhs_dilation"]),
        tuple(params["rhs_dilation"]),
    )


def valid_taps(moves: Geometry, places: Sequence[int]) -> float:
    """(position, tap) pairs that meet an entry of the input: neither padding nor a zero between dilated entries.

    >>> valid_taps(Geometry((4,), (3,), (1,), ((1, 1),), (1,), (1,)), places=(4,))
    10.0
    """
    total = 1.0
    for n, taps, stride, (low, _), spread, step, out in zip(*moves, places, strict=True):
        at = np.arange(out)[:, None] * stride - low + np.arange(taps)[None] * step
        total *= float(np.sum((at >= 0) & (at <= (n - 1) * spread) & (at % spread == 0)))
    return total
