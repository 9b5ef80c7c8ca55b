"""Where in a program a parameter leaf is the kernel of a linear layer, and what enters that layer.

A leaf is followed through steps that only lay it out anew (reshape, transpose, a change of dtype, ...) to the one
product or convolution that it is an operand of.  Run on the *numbers* of its entries, these steps tell where each entry
stands in the kernel as a matrix (inputs, outputs); nothing else of the network needs to be known.

Whatever is not such a layer is refused by path, never guessed.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from compressjax.channels._program import Program, Step

_LAYOUT = ("convert_element_type", "copy", "copy_p", "expand_dims", "reshape", "squeeze", "transpose")


@dataclass(frozen=True, eq=False)
class Kernel:
    """A leaf that is the kernel of one linear layer.

    Attributes:
      path: Of the leaf.
      at: Position of the product or convolution in the program's steps.
      operand: Which operand of it the kernel is; the other one is what enters the layer.
      layout: Positions of the steps from the leaf to the operand.
      order: For each entry of the matrix (inputs, outputs), its number in the flattened leaf.
    """

    path: str
    at: int
    operand: int
    layout: tuple[int, ...]
    order: np.ndarray


def find(prog: Program, paths: Sequence[str], wanted: Sequence[str]) -> list[Kernel]:
    """The kernels among the wanted leaves, in program order.

    Args:
      prog: The program of ``f(params, *inputs)``.
      paths: Paths of the parameter leaves, its first inputs.
      wanted: Those to find.

    Returns:
      One kernel per wanted path.

    Raises:
      ValueError: If a wanted leaf is not the kernel of exactly one product or convolution that sees the inputs.
    """
    leaves = {id(value): path for path, value in zip(paths, prog.ins, strict=False) if path in wanted}
    shapes = {path: value.shape for path, value in zip(paths, prog.ins, strict=False)}
    depends = depending(prog, len(paths))
    layouts: dict[str, list[int]] = {path: [] for path in wanted}
    found: dict[str, Kernel] = {}
    for at, step in enumerate(prog.steps):
        for operand, value in enumerate(step.ins):
            path = leaves.get(id(value))
            if path is None:
                continue
            if step.name in _LAYOUT:
                leaves[id(step.outs[0])] = path
                layouts[path].append(at)
                continue
            if path in found:
                raise ValueError(
                    f"{path} feeds {prog.steps[found[path].at]} as well as {step}: a kernel of one layer is needed, "
                    "exempt it."
                )
            if step.name not in _ORDERS or id(step.ins[1 - operand]) not in depends:
                raise ValueError(
                    f"{path} feeds {step}, which is no product or convolution of it with what depends on the inputs. "
                    "Exempt it; a layer in a loop has to be written out."
                )
            numbers = np.arange(math.prod(shapes[path])).reshape(shapes[path])
            for i in layouts[path]:
                if prog.steps[i].name != "convert_element_type":
                    numbers = np.asarray(bind(prog.steps[i], [jnp.asarray(numbers)])[0])
            found[path] = Kernel(
                path, at, operand, tuple(layouts[path]), _ORDERS[step.name](path, step, operand, numbers)
            )
    for path in wanted:
        if path not in found:
            raise ValueError(f"{path} feeds no product or convolution: exempt it.")
        if found[path].order.size != math.prod(shapes[path]):
            raise ValueError(f"{path} is not used as a whole by {prog.steps[found[path].at]}: exempt it.")
    return sorted(found.values(), key=lambda kernel: kernel.at)


def depending(prog: Program, parameters: int) -> set[int]:
    """Ids of the values that depend on the inputs of the network, those after the first `parameters`."""
    known = {id(value) for value in prog.ins[parameters:]}
    for step in prog.steps:
        if any(id(value) in known for value in step.ins):
            known.update(map(id, step.outs))
    return known


def bind(step: Step, args: Sequence[Any]) -> list[Any]:
    """Runs one step."""
    out = step.primitive.bind(*args, **step.params)
    return list(out) if step.primitive.multiple_results else [out]


def rows(step: Step, operand: int, x: Any) -> Any:
    """What enters the layer, as a matrix: one row per output position, columns as the rows of `Kernel.order`.

    Args:
      step: The product or convolution.
      operand: Which operand the kernel is.
      x: The other operand.

    Returns:
      (rows, inputs).
    """
    if step.name == "dot_general":
        _, other = _contracted(step, operand)
        free = [axis for axis in range(x.ndim) if axis not in other]
        width = math.prod(x.shape[axis] for axis in other)
        return jnp.transpose(x, (*free, *other)).reshape(-1, width)
    return _patches(x, step.params, step.ins[1].shape)


def _contracted(step: Step, operand: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes of the kernel that are summed over, ascending, and the axes of the other operand that meet them."""
    contracted, _ = step.params["dimension_numbers"]
    pairs = sorted(zip(contracted[operand], contracted[1 - operand], strict=True))
    return tuple(mine for mine, _ in pairs), tuple(other for _, other in pairs)


def _dot_order(path: str, step: Step, operand: int, numbers: np.ndarray) -> np.ndarray:
    _, batched = step.params["dimension_numbers"]
    if batched[operand]:
        raise ValueError(f"{path} has one matrix per batch entry of {step}: exempt it.")
    mine, _ = _contracted(step, operand)
    free = [axis for axis in range(numbers.ndim) if axis not in mine]
    inputs = math.prod(numbers.shape[axis] for axis in mine)
    outputs = math.prod(numbers.shape[axis] for axis in free)
    return numbers.transpose(*mine, *free).reshape(inputs, outputs)


def _conv_order(path: str, step: Step, operand: int, numbers: np.ndarray) -> np.ndarray:
    if operand != 1:
        raise ValueError(f"{path} is the image and not the kernel of {step}: exempt it.")
    if step.params["feature_group_count"] != 1 or step.params["batch_group_count"] != 1:
        raise ValueError(f"{path} is the kernel of a convolution in groups, {step}: exempt it.")
    outputs, inputs, *spatial = step.params["dimension_numbers"].rhs_spec
    return numbers.transpose(*spatial, inputs, outputs).reshape(-1, numbers.shape[outputs])


_ORDERS = {"dot_general": _dot_order, "conv_general_dilated": _conv_order}


def _patches(x: Any, params: Mapping[str, Any], kernel: Sequence[int]) -> Any:
    """Per output position the pixels under the window, positions of the window first, then channels.

    Slices of the padded image: only copies, so exact in every dtype.
    """
    images, channels, *spatial = params["dimension_numbers"].lhs_spec
    window = [kernel[axis] for axis in params["dimension_numbers"].rhs_spec[2:]]
    x = jnp.transpose(x, (images, *spatial, channels))
    gaps = [dilation - 1 for dilation in params["lhs_dilation"]]
    sides = [(low, high, gap) for (low, high), gap in zip(params["padding"], gaps, strict=True)]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *sides, (0, 0, 0)])
    strides, dilations = params["window_strides"], params["rhs_dilation"]
    parts = []
    for place in itertools.product(*map(range, window)):
        starts = [i * dilation for i, dilation in zip(place, dilations, strict=True)]
        # The last window ends where the image does, or before.
        reach = [(size - 1) * dilation for size, dilation in zip(window, dilations, strict=True)]
        stops = [n - r + s for n, r, s in zip(x.shape[1:-1], reach, starts, strict=True)]
        begin, end = (0, *starts, 0), (x.shape[0], *stops, x.shape[-1])
        parts.append(lax.slice(x, begin, end, (1, *strides, 1)))
    return jnp.stack(parts, axis=-2).reshape(-1, len(parts) * x.shape[-1])
