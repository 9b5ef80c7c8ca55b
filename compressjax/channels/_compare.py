"""Comparing a rebuilt function with the shrunk program, without numbers.

A module rebuilt at smaller widths may run and be wrong: it divides by its new width in a mean, scales attention by its
new head width, splits channels into the old number of heads.  Both programs are walked side by side, calls inlined:
the same primitives on the same values with the same parameters, once the traced ones are patched to the sizes that are
left.  What differs first is named.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from compressjax.channels._program import LOOPS, Program, Step, Value
from compressjax.channels._replay import MADE_WHOLE, Sizes

# Parameters that do not change values: where things are put, what they are called, how derivatives are taken.
_IGNORED = frozenset(
    {
        *(
            "sharding",
            "out_sharding",
            "name",
            "unroll",
            "linear",
            "computation",
            "num_consts",
            "num_carry",
            "cond_nconsts",
            "body_nconsts",
            "ft_in",
            "ft_out",
            "_split_transpose",
        ),
        *("indices_are_sorted", "unique_indices"),
    }
)
_BODIES = (Jaxpr, ClosedJaxpr)


def difference(prog: Program, sizes: Sizes, other: Program) -> str | None:
    """The first difference between a program at smaller sizes and another one, as a clause; None if there is none."""
    pairs: dict[int, Value] = {}
    for a, b in zip(prog.ins, other.ins, strict=True):
        pairs[id(a)] = b
    for step, twin in zip(prog.steps, other.steps, strict=False):
        found = _steps(step, sizes, twin, pairs)
        if found:
            return found
        for a, b in zip(step.outs, twin.outs, strict=True):
            pairs[id(a)] = b
    longer, shorter = sorted((prog.steps, other.steps), key=len, reverse=True)
    if len(longer) != len(shorter):
        which = "shrunk" if longer is prog.steps else "rebuilt"
        return f"{longer[len(shorter)]} is in the {which} function only"
    for number, (a, b) in enumerate(zip(prog.outs, other.outs, strict=True)):
        found = _values(a, sizes, b, pairs)
        if found:
            return f"result {number} {found}"
    return None


def _steps(step: Step, sizes: Sizes, twin: Step, pairs: Mapping[int, Value]) -> str | None:
    if step.name != twin.name or len(step.ins) != len(twin.ins) or len(step.bodies) != len(twin.bodies):
        return f"{step} of the shrunk function meets {twin} in the rebuilt one"
    for a, b in zip(step.ins, twin.ins, strict=True):
        found = _values(a, sizes, b, pairs)
        if found:
            return f"{step} {found}"
    if step.name in MADE_WHOLE and any(sizes.shape(value) != value.shape for value in step.outs):
        return f"{step} keeps its traced positions in the shrunk function and would be renumbered"
    kept = sizes.params(step)
    for key, value in twin.params.items():
        if key in _IGNORED or key in LOOPS.get(step.name, ()) or key not in kept:
            continue
        if not _equal(kept[key], value):
            if callable(value) or isinstance(value, _BODIES):
                return f"{step} calls a function ({key}) that is not the same in the rebuilt one"
            return f"{step} has {key}={kept[key]} in the shrunk function, {key}={value} in the rebuilt one"
    for a, b in zip(step.outs, twin.outs, strict=True):
        if sizes.shape(a) != b.shape or a.dtype != b.dtype:
            mine, theirs = f"{a.dtype}{list(sizes.shape(a))}", f"{b.dtype}{list(b.shape)}"
            return f"{step} gives {mine} in the shrunk function, {theirs} in the rebuilt one"
    for body, other in zip(step.bodies, twin.bodies, strict=True):
        found = difference(body, sizes, other)
        if found:
            return found
    return None


def _values(a: Value, sizes: Sizes, b: Value, pairs: Mapping[int, Value]) -> str | None:
    if a.const is None and b.const is None:
        return None if pairs.get(id(a)) is b else "reads another value in the rebuilt function"
    if a.const is None or b.const is None:
        return f"reads {_say(a.const)} in the shrunk function, {_say(b.const)} in the rebuilt one"
    mine = sizes.take(a, np.asarray(a.const))
    if mine.shape != b.shape or not _equal(mine, np.asarray(b.const)):
        return f"reads {_say(mine)} in the shrunk function, {_say(b.const)} in the rebuilt one"
    return None


def _say(const: Any) -> str:
    if const is None:
        return "a computed value"
    return str(np.asarray(const)) if np.ndim(const) == 0 else f"a constant of shape {np.shape(const)}"


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, (np.ndarray, jax.Array)) or isinstance(b, (np.ndarray, jax.Array)):
        return bool(np.array_equal(a, b, equal_nan=_may_be_nan(a) and _may_be_nan(b)))
    if isinstance(a, ClosedJaxpr) and isinstance(b, ClosedJaxpr):  # newer versions of JAX have this kind only
        return str(a.jaxpr) == str(b.jaxpr) and _equal(a.consts, b.consts)  # variables are named in order
    if isinstance(a, Jaxpr) and isinstance(b, Jaxpr):
        return str(a) == str(b)
    if isinstance(a, Sequence) and isinstance(b, Sequence) and not isinstance(a, str):
        return len(a) == len(b) and all(map(_equal, a, b))
    # Not a number equals itself here: it is the fill value of lookups.
    return bool(a == b) or (a != a and b != b) or str(a) == str(b)


def _may_be_nan(a: Any) -> bool:
    return jax.dtypes.issubdtype(np.asarray(a).dtype, np.inexact)
