"""Where a group's channels are read: the operands of dense layers and convolutions that sum over them.

A tap is an operand of a `dot_general` or `conv_general_dilated` with an axis that is summed over and holds members of
the group, as many positions for each.  So what is seen of a channel is what its readers see: after the nonlinearity,
before the weights.  In ``4*4*g0``, a flattened feature map, every member has 16 positions; in ``g0+g1``, a
concatenation, the members of one group are picked out.  The samples are axis 0 of the first input, followed through the
program like any axis.

Not seen: operands within loops and branches, operands in which the samples are nowhere (weights) or in two places, and
axes on which members have unlike numbers of positions.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Shaped

from compressjax.channels._dims import Dim, factors, find
from compressjax.channels._groups import Group, Traced
from compressjax.channels._program import Program, Step, Value
from compressjax.channels._rules import axes_of


class Tap(NamedTuple):
    """One operand in which a group is read.

    Attributes:
      value: The operand.
      samples: Its axis that holds the samples, outermost if it holds more.
      size: Number of samples.
      axis: Its axis that holds the members.
      places: Position of every member on that axis.
    """

    value: Value
    samples: int
    size: int
    axis: int
    places: Int[np.ndarray, "positions members"]

    def see(self, array: Shaped[Array, "..."]) -> Shaped[Array, "samples *positions members"]:
        """The operand with its samples first and its members last."""
        array = jnp.moveaxis(array, (self.samples, self.axis), (0, -1))
        if array.shape[0] != self.size:  # samples and positions merged into rows
            array = array.reshape(self.size, -1, *array.shape[1:])
        positions, members = self.places.shape
        if np.array_equal(self.places[0], np.arange(array.shape[-1])):
            return array
        array = jnp.take(array, self.places.reshape(-1), axis=-1)
        return array.reshape(*array.shape[:-1], *((positions,) if positions > 1 else ()), members)


def chosen_taps(traced: Traced, groups: Sequence[Group], names: Iterable[str] | None) -> dict[str, list[Tap]]:
    """The taps of some groups, or of all that have any.

    Args:
      traced: A traced function.
      groups: All its groups.
      names: Those wanted; None for all that have taps.

    Returns:
      Group name to taps in the order of the program, an operand with several readers once.

    Raises:
      ValueError: If a name is unknown or has no tap, or the samples cannot be followed.
    """
    inputs = traced.program.ins[len(traced.leaves) :]
    if not inputs or not inputs[0].shape or inputs[0].shape[0] < 2:
        seen = f"has shape {inputs[0].shape}" if inputs else "is missing"
        raise ValueError(f"The first input {seen}: taps need at least two samples on its axis 0; trace with these.")
    if isinstance(names, str):
        raise ValueError(f"groups is a sequence of names, not the string {names!r}: write [{names!r}].")
    found, known = _taps(traced.program, inputs[0]), {group.name: group for group in groups}
    if names is None:
        return {name: found[name] for name in known if name in found}
    out = {}
    for name in names:
        if name not in known:
            raise ValueError(f"groups names {name!r}, which is no group. Groups: {', '.join(known) or 'none'}.")
        if name not in found:
            first = known[name].members[0]
            raise ValueError(
                f"{name} ({first.path} axis {first.axis}) has no tap: no dense layer or convolution outside of loops "
                "sums over it sample by sample. Leave it out."
            )
        out[name] = found[name]
    return out


def _taps(prog: Program, samples: Value) -> dict[str, list[Tap]]:
    """All taps of a program, by group name; `samples` is the input whose axis 0 holds the samples."""
    batch = factors(axes_of(samples)[0])
    found: dict[str, list[Tap]] = {}
    known: set[tuple[int, int]] = set()
    for step in prog.steps:
        for value, axis in _summed(step):
            first = _samples(value, batch)
            if first is None or first == axis or (id(value), axis) in known:
                continue
            known.add((id(value), axis))
            for name in value.terms[axis].names:
                places = _places(value.terms[axis].index(name))
                if places is not None:
                    found.setdefault(name, []).append(Tap(value, first, samples.shape[0], axis, places))
    return found


def _summed(step: Step) -> Iterator[tuple[Value, int]]:
    """The operands of a step with the axes that it sums over."""
    if step.name == "dot_general":
        for value, axes in zip(step.ins, step.params["dimension_numbers"][0], strict=True):
            yield from ((value, axis) for axis in axes)
    elif step.name == "conv_general_dilated" and step.params["batch_group_count"] == 1:
        spec = step.params["dimension_numbers"]
        if step.ins[1].shape[spec.rhs_spec[1]] > 1:  # depthwise convolutions sum over no channels
            yield step.ins[0], spec.lhs_spec[1]


def _samples(value: Value, batch: Sequence[Dim]) -> int | None:
    """The one axis that is the samples, or the samples times more."""
    wanted = [id(find(d)) for d in batch]
    axes = [[id(find(d)) for d in factors(axis)] for axis in axes_of(value)]
    found = [i for i, axis in enumerate(axes) if wanted and axis[: len(wanted)] == wanted]
    return found[0] if len(found) == 1 else None


def _places(index: Sequence[Int[np.ndarray, " size"]]) -> Int[np.ndarray, "positions members"] | None:
    """Where on an axis the members are, if every one has as many positions as the others."""
    if len(index) != 1:
        return None
    (numbers,) = index
    counts = np.bincount(numbers[numbers >= 0])
    if np.any(counts != counts[0]):
        return None
    order = np.argsort(numbers, kind="stable")[np.count_nonzero(numbers < 0) :]
    return order.reshape(len(counts), counts[0]).T
