"""The masked network with masks as data: one program for every keep set, and for a population of them.

`Net.mask` writes zeros into parameters on the host.  Here the traced program is replayed at full size, and a group's
mask m multiplies what is contracted or summed over the group::

    sum_c x_c w_c   ->   sum_c x_c m_c w_c        in front of every reader: `conv_general_dilated`, `dot_general`
    sum_c x_c       ->   sum_c x_c m_c            `reduce_sum`, such as the mean over channels of a normalization

Nothing else joins the members of a group (what else would is kept whole by `trace`), and what a removed member holds in
between reaches no result; so for masks of 0 and 1 this equals the function of ``net.mask(params, keep)``.  Masking the
reader's weights instead would be the same number, but a convolution whose weights are computed in a loop can take
nearly three times as long on a CPU.

All that comes before the first mask is the same for every member of a population: `population_replay` runs it once.
With a `Shared` set of masks, so is all that depends on these masks only: it runs once per different mask.

A mask still pays for what it removes.  `Slots` do not: every member gathers the channels that it keeps into a number of
slots that is the same for all, so that one program computes the smaller networks; slots that a member leaves empty are
masked.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from compressjax.channels._net import Net, _check_dtype, _checked
from compressjax.channels._program import Program, Step, Value, walk
from compressjax.channels._replay import Sizes, _apply
from compressjax.channels._terms import Term
from compressjax.trees import in_chunks

Tree = Any
Known = dict[int, Any]


class Shared(NamedTuple):
    """Masks of some groups that several members of a population have in common.

    Attributes:
      masks: Group name to (different, size): the different masks; row i of all groups belongs together.
      which: (population,) int32: the row of each member.
    """

    masks: Mapping[str, Float[Array, "different size"]]
    which: Int[Array, " population"]


class Slots(NamedTuple):
    """Keep sets of a population as gathered members, an alternative to masks.

    Attributes:
      members: Group name to (population, slots) int32: the member in each slot; an empty slot holds any member.
      filled: Group name to (population, slots): 1 where a slot is filled, 0 where it is empty.  A group without
        `members` has masks here, (population, size).
    """

    members: Mapping[str, Int[Any, "population slots"]]
    filled: Mapping[str, Float[Any, "population slots"]]


class _Masks(Sizes):
    """Groups at full size, or at a number of slots; operands of contractions and sums are masked."""

    def __init__(
        self,
        masks: Mapping[str, Any],
        members: Mapping[str, Any] | None = None,
        widths: Mapping[str, int] | None = None,
    ) -> None:
        self._members = dict(members or {})
        # Only the number of slots matters here, so any keep set with as many members describes the sizes.
        super().__init__({name: np.arange((widths or {})[name]) < len(m) for name, m in self._members.items()})
        self._vectors = masks

    def take(self, value: Value, array: Any) -> Any:
        """The members of one network, gathered from an array at full size."""
        for axis, term in enumerate(value.terms):
            if not self._members.keys().isdisjoint(term.names):
                array = jnp.take(jnp.asarray(array), _positions(term, self._members), axis, mode="clip")
        return array

    def operands(self, step: Step, args: list[Any]) -> list[Any]:
        args = list(args)
        for operand, axis, term in _joined(step):
            if not self._vectors.keys().isdisjoint(term.names):
                shape = [1] * len(step.ins[operand].shape)
                shape[axis] = -1
                array = jnp.asarray(args[operand])
                args[operand] = array * _vector(term, self._vectors).reshape(shape).astype(array.dtype)
        return args


def _joined(step: Step) -> list[tuple[int, int, Term]]:
    """Operand, axis and term of what a step sums over; one operand of a contraction, activations if there are any."""
    if step.name == "reduce_sum":
        return [(0, axis, step.ins[0].terms[axis]) for axis in step.params["axes"]]
    if step.name == "dot_general":
        side = int(step.ins[0].source is not None and step.ins[1].source is None)
        return [(side, axis, step.ins[side].terms[axis]) for axis in step.params["dimension_numbers"][0][side]]
    if step.name == "conv_general_dilated":
        left, right = (step.params["dimension_numbers"][side][1] for side in (0, 1))
        # A depthwise convolution sums over no channels.
        return [(0, left, step.ins[0].terms[left])] if step.ins[1].shape[right] > 1 else []
    return []


def _vector(term: Term, masks: Mapping[str, Any]) -> Any:
    """The mask of an axis; `Term.mask` for traced numbers."""
    if term.kind == "group" and term.name in masks:
        return masks[term.name]
    if term.kind == "sum":
        return jnp.concatenate([_vector(part, masks) for part in term.parts])
    if term.kind == "product":
        return reduce(lambda a, b: (a[:, None] * b[None, :]).reshape(-1), [_vector(p, masks) for p in term.parts])
    return np.ones(term.size, np.float32)


def _positions(term: Term, members: Mapping[str, Any]) -> Any:
    """Where the members in the slots sit on an axis at full size."""
    if term.kind == "group" and term.name in members:
        return members[term.name]
    if term.kind == "sum":
        starts = np.cumsum([0, *(part.size for part in term.parts)])
        return jnp.concatenate([_positions(p, members) + int(at) for p, at in zip(term.parts, starts, strict=False)])
    if term.kind == "product":
        out = np.zeros(1, np.int32)
        for part in term.parts:
            out = (out[:, None] * part.size + _positions(part, members)[None, :]).reshape(-1)
        return out
    return np.arange(term.size, dtype=np.int32)


def masked_replay(net: Net) -> Callable[..., Any]:
    """The traced function with masks as an argument.

    Args:
      net: A traced function.

    Returns:
      Pure ``g(params, masks, *xs)`` with the result of the traced function; `masks` is a dictionary from group name to
      (size,) floats, 1 where a member stays and 0 where it is removed, and groups that it does not name stay whole.
      Jit, differentiate or vmap it at will.  Values between 0 and 1 are allowed and scale.  Results that are state
      keep what they hold at removed members.  It raises ValueError where masks, shapes or dtypes do not fit.

    >>> from compressjax import channels
    >>> params = {"a": jnp.eye(2), "b": jnp.ones((2, 1))}
    >>> net = channels.trace(lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"], params, jnp.ones((1, 2)))
    >>> g = jax.jit(masked_replay(net))
    >>> x = jnp.array([[3.0, 5.0]])
    >>> [float(g(params, {"g0": jnp.array(m)}, x)[0, 0]) for m in ([1.0, 1.0], [1.0, 0.0], [0.0, 1.0])]
    [8.0, 3.0, 5.0]
    """

    def replayed(params: Tree, masks: Mapping[str, Any], *xs: Any) -> Any:
        _check_masks(net, masks, 1)
        known = _run(net._traced.program.steps, _Masks(masks), _started(net, params, xs))
        return _results(net, _Masks(masks), known, {})

    return replayed


def population_replay(
    net: Net, *, chunk: int | None = None, summary: Callable[[Any], Any] = lambda result: result
) -> Callable[..., Any]:
    """The traced function under every mask of a population; what does not depend on masks runs once.

    Args:
      net: A traced function.
      chunk: Members that are computed side by side: 1 is a loop.  By default 1 on a CPU, all of them elsewhere.
      summary: What to return of a member's result, so that not all results need to be held.

    Returns:
      Pure ``g(params, masks, *xs, shared=None)``, like that of `masked_replay`, with `masks` a dictionary from group
      name to (population, size), or `Slots`, and every result with an axis over the population in front.  `shared`
      holds the masks of other groups as a `Shared`; what depends on them alone runs once per different mask.  Results
      that are state have as many members as there are slots.  Under `jit`, pass parameters and inputs as arguments:
      XLA folds what is closed over into constants, which takes it long.

    Raises:
      ValueError: If `chunk` is no whole number of 1 or more.

    >>> from compressjax import channels
    >>> params = {"a": jnp.eye(2), "b": jnp.ones((2, 1))}
    >>> net = channels.trace(lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"], params, jnp.ones((1, 2)))
    >>> g = jax.jit(population_replay(net))
    >>> g(params, {"g0": jnp.array([[1.0, 1.0], [1.0, 0.0]])}, jnp.array([[3.0, 5.0]])).ravel()
    Array([8., 3.], dtype=float32)
    """
    vmap = in_chunks(chunk)

    def replayed(params: Tree, masks: Mapping[str, Any] | Slots, *xs: Any, shared: Shared | None = None) -> Any:
        first = {} if shared is None else dict(shared.masks)
        members = dict(masks.members) if isinstance(masks, Slots) else {}
        vectors = masks.filled if isinstance(masks, Slots) else masks
        widths = {group.name: group.size for group in net.groups}
        count = _check_population(net, vectors, members, shared)
        prog = net._traced.program
        stages = _stages(prog, {name: 1 for name in first} | {name: 2 for name in vectors})
        known = _started(net, params, xs)
        known |= _run(stages[0], _Masks({}), known)
        wanted = _read_later(prog, stages[1], stages[2])

        def begin(rows: Mapping[str, Any]) -> list[Any]:
            made = _run(stages[1], _Masks(rows), known)
            return [made[key] for key in wanted]

        def finish(member: tuple[Mapping[str, Any], Mapping[str, Any], Any]) -> Any:
            own, slots, row = member
            before = dict(known)
            if shared is not None:
                before |= zip(wanted, [array[row] for array in begun], strict=True)
                own = {**own, **{name: rows[row] for name, rows in first.items()}}
            sizes = _Masks(own, slots, widths)
            return summary(_results(net, sizes, _run(stages[2], sizes, before), before))

        begun = [] if shared is None else vmap(begin)(first)
        which = jnp.zeros(count, jnp.int32) if shared is None else shared.which
        return vmap(finish)((dict(vectors), members, which))

    return replayed


def _started(net: Net, params: Tree, xs: tuple[Any, ...]) -> Known:
    """The arguments of the program, checked."""
    traced = net._traced
    leaves = _checked(params, {path: value.shape for path, value in traced.leaves.items()})
    inputs, structure = jax.tree.flatten(xs)
    if structure != traced.inputs_tree:
        raise ValueError(f"The inputs have the structure {structure}, traced was {traced.inputs_tree}.")
    args = [*leaves.items(), *((f"Input {number}", x) for number, x in enumerate(inputs))]
    for (name, array), value in zip(args, traced.program.ins, strict=True):
        if np.shape(array) != value.shape:
            raise ValueError(
                f"{name} has shape {np.shape(array)}; the function was traced with {value.shape}: trace it with the "
                "batch that is evaluated."
            )
        _check_dtype(name, array, value)
    return {id(value): array for (_, array), value in zip(args, traced.program.ins, strict=True)}


def _read(sizes: Sizes, made: Known, before: Known, value: Value) -> Any:
    """What the same replay made, or the kept part of what is there at full size."""
    if id(value) not in made:
        made[id(value)] = sizes.take(value, before.get(id(value), value.const))
    return made[id(value)]


def _run(steps: Sequence[Step], sizes: Sizes, before: Known) -> Known:
    """Runs some steps on what is known at full size; returns what they make."""
    made: Known = {}
    for step in steps:
        outs = _apply(step, sizes, [_read(sizes, made, before, value) for value in step.ins])
        made.update((id(value), out) for value, out in zip(step.outs, outs, strict=True))
    return made


def _results(net: Net, sizes: Sizes, made: Known, before: Known) -> Any:
    outs = [_read(sizes, made, before, value) for value in net._traced.program.outs]
    return jax.tree.unflatten(net._traced.outputs_tree, outs)


def _masked_by(step: Step) -> set[str]:
    """The groups whose masks a step applies, in its bodies as well."""
    found = {name for _, _, term in _joined(step) for name in term.names}
    for body in step.bodies:
        walk(body, lambda inner, *_: found.update(n for _, _, term in _joined(inner) for n in term.names))
    return found


def _stages(prog: Program, order: Mapping[str, int]) -> tuple[list[Step], list[Step], list[Step]]:
    """Steps by the masks that they depend on: none, those of order 1 only, and the rest."""
    stages: tuple[list[Step], list[Step], list[Step]] = ([], [], [])
    made: dict[int, int] = {}
    for step in prog.steps:
        own = [order.get(name, 0) for name in _masked_by(step)]
        stage = max([*own, *(made.get(id(value), 0) for value in step.ins)], default=0)
        made.update((id(value), stage) for value in step.outs)
        stages[stage].append(step)
    return stages


def _read_later(prog: Program, steps: Sequence[Step], later: Sequence[Step]) -> list[int]:
    """What some steps give that later ones, or the caller, read."""
    read = {id(value) for step in later for value in step.ins} | {id(value) for value in prog.outs}
    return [id(value) for step in steps for value in step.outs if id(value) in read]


def _check_masks(net: Net, masks: Mapping[str, Any], rank: int) -> None:
    sizes = {group.name: group.size for group in net.groups}
    if not isinstance(masks, Mapping):
        raise ValueError(f"masks is a {type(masks).__name__}: give a dictionary from group name to array.")
    for name, mask in masks.items():
        if name not in sizes:
            raise ValueError(f"masks names {name!r}, which is no group. Groups: {', '.join(sizes) or 'none'}.")
        shape = np.shape(mask)
        if len(shape) != rank or shape[-1] != sizes[name]:
            wanted = f"({sizes[name]},)" if rank == 1 else f"(population, {sizes[name]})"
            raise ValueError(f"The mask of {name} has shape {shape}; it must be {wanted}.")
        if not jnp.issubdtype(jax.dtypes.result_type(mask), jnp.floating):
            raise ValueError(f"The mask of {name} is {jax.dtypes.result_type(mask)}: give floats, 1 to keep a member.")


def _check_population(net: Net, masks: Mapping[str, Any], members: Mapping[str, Any], shared: Shared | None) -> int:
    """The number of members."""
    _check_slots(net, masks, members)
    _check_masks(net, {name: mask for name, mask in masks.items() if name not in members} if members else masks, 2)
    counts = {name: np.shape(mask)[0] for name, mask in masks.items()}
    if shared is not None:
        _check_masks(net, shared.masks, 2)
        for name in shared.masks:
            if name in masks:
                raise ValueError(f"The masks of {name} are given twice, shared and not: leave one of them out.")
        if len({np.shape(mask)[0] for mask in shared.masks.values()}) != 1:
            raise ValueError("The shared masks need one number of rows, the same for every group.")
        counts["shared.which"] = np.shape(shared.which)[0]
    if len(set(counts.values())) != 1 or not all(counts.values()):
        raise ValueError(f"The masks have no common population of at least 1: {counts or 'there are none'}.")
    return next(iter(counts.values()))


def _check_slots(net: Net, filled: Mapping[str, Any], members: Mapping[str, Any]) -> None:
    sizes = {group.name: group.size for group in net.groups}
    for name, index in members.items():
        if name not in sizes or name not in filled:
            lacks = "which is no group" if name not in sizes else "but not which are filled"
            raise ValueError(f"The slots have members of {name!r}, {lacks}. Groups: {', '.join(sizes) or 'none'}.")
        shape = np.shape(index)
        if len(shape) != 2 or shape != np.shape(filled[name]) or not 0 < shape[1] <= sizes[name]:
            raise ValueError(
                f"The slots of {name} have shapes {shape} and {np.shape(filled[name])}; both must be (population, "
                f"slots), with 1 to {sizes[name]} slots."
            )
        if not jnp.issubdtype(jax.dtypes.result_type(index), jnp.integer):
            raise ValueError(f"The members of {name} are {jax.dtypes.result_type(index)}: give whole numbers.")
