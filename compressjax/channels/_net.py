"""The public face: trace a function, read its channel groups, remove members, mask them, replay without them.

`trace` turns ``f(params, *xs)`` into a jaxpr, gives every axis a term (`_rules`), freezes what may not be cut
(`_legal`), and names what is left: the groups.  Law 2 holds for every keep set::

    f(net.mask(params, keep), *xs) == net.replay(keep)(net.shrink(params, keep).params, *xs)
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool

from compressjax import trees
from compressjax.channels._compare import difference
from compressjax.channels._dims import atoms
from compressjax.channels._draw import picture, table
from compressjax.channels._groups import Group, Shrunk, Traced
from compressjax.channels._operations import Operation
from compressjax.channels._program import Program, Value, program
from compressjax.channels._replay import Sizes, run
from compressjax.channels._rules import is_float
from compressjax.channels._taps import chosen_taps
from compressjax.channels._terms import Term

Tree = Any
Keep = Mapping[str, Any]


@dataclass(frozen=True, eq=False, repr=False)
class Net:
    """A traced function and its channel groups.  Made by `trace`.

    Attributes:
      groups: The channel groups.
      operations: What the program does, axis sizes as terms; see `Operation`.
      axes: Leaf path to the terms of its axes.
      unused: Paths of leaves that the result does not depend on.

    >>> import jax.numpy as jnp
    >>> from compressjax import channels
    >>> params = {"a": jnp.ones((4, 8)), "b": jnp.ones((8, 2))}
    >>> net = channels.trace(lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"], params, jnp.ones((3, 4)))
    >>> net.groups[0].members, net.at("b", 0)
    ((Member(a, 1, g0), Member(b, 0, g0)), ('g0',))
    >>> net.why("a", 0)
    'a axis 0 is kept whole: it is an axis of the input.'
    """

    groups: tuple[Group, ...]
    operations: tuple[Operation, ...]
    axes: Mapping[str, tuple[Term, ...]]
    unused: tuple[str, ...]
    _traced: Traced

    def at(self, path: str, axis: int) -> tuple[str, ...]:
        """Names of the groups on one axis of a leaf, in order of appearance.

        Raises:
          ValueError: If there is no such leaf or axis.
        """
        return self._term(path, axis).names

    def why(self, path: str, axis: int) -> str:
        """One sentence: what an axis follows, or what keeps it whole.

        Raises:
          ValueError: If there is no such leaf or axis.
        """
        term = self._term(path, axis)
        if path in self.unused:
            return f"{path} is unused: the result does not depend on it."
        if term.size == 1:
            return f"{path} axis {axis} has size 1: there is nothing to remove."
        reasons = dict.fromkeys(str(a.frozen) for a in atoms(self._traced.leaves[path].dims[axis]) if a.frozen)
        if term.names:
            rest = f"; the rest is kept whole: {'; '.join(reasons)}" if reasons else ""
            return f"{path} axis {axis} follows {term}{rest}."
        return f"{path} axis {axis} is kept whole: {'; '.join(reasons) or 'it is made of single channels'}."

    def __str__(self) -> str:
        """The groups, where they occur, and why other axes are kept whole, as a table."""
        return table(self.groups, {path: [self.why(path, i) for i in range(len(t))] for path, t in self.axes.items()})

    def draw(self) -> str:
        """The leaves as strips, one per axis, coloured by group: an SVG image as text."""
        return picture(self.groups, self.axes)

    def _term(self, path: str, axis: int) -> Term:
        if path not in self.axes:
            raise ValueError(f"No leaf has the path {path!r}. Leaves: {', '.join(self.axes)}.")
        if not 0 <= axis < len(self.axes[path]):
            raise ValueError(f"{path} has {len(self.axes[path])} axes; there is no axis {axis}.")
        return self.axes[path][axis]

    def size(self, term: Term, widths: Mapping[str, Any]) -> Any:
        """The size of an axis at other widths; see `Term.at`.

        Args:
          term: From `axes` or `operations`.
          widths: Group name to width, of any numeric type; traced and batched arrays too.  Missing groups are whole.
        """
        return term.at(widths)

    def keep(self, keep: Keep) -> dict[str, Bool[np.ndarray, " members"]]:
        """The keep set checked, completed for all groups, as read-only NumPy.

        Raises:
          ValueError: If it names an unknown group, or a vector is not Boolean, of the wrong length, or keeps nothing.
        """
        if not isinstance(keep, Mapping):
            raise ValueError(f"keep is a {type(keep).__name__}: give a mapping from group name to Boolean vector.")
        sizes = {group.name: group.size for group in self.groups}
        for name in keep:
            if name not in sizes:
                raise ValueError(f"keep names {name!r}, which is no group. Groups: {', '.join(sizes) or 'none'}.")
        out = {}
        for group in self.groups:
            first = f"{group.name} ({group.members[0].path} axis {group.members[0].axis})"
            vector = np.array(keep[group.name]) if group.name in keep else np.ones(group.size, bool)
            if vector.dtype != bool:
                raise ValueError(f"keep of {first} is {vector.dtype}: give one Boolean per member, True to keep it.")
            if vector.shape != (group.size,):
                raise ValueError(f"keep of {first} has shape {vector.shape}, but the group has {group.size} members.")
            if not vector.any():
                raise ValueError(f"keep of {first} keeps nothing: leave at least one member.")
            vector.flags.writeable = False
            out[group.name] = vector
        return out

    def shrink(self, params: Tree, keep: Keep) -> Shrunk:
        """Removes members: smaller leaves.

        Works on the host in NumPy, so outside of `jit` and `grad`, and puts the leaves back at once.  Any tree of the
        same leaves will do: parameters, masks, optimizer moments, or `jax.ShapeDtypeStruct`.

        Args:
          params: A tree with the paths and shapes of the traced parameters.
          keep: Group name to Boolean vector over its members; a missing group stays whole.

        Returns:
          The smaller tree and what changed.

        Raises:
          ValueError: If `keep` or the shapes do not fit.
        """
        complete = self.keep(keep)
        sizes = Sizes(complete)
        changed: dict[str, Any] = {}
        widths: dict[str, Any] = {}
        kept: dict[tuple[str, int], Any] = {}
        for path, leaf in self._fitting(params).items():
            masks = [sizes.mask(term) for term in self.axes[path]]
            if all(mask.all() for mask in masks):
                continue
            shape = tuple(int(mask.sum()) for mask in masks)
            widths[path] = (tuple(leaf.shape), shape)
            kept |= {(path, axis): mask for axis, mask in enumerate(masks) if not mask.all()}
            if isinstance(leaf, jax.ShapeDtypeStruct):
                changed[path] = jax.ShapeDtypeStruct(shape, leaf.dtype)
                continue
            array = np.asarray(leaf)
            for axis, mask in enumerate(masks):
                if not mask.all():
                    array = array.compress(mask, axis)
            changed[path] = array
        cut = {name for name, vector in complete.items() if not vector.all()}
        hazards = tuple(
            f"{group.name} ({group.members[0].path} axis {group.members[0].axis}): {text}; a rebuilt module may differ."
            for group in self.groups
            if group.name in cut
            for text in group.notes
        )
        small = _put_back(params, changed)
        return Shrunk(small, MappingProxyType(widths), MappingProxyType(complete), MappingProxyType(kept), hazards)

    def mask(self, params: Tree, keep: Keep) -> Tree:
        """The masked twin of `shrink`: every slice of a removed member is zero, wherever the member occurs.

        Works on the host, as `shrink` does.  Integer leaves are left alone.

        Args:
          params: A tree with the paths and shapes of the traced parameters.
          keep: Group name to Boolean vector over its members; a missing group stays whole.

        Returns:
          The tree with zeros.

        Raises:
          ValueError: If `keep` or the shapes do not fit.
        """
        sizes = Sizes(self.keep(keep))
        changed: dict[str, Any] = {}
        for path, leaf in self._fitting(params).items():
            masks = [sizes.mask(term) for term in self.axes[path]]
            if all(mask.all() for mask in masks) or isinstance(leaf, jax.ShapeDtypeStruct) or not is_float(leaf.dtype):
                continue
            array = np.array(leaf)
            for axis, mask in enumerate(masks):
                array[(slice(None),) * axis + (~mask,)] = 0
            changed[path] = array
        return _put_back(params, changed)

    def replay(self, keep: Keep) -> Callable[..., Any]:
        """The shrunk function: the traced program with smaller sizes.

        Custom derivatives are not replayed; values are those of the traced function.

        Args:
          keep: Group name to Boolean vector over its members; a missing group stays whole.

        Returns:
          Pure ``g(small_params, *xs)`` with the result of ``f``; jit it at will.  It raises ValueError where the
          shapes are not those of ``shrink(params, keep).params`` and of the traced inputs.

        Raises:
          ValueError: If `keep` does not fit.
        """
        sizes = Sizes(self.keep(keep))
        traced = self._traced

        def replayed(params: Tree, *xs: Any) -> Any:
            return jax.tree.unflatten(
                traced.outputs_tree, run(traced.program, sizes, _given(traced, sizes, params, xs))
            )

        return replayed

    def taps(self, groups: Iterable[str] | None = None) -> Callable[..., dict[str, tuple[Any, ...]]]:
        """What the readers of the groups read: the traced program up to the operands that hold their channels.

        An operand counts if a dense layer or convolution sums over its channels, outside of loops.  The samples are
        axis 0 of the first input.  A residual stream is read in several places; every operand is given once.

        Args:
          groups: Names of groups; by default all that are read in this way, the others being left out.

        Returns:
          Pure ``g(params, *xs)`` for parameters and inputs of the traced shapes: group name to a tuple of arrays
          (samples, ..., members) in the order of the program; jit it at will.

        Raises:
          ValueError: If a name is no group, a named group is read nowhere in this way, or the first input has no axis
            of at least two samples.

        >>> import jax.numpy as jnp
        >>> from compressjax import channels
        >>> params = {"a": jnp.array([[1.0, -1.0]]), "b": jnp.ones((2, 1))}
        >>> x = jnp.array([[3.0], [-4.0]])
        >>> net = channels.trace(lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"], params, x)
        >>> net.taps()(params, x)["g0"][0].tolist()
        [[3.0, 0.0], [0.0, 4.0]]
        """
        traced, sizes = self._traced, Sizes(self.keep({}))
        found = chosen_taps(traced, self.groups, groups)
        outs = [tap.value for taps in found.values() for tap in taps]
        upto = Program(traced.program.ins, outs, traced.program.steps)

        def tapped(params: Tree, *xs: Any) -> dict[str, tuple[Any, ...]]:
            arrays = iter(run(upto, sizes, _given(traced, sizes, params, xs)))
            return {name: tuple(tap.see(next(arrays)) for tap in taps) for name, taps in found.items()}

        return tapped

    def check(self, rebuilt: Callable[..., Any], keep: Keep) -> None:
        """Compares a rebuilt function with the shrunk program, operation by operation; no numbers are needed.

        Args:
          rebuilt: ``rebuilt(small_params, *xs)`` for the parameters that `shrink` gives.
          keep: Group name to Boolean vector over its members; a missing group stays whole.

        Raises:
          ValueError: If the programs differ; the sentence names the first operation that does.
        """
        sizes, traced = Sizes(self.keep(keep)), self._traced
        spec = {path: jax.ShapeDtypeStruct(sizes.shape(v), v.dtype) for path, v in traced.leaves.items()}
        params = jax.tree.unflatten(traced.params_tree, list(spec.values()))
        inputs = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in traced.program.ins[len(spec) :]]
        xs = jax.tree.unflatten(traced.inputs_tree, inputs)
        closed, shape = jax.make_jaxpr(rebuilt, return_shape=True)(params, *xs)
        if jax.tree.structure(shape) != traced.outputs_tree:
            raise ValueError(f"The rebuilt function returns {jax.tree.structure(shape)}, not {traced.outputs_tree}.")
        found = difference(traced.program, sizes, program(closed))
        if found is not None:
            raise ValueError(f"The rebuilt function is another one: {found}.")

    def verify(
        self, params: Tree, xs: Sequence[Any], keep: Keep | None = None, *, f: Callable[..., Any] | None = None
    ) -> dict[str, float]:
        """Measures law 2 in numbers: the masked function against the replay of the shrunk one.

        Args:
          params: Parameters of the traced shapes.
          xs: The other arguments, as a sequence: ``(x,)`` for one.
          keep: The keep set to try; by default half of every group alone, under its name, and of all together.
          f: The function that was traced, to be called on masked parameters; by default the traced program itself.

        Returns:
          Relative Frobenius error of all results together, by group name or ``"keep"`` and ``"all"``.

        Raises:
          ValueError: If the function is not finite to begin with, or `keep` or the shapes do not fit.
        """
        if not isinstance(xs, (tuple, list)):
            raise ValueError("xs is the sequence of the other arguments: write (x,) for one.")
        whole = self.replay({}) if f is None else f
        if not all(np.isfinite(np.asarray(y)).all() for y in jax.tree.leaves(jax.jit(whole)(params, *xs))):
            raise ValueError("The function gives infinite or nan values before anything is removed.")
        half = {group.name: np.arange(group.size) % 2 == 0 for group in self.groups}
        sets = {"keep": keep} if keep is not None else {**{n: {n: v} for n, v in half.items()}, "all": half}
        masked = jax.jit(whole)
        out = {}
        for name, chosen in sets.items():
            small = self.shrink(params, chosen)
            left = self._cut(masked(self.mask(params, chosen), *xs), chosen)
            right = jax.tree.leaves(jax.jit(self.replay(chosen))(small.params, *xs))
            gap = sum(float(np.linalg.norm(a - wide(b))) ** 2 for a, b in zip(left, right, strict=True))
            size = sum(float(np.linalg.norm(a)) ** 2 for a in left)
            out[name] = float(np.sqrt(gap / size)) if size else float(np.sqrt(gap))
        return out

    def _cut(self, results: Any, keep: Keep) -> list[np.ndarray]:
        """Results in double precision; those that are state lose their removed channels."""
        sizes = Sizes(self.keep(keep))
        values = self._traced.program.outs
        return [sizes.take(v, wide(y)) for v, y in zip(values, jax.tree.leaves(results), strict=True)]

    def _fitting(self, params: Tree) -> dict[str, Any]:
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(params)):
            raise ValueError("shrink and mask work on the host: call them outside of jit, grad and vmap.")
        return _checked(params, {path: value.shape for path, value in self._traced.leaves.items()})


def _given(traced: Traced, sizes: Sizes, params: Tree, xs: tuple[Any, ...]) -> list[Any]:
    """The arguments of the program, if they are what it was traced with at the sizes that are left."""
    leaves = _checked(params, {path: sizes.shape(value) for path, value in traced.leaves.items()})
    for path, leaf in leaves.items():
        _check_dtype(path, leaf, traced.leaves[path])
    inputs, inputs_tree = jax.tree.flatten(xs)
    if inputs_tree != traced.inputs_tree:
        raise ValueError(f"The inputs have the structure {inputs_tree}, traced was {traced.inputs_tree}.")
    for number, (x, value) in enumerate(zip(inputs, traced.program.ins[len(leaves) :], strict=True)):
        if np.shape(x) != value.shape:
            raise ValueError(f"Input {number} has shape {np.shape(x)}; the function was traced with {value.shape}.")
        _check_dtype(f"Input {number}", x, value)
    return [*leaves.values(), *inputs]


def _checked(tree: Tree, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The leaves of a tree, if they have these paths and shapes."""
    leaves = trees.leaves(tree)
    for path in (*shapes, *leaves):
        if path not in leaves or path not in shapes:
            where = "the given parameters" if path not in leaves else "the traced parameters"
            raise ValueError(f"{where} have no leaf {path!r}: the net was traced for {', '.join(shapes)}.")
    for path, leaf in leaves.items():
        if np.shape(leaf) != shapes[path]:
            raise ValueError(f"{path} has shape {np.shape(leaf)}, but the net expects {shapes[path]} here.")
    return leaves


def _check_dtype(name: str, leaf: Any, value: Value) -> None:
    """The program computes in the dtypes of the trace; others would silently give other numbers."""
    dtype = (
        jax.dtypes.canonicalize_dtype(leaf.dtype, allow_extended_dtype=True)
        if hasattr(leaf, "dtype")
        else jax.dtypes.result_type(leaf)
    )
    if dtype != value.dtype:
        raise ValueError(f"{name} is {dtype}; the function was traced with {value.dtype}: cast it, or trace it anew.")


def _put_back(params: Tree, changed: dict[str, Any]) -> Tree:
    """The tree with changed leaves; those that were JAX arrays go to the device in one transfer."""
    before = trees.leaves(params)
    moved = [path for path in changed if isinstance(before[path], jax.Array)]
    arrays = jax.device_put([changed[path] for path in moved])
    return trees.update(params, {**changed, **dict(zip(moved, arrays, strict=True))})


def wide(array: Any) -> np.ndarray:
    """In double precision, real or complex."""
    array = np.asarray(array)
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)
