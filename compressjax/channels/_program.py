"""A jaxpr as a flat list of steps between values, every call site on its own.

JAX caches the bodies of jitted functions, so that one `Jaxpr` object with the same variables appears wherever ``relu``
is called; analysing variables would tie all its callers together.  Here calls are inlined (``jit``, ``remat``,
``custom_jvp_call``, ...) and every call site has values of its own.  Loops and branches keep their bodies as programs.
Steps whose results nobody reads are left out.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.extend import core, source_info_util

from compressjax.channels._dims import ONE, Dim
from compressjax.channels._terms import Term

# Primitives that only call their body, whatever else they ask of differentiation or compilation.
CALLS = frozenset(
    {
        *("jit", "pjit", "closed_call", "core_closed_call", "call", "core_call", "custom_jvp_call", "custom_vjp_call"),
        *("custom_vjp_call_jaxpr", "remat", "remat2", "checkpoint", "run_state_call"),
    }
)
# Primitives with bodies that run repeatedly or conditionally, and the parameters that hold these.
LOOPS: Mapping[str, tuple[str, ...]] = {
    "scan": ("jaxpr",),
    "while": ("cond_jaxpr", "body_jaxpr"),
    "cond": ("branches",),
}


class Value:
    """One array of the program at one call site.

    Attributes:
      shape: Its shape.
      dtype: Its dtype.
      const: The array itself for a literal or closed-over constant.
      dims: Its axes, while equations are solved.
      terms: Its axes, when they are.
      source: Path of the parameter leaf that it is, up to layout and dtype.
    """

    __slots__ = ("const", "dims", "dtype", "shape", "source", "terms")

    def __init__(self, aval: Any, const: Any = None) -> None:
        self.shape, self.dtype, self.const = tuple(aval.shape), aval.dtype, const
        self.dims: list[Dim] = []
        self.terms: tuple[Term, ...] = ()
        self.source: str | None = None

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class Step:
    """One primitive applied to values.

    Attributes:
      primitive: The JAX primitive.
      params: Its parameters.
      ins: What it reads.
      outs: What it gives.
      bodies: Programs of a loop or of branches.
      where: Source of the equation, calls around it first.
      groups: The axis over the feature groups of a convolution; `ONE` for others and where it was given up.
    """

    __slots__ = ("bodies", "groups", "ins", "outs", "params", "primitive", "where")

    def __init__(
        self, eqn: Any, ins: list[Value], outs: list[Value], bodies: "tuple[Program, ...]", where: tuple[Any, ...]
    ) -> None:
        self.primitive, self.ins, self.outs = eqn.primitive, ins, outs
        self.params = {key: _plain(value) for key, value in eqn.params.items()}
        self.bodies, self.where, self.groups = bodies, where, ONE

    @property
    def name(self) -> str:
        """The primitive's name."""
        return self.primitive.name

    @property
    def path(self) -> str:
        """Module path from the name stack, ``""`` for plain functions."""
        stacks = [str(info.name_stack) for info in self.where]
        return "/".join(s for s in stacks if s)

    def __str__(self) -> str:
        """``reduce_sum at GN/GroupNorm_0 (normalization.py:122)``."""
        line = ""
        for info in reversed(self.where):  # a cached body has no line of its own
            found = re.match(r"(.*?):(\d+)", source_info_util.summarize(info))
            if found:
                line = f"{found[1].replace(chr(92), '/').rsplit('/', 1)[-1]}:{found[2]}"
                break
        place = f"{self.path} ({line})" if self.path and line else self.path or line
        return f"{self.name} at {place}" if place else self.name


def _plain(value: Any) -> Any:
    """Python integers for NumPy ones, which sizes in parameters are at times."""
    if type(value) is tuple:
        return tuple(map(_plain, value))
    return int(value) if isinstance(value, np.integer) else value


class Reason:
    """Why an axis is kept whole: a step and what it does; the sentence is made when somebody asks for it."""

    __slots__ = ("step", "text")

    def __init__(self, text: str, step: Step | None = None) -> None:
        self.text, self.step = text, step

    def __str__(self) -> str:
        return f"{self.step} {self.text}" if self.step is not None else self.text


class Program:
    """Steps in order between inputs and outputs."""

    __slots__ = ("ins", "outs", "steps")

    def __init__(self, ins: list[Value], outs: list[Value], steps: list[Step]) -> None:
        self.ins, self.outs, self.steps = ins, outs, _live(steps, outs)


def _live(steps: list[Step], outs: Sequence[Value]) -> list[Step]:
    """The steps somebody reads."""
    needed, kept = set(map(id, outs)), []
    for step in reversed(steps):
        if any(id(out) in needed for out in step.outs):
            needed.update(map(id, step.ins))
            kept.append(step)
    return kept[::-1]


def program(closed: Any) -> Program:
    """The program of a closed jaxpr.

    Raises:
      ValueError: If it has side effects or shapes that depend on data.
    """
    return _program(closed, ())


def _program(body: Any, where: tuple[Any, ...]) -> Program:
    jaxpr, consts = _open(body)
    ins = [_value(var) for var in jaxpr.invars]
    steps: list[Step] = []
    outs = _inline(jaxpr, consts, ins, steps, where)
    return Program(ins, outs, steps)


def _open(body: Any) -> tuple[Any, Sequence[Any]]:
    """A body's jaxpr and constants, whether it comes closed or not."""
    return (body.jaxpr, body.consts) if isinstance(body, core.ClosedJaxpr) else (body, ())


def _value(var: Any) -> Value:
    if not hasattr(var.aval, "shape") or not hasattr(var.aval, "dtype"):
        raise ValueError(f"The program holds a value of type {var.aval}, which is no array: pass only arrays.")
    if not all(isinstance(n, (int, np.integer)) for n in var.aval.shape):
        raise ValueError(f"The program holds an array of dynamic shape {var.aval.shape}: trace it with plain sizes.")
    return Value(var.aval)


def _body(params: Mapping[str, Any]) -> Any:
    """The body of a call; its parameter's name differs from primitive to primitive and from version to version."""
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if key in params:
            return params[key]
    return None


def _inline(
    jaxpr: Any, consts: Sequence[Any], ins: list[Value], steps: list[Step], where: tuple[Any, ...]
) -> list[Value]:
    """Appends the steps of a jaxpr and returns its results."""
    known: dict[Any, Value] = dict(zip(jaxpr.invars, ins, strict=True))
    for var, const in zip(jaxpr.constvars, consts, strict=True):
        known[var] = Value(var.aval, const)

    def read(atom: Any) -> Value:
        # A literal is a bare Python number at times; its dtype is on its type.
        literal = isinstance(atom, core.Literal)
        return Value(atom.aval, np.asarray(atom.val, atom.aval.dtype)) if literal else known[atom]

    for eqn in jaxpr.eqns:
        here = (*where, eqn.source_info)
        name, body = eqn.primitive.name, _body(eqn.params)
        args = [read(atom) for atom in eqn.invars]
        if name in CALLS and body is not None:
            inner, inner_consts = _open(body)
            outs = _inline(inner, inner_consts, args, steps, here)
        else:
            outs = [_value(var) for var in eqn.outvars]
            bodies: list[Any] = []
            for key in LOOPS.get(name, ()):
                found = eqn.params[key]
                bodies += found if isinstance(found, (tuple, list)) else [found]
            step = Step(eqn, args, outs, tuple(_program(b, here) for b in bodies), here)
            if eqn.effects and not bodies:
                raise ValueError(
                    f"{step} has the side effect {next(iter(eqn.effects))}: removing channels is defined for pure "
                    "functions only. Trace the function without it."
                )
            steps.append(step)
        known.update(zip(eqn.outvars, outs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def scan_counts(step: Step) -> tuple[int, int]:
    """How many inputs of a scan are constants, and how many are carried.

    Read off the ranks, because the parameters that say so have changed: what is scanned has one axis more outside than
    inside.
    """
    body = step.bodies[0]
    carried = sum(len(a.shape) == len(b.shape) for a, b in zip(step.outs, body.outs, strict=True))
    whole = sum(len(a.shape) == len(b.shape) for a, b in zip(step.ins, body.ins, strict=True))
    return whole - carried, carried


def while_counts(step: Step) -> tuple[int, int, int]:
    """How many inputs of a while loop are constants of its condition, constants of its body, and carried."""
    condition, body = step.bodies
    carried = len(step.outs)
    return len(condition.ins) - carried, len(body.ins) - carried, carried


def walk(prog: Program, visit: Callable[[Step, int, bool], None], trips: int = 1, dynamic: bool = False) -> None:
    """Calls ``visit(step, trips, dynamic)`` for every step, bodies included.

    Args:
      prog: The program.
      visit: Takes the step, how often it runs, and whether it lies in a while loop, so that this is per iteration.
      trips: How often the program runs.
      dynamic: Whether it lies in a while loop.
    """
    for step in prog.steps:
        visit(step, trips, dynamic)
        times = trips * step.params["length"] if step.name == "scan" else trips
        for body in step.bodies:
            walk(body, visit, times, dynamic or step.name == "while")
