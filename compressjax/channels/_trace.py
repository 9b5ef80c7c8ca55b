"""From a function to its `Net`: jaxpr, equations, legality, names."""

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from compressjax import trees
from compressjax.channels._dims import Dim, atoms, freeze, new, same
from compressjax.channels._groups import Group, Member, Traced
from compressjax.channels._legal import freeze_illegal
from compressjax.channels._net import Net
from compressjax.channels._operations import operations
from compressjax.channels._program import Program, Reason, Value, program, walk
from compressjax.channels._rules import axes_of, solve
from compressjax.channels._terms import Term, solved

Tree = Any


def trace(
    f: Callable[..., Any],
    params: Tree,
    *xs: Any,
    ignore: Iterable[str | tuple[str, int]] = (),
    tie: Iterable[tuple[str, int, str, int]] = (),
    state: Callable[[Any], Tree] | None = None,
) -> Net:
    """Finds the channel groups of a pure function.

    Nothing is computed or compiled: only the jaxpr is read.

    Args:
      f: Pure function ``f(params, *xs)``.
      params: Its parameters: any pytree of arrays, or of `jax.ShapeDtypeStruct`.
      *xs: Its other arguments: pytrees of arrays or of `jax.ShapeDtypeStruct`.  Their axes, and those of the result,
        are kept whole.
      ignore: Leaves to keep whole: globs of paths, or pairs of glob and axis.
      tie: Axes to cut alike although the function does not ask for it, because a module has one number for both:
        ``(glob, axis, glob, axis)``, the leaves of the two globs taken in pairs.
      state: For functions that return updated parameters (BatchNorm in train mode): picks from the result of `f` a tree
        whose leaf paths are paths of `params`; these results are cut along with the leaves they replace.

    Returns:
      The net.

    Raises:
      ValueError: If a leaf is no array of numbers, the function has side effects or dynamic shapes, or `ignore`, `tie`
        or `state` do not fit.

    >>> params = {"a": np.ones((4, 8)), "b": np.ones((8, 2))}
    >>> net = trace(lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"], params, np.ones((3, 4)))
    >>> [(member.path, member.axis) for member in net.groups[0].members]
    [('a', 1), ('b', 0)]
    >>> small = net.shrink(params, {"g0": np.arange(8) < 5})
    >>> dict(small.widths)
    {'a': ((4, 8), (4, 5)), 'b': ((8, 2), (5, 2))}
    """
    known = trees.leaves(params)
    for path, leaf in known.items():
        _check_leaf(path, leaf)
    closed, shape = jax.make_jaxpr(f, return_shape=True)(params, *xs)
    prog = program(closed)
    inputs, inputs_tree = jax.tree.flatten(xs)
    values = dict(zip(known, prog.ins, strict=False))
    for path, value in values.items():
        value.dims = [new(n) for n in value.shape]
        value.source = path
    for value in prog.ins[len(known) :]:
        value.dims = [new(n, frozen=Reason("it is an axis of the input")) for n in value.shape]
    solve(prog)
    returned = _state(state, shape, values, prog.outs)
    for number, value in enumerate(prog.outs):
        if number in returned:
            for d, e in zip(axes_of(value), returned[number].dims, strict=True):
                same(d, e)
        else:
            for d in axes_of(value):
                freeze(d, Reason("it is an axis of the result"))
    _ignore(ignore, values)
    _tie(tie, values)

    read = {id(value) for value in prog.outs}
    walk(prog, lambda step, *_: read.update(map(id, step.ins)))
    unused = tuple(path for path, value in values.items() if id(value) not in read)
    found = [a for path, v in values.items() if path not in unused for d in v.dims for a in atoms(d)]
    candidates = {a for a in found if a.frozen is None}
    freeze_illegal(prog, candidates)
    names: dict[Dim, str] = {}
    for a in found:
        if a.frozen is None:
            names.setdefault(a, f"g{len(names)}")
    memo: dict[Dim, Term] = {}
    _set_terms(prog, lambda d: solved(d, names, memo))
    axes = {path: value.terms for path, value in values.items()}
    shapes = tuple(np.shape(x) for x in inputs)
    traced = Traced(prog, values, shapes, inputs_tree, jax.tree.structure(params), jax.tree.structure(shape))
    groups = tuple(_group(a, name, values, unused) for a, name in names.items())
    return Net(groups, operations(prog, lambda d: solved(d, names, memo)), MappingProxyType(axes), unused, traced)


def _check_leaf(path: str, leaf: Any) -> None:
    if isinstance(leaf, (bool, int, float, complex)):
        return
    dtype = getattr(leaf, "dtype", None)
    if dtype is None or not hasattr(leaf, "shape"):
        raise ValueError(f"{path} is a {type(leaf).__name__}, no array: keep it out of the parameters.")
    if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
        raise ValueError(f"{path} is a random key: pass it as an input after the parameters.")
    if not (jax.dtypes.issubdtype(dtype, np.number) or jax.dtypes.issubdtype(dtype, np.bool_)):
        raise ValueError(f"{path} has dtype {dtype}: parameters are numbers.")


def _state(
    state: Callable[[Any], Tree] | None, shape: Any, values: dict[str, Value], outs: Sequence[Value]
) -> dict[int, Value]:
    """Number of a result to the parameter leaf that it replaces."""
    if state is None:
        return {}
    numbered = jax.tree.unflatten(jax.tree.structure(shape), range(len(outs)))
    out: dict[int, Value] = {}
    for path, number in trees.leaves(state(numbered)).items():
        if path not in values:
            raise ValueError(f"state picks a result {path!r}, which is no leaf of the parameters: {', '.join(values)}.")
        if values[path].shape != outs[number].shape:
            raise ValueError(f"The result {path!r} has shape {outs[number].shape}, the leaf {values[path].shape}.")
        out[number] = values[path]
    return out


def _axes(pattern: str, axis: int, values: dict[str, Value], what: str) -> list[Dim]:
    """The given axis of all leaves that match."""
    matched = [path for path in values if fnmatchcase(path, pattern)]
    if not matched:
        raise ValueError(f"{what} names {pattern!r}, which matches no leaf: {', '.join(values)}.")
    for path in matched:
        if not 0 <= axis < len(values[path].shape):
            raise ValueError(f"{what} names axis {axis} of {path}, which has shape {values[path].shape}.")
    return [values[path].dims[axis] for path in matched]


def _ignore(ignore: Iterable[str | tuple[str, int]], values: dict[str, Value]) -> None:
    if isinstance(ignore, str):
        raise ValueError(f"ignore is a sequence of globs, not the string {ignore!r}: write [{ignore!r}].")
    for item in ignore:
        why = Reason(f"{item!r} is listed under ignore")
        if isinstance(item, str):
            matched = [value for path, value in values.items() if fnmatchcase(path, item)]
            if not matched:
                raise ValueError(f"ignore names {item!r}, which matches no leaf: {', '.join(values)}.")
            dims = [d for value in matched for d in value.dims]
        elif isinstance(item, tuple) and [type(part) for part in item] == [str, int]:
            dims = _axes(*item, values, "ignore")
        else:
            raise ValueError(f"ignore holds {item!r}: give globs, or pairs (glob, axis).")
        for d in dims:
            freeze(d, why)


def _tie(tie: Iterable[tuple[str, int, str, int]], values: dict[str, Value]) -> None:
    for item in tie:
        if not isinstance(item, tuple) or [type(part) for part in item] != [str, int, str, int]:
            raise ValueError(f"tie holds {item!r}: give tuples (glob, axis, glob, axis).")
        first, i, second, j = item
        left, right = _axes(first, i, values, "tie"), _axes(second, j, values, "tie")
        if len(left) != len(right):
            raise ValueError(f"tie: {first!r} matches {len(left)} leaves, {second!r} matches {len(right)}.")
        for a, b in zip(left, right, strict=True):
            if a.n != b.n:
                raise ValueError(f"tie: axis {i} of {first!r} has size {a.n}, axis {j} of {second!r} has {b.n}.")
            same(a, b, Reason(f"it is tied to an axis put together differently ({first!r}, {second!r})"))


def _set_terms(prog: Program, term: Callable[[Dim], Term]) -> None:
    values = [*prog.ins, *prog.outs, *(v for step in prog.steps for v in (*step.ins, *step.outs))]
    for value in values:
        if len(value.terms) != len(value.shape):
            value.terms = tuple(term(d) for d in axes_of(value))
    for step in prog.steps:
        for body in step.bodies:
            _set_terms(body, term)


def _group(atom: Dim, name: str, values: dict[str, Value], unused: Sequence[str]) -> Group:
    members, entries = [], 0
    for path, value in values.items():
        if path in unused:
            continue
        for axis, term in enumerate(value.terms):
            for index in term.index(name):
                index.flags.writeable = False
                members.append(Member(path, axis, index, term))
                entries += value.elements // value.shape[axis] * int((index >= 0).sum()) // atom.n
    return Group(name, atom.n, tuple(members), tuple(sorted(atom.notes)), entries)
