"""Coupled groups: the slices of several leaves that live or die together.

Removing channel c of a convolution removes a column of its kernel, an entry of its bias and of the normalization after
it, and the rows of every kernel that reads it.  A *coupled group* lists those places for all channels of one kind: it
has `size` *members* to remove, and each place is a leaf, an axis of it, and an index that says for every position of
that axis which member it belongs to (-1: none).  A member may hold several positions, as after a flattening.

`compressjax.channels` finds such groups in a traced network; here they are plain data, known by their attributes only.
What counts as a kernel: a leaf with more axes than *outputs*.  These are its last axis, unless a rule says otherwise: 2
for the last two, as of attention kernels (in, heads, width); -1 for the first, as of kernels (out, in) and OIHW.  On
these its members are produced, on the others they are read; biases, scales and statistics, which have nothing but
output axes, do neither.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from compressjax import trees


@runtime_checkable
class MemberLike(Protocol):
    """One place of a coupled group: a leaf, an axis of it, and whose position each is."""

    @property
    def path(self) -> str:
        """Path of the leaf."""
        ...

    @property
    def axis(self) -> int:
        """Axis of the leaf, from 0."""
        ...

    @property
    def index(self) -> Int[np.ndarray, " length"]:
        """Member number of every position of the axis, -1 for none."""
        ...


@runtime_checkable
class GroupLike(Protocol):
    """A coupled group: `size` members, found at several places."""

    @property
    def name(self) -> str:
        """Name, different from the other groups'."""
        ...

    @property
    def size(self) -> int:
        """How many members there are."""
        ...

    @property
    def members(self) -> Sequence[MemberLike]:
        """The places."""
        ...


@dataclass(frozen=True, eq=False)
class _Member:
    path: str
    axis: int
    index: Int[np.ndarray, " length"]


@dataclass(frozen=True, eq=False)
class _Group:
    name: str
    size: int
    members: tuple[_Member, ...]


def whole(name: str, tree: trees.Tree, *patterns: str) -> GroupLike:
    """One group with a single member that is all of some leaves: a layer, or a residual branch.

    Args:
      name: Name of the group.
      tree: Parameters; only shapes are read.
      patterns: Globs of the leaves.

    Returns:
      The group, of size 1.

    Raises:
      ValueError: If a pattern matches no leaf or a scalar.

    >>> branch = whole("block1", {"conv": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}, "conv/*")
    >>> branch.size, [(member.path, member.axis, member.index.tolist()) for member in branch.members]
    (1, [('conv/bias', 0, [0, 0]), ('conv/kernel', 0, [0, 0, 0])])
    """
    shapes = trees.shapes(tree)
    chosen = trees.assign({pattern: True for pattern in patterns}, tree)
    for path in chosen:
        if not shapes[path]:
            raise ValueError(f"Group {name!r}: {path!r} is a scalar, which has no axis to remove: leave it out.")
    return _Group(name, 1, tuple(_Member(path, 0, np.zeros(shapes[path][0], np.int32)) for path in chosen))


def under(groups: Iterable[GroupLike], key: str) -> tuple[GroupLike, ...]:
    """The places below one key of the tree, with paths that start there.

    A network traced on ``{"params": ..., "batch_stats": ...}`` has groups on both; its optimizer sees the parameters
    only, ``under(groups, "params")``.

    Args:
      groups: Coupled groups.
      key: First part of the paths to keep, or several parts joined by ``/``.

    Returns:
      The groups that have such places, with these alone.

    Raises:
      ValueError: If no place lies below `key`, or `groups` is no sequence of groups.

    >>> group = whole("all", {"params": {"w": jnp.ones(2)}, "stats": {"m": jnp.ones(2)}}, "*")
    >>> [member.path for member in under([group], "params")[0].members]
    ['w']
    """
    prefix = key + "/"
    chosen = [_keep(group, lambda m: m.path.startswith(prefix)) for group in listed(groups)]
    if not any(group.members for group in chosen):
        raise ValueError(f"No group has a place below the key {key!r}.")
    short = lambda m: _Member(m.path.removeprefix(prefix), m.axis, m.index)  # noqa: E731
    return tuple(_Group(g.name, g.size, tuple(map(short, g.members))) for g in chosen if g.members)


def matching(groups: Iterable[GroupLike], *patterns: str) -> tuple[GroupLike, ...]:
    """The places on leaves that match one of the globs.

    Args:
      groups: Coupled groups.
      patterns: Globs of leaf paths, such as ``"*/scale"``.

    Returns:
      The groups that have such places, with these alone.

    Raises:
      ValueError: If a pattern matches no place, or `groups` is no sequence of groups.

    >>> group = whole("all", {"norm": {"scale": jnp.ones(2), "bias": jnp.ones(2)}}, "*")
    >>> [member.path for member in matching([group], "*/scale")[0].members]
    ['norm/scale']
    """
    groups = listed(groups)
    for pattern in patterns:
        if not any(fnmatchcase(member.path, pattern) for group in groups for member in group.members):
            raise ValueError(f"No group has a place on {pattern!r}.")
    chosen = [_keep(group, lambda m: any(fnmatchcase(m.path, pattern) for pattern in patterns)) for group in groups]
    return tuple(group for group in chosen if group.members)


def producers(
    groups: Iterable[GroupLike], tree: trees.Tree, *, outputs: trees.Rules[int] | None = None
) -> tuple[GroupLike, ...]:
    """The places where kernels make the members: the output axes of leaves that have other axes too.

    Args:
      groups: Coupled groups.
      tree: Parameters; only shapes are read.
      outputs: Glob to how many last axes of a leaf are outputs, or minus how many first ones: 1 where no rule applies,
        as for Flax kernels (in, out) and HWIO; -1 for the kernels (out, in) and OIHW of PyTorch and Equinox.

    Returns:
      The same groups, with these places alone.

    Raises:
      ValueError: If a group has none, a rule has no effect, or its number is 0 or more than a leaf has axes.

    >>> from compressjax.projections import whole
    >>> params = {"fc": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}
    >>> group = _Group("fc", 2, (_Member("fc/kernel", 1, np.arange(2)), _Member("fc/bias", 0, np.arange(2))))
    >>> [(member.path, member.axis) for member in producers([group], params)[0].members]
    [('fc/kernel', 1)]
    >>> params = {"fc": {"weight": jnp.ones((2, 3))}, "out": {"weight": jnp.ones((4, 2))}}
    >>> group = _Group("fc", 2, (_Member("fc/weight", 0, np.arange(2)), _Member("out/weight", 1, np.arange(2))))
    >>> [(member.path, member.axis) for member in producers([group], params, outputs={"*/weight": -1})[0].members]
    [('fc/weight', 0)]
    """
    return _sided(groups, tree, outputs, True, "produces")


def readers(
    groups: Iterable[GroupLike], tree: trees.Tree, *, outputs: trees.Rules[int] | None = None
) -> tuple[GroupLike, ...]:
    """The places where kernels read the members: the axes of kernels that are no output axes.

    Arguments, result and errors as for `producers`.

    >>> params = {"fc1": {"kernel": jnp.ones((3, 2))}, "fc2": {"kernel": jnp.ones((2, 4))}}
    >>> places = (_Member("fc1/kernel", 1, np.arange(2)), _Member("fc2/kernel", 0, np.arange(2)))
    >>> [(member.path, member.axis) for member in readers([_Group("fc1", 2, places)], params)[0].members]
    [('fc2/kernel', 0)]
    """
    return _sided(groups, tree, outputs, False, "reads")


def _sided(
    groups: Iterable[GroupLike],
    tree: trees.Tree,
    outputs: trees.Rules[int] | None,
    produced: bool,
    verb: str,
) -> tuple[GroupLike, ...]:
    shapes = trees.shapes(tree)
    made = output_axes(tree, outputs)
    kept = []
    for group in listed(groups):
        check_group(group, shapes)
        kept.append(
            _keep(group, lambda m: len(made[m.path]) < len(shapes[m.path]) and (m.axis in made[m.path]) == produced)
        )
        if not kept[-1].members:
            raise ValueError(
                f"No kernel {verb} the members of group {group.name!r} ({_places(group)}): leave the group out, or say "
                "with outputs={...} how many last axes of a leaf are outputs (-1: its first axis)."
            )
    return tuple(kept)


def output_axes(tree: trees.Tree, outputs: trees.Rules[int] | None) -> dict[str, range]:
    """The axes of every leaf that are outputs; arguments and errors as for `producers`.

    >>> output_axes({"query": jnp.ones((6, 3, 2)), "weight": jnp.ones((4, 6))}, {"query": 2, "weight": -1})
    {'query': range(1, 3), 'weight': range(0, 1)}
    """
    ruled = trees.assign(outputs, tree) if outputs else {}
    return {path: _output_axes(path, len(shape), ruled.get(path, 1)) for path, shape in trees.shapes(tree).items()}


def _output_axes(path: str, axes: int, outputs: Any) -> range:
    if isinstance(outputs, bool) or not isinstance(outputs, (int, np.integer)) or not outputs:
        raise ValueError(
            f"outputs of {path} is {outputs!r}: give how many of its last axes are outputs, or minus how many of its "
            "first axes."
        )
    number = int(outputs)
    if abs(number) > max(axes, 1):  # a scalar has none, and 1 is said of every leaf
        raise ValueError(f"outputs of {path} is {number}, but it has {axes} axes: let the rule match fewer leaves.")
    return range(max(axes - number, 0), axes) if number > 0 else range(min(-number, axes))


def _keep(group: GroupLike, wanted: Callable[[MemberLike], bool]) -> _Group:
    places = tuple(_Member(m.path, m.axis, m.index) for m in group.members if wanted(m))
    return _Group(group.name, group.size, places)


def _places(group: GroupLike) -> str:
    return ", ".join(f"{member.path} axis {member.axis}" for member in group.members)


def listed(groups: Any) -> tuple[GroupLike, ...]:
    """The groups as a tuple; raises `ValueError` if they are no sequence, as a `Net` is none."""
    if not isinstance(groups, Iterable):
        way = "pass its .groups" if hasattr(groups, "groups") else "pass a list of groups"
        raise ValueError(f"groups is a {type(groups).__name__}, no sequence of groups: {way}.")
    return tuple(groups)


def check_group(group: GroupLike, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises `ValueError` unless every place of the group fits its leaf."""
    if not group.members:
        raise ValueError(f"Group {group.name!r} has no places: leave it out.")
    for member in group.members:
        where = f"Group {group.name!r}, {member.path} axis {member.axis}"
        if member.path not in shapes:
            raise ValueError(f"{where}: no leaf has this path. Leaves: {', '.join(shapes)}.")
        shape = shapes[member.path]
        if not 0 <= member.axis < len(shape):
            raise ValueError(f"{where}: the leaf of shape {shape} has no such axis.")
        if len(member.index) != shape[member.axis]:
            raise ValueError(
                f"{where}: an index of {len(member.index)} positions does not fit shape {shape}: trace the network "
                "with these parameters."
            )
        if len(member.index) and not -1 <= np.min(member.index) <= np.max(member.index) < group.size:
            raise ValueError(f"{where}: the index must hold member numbers 0..{group.size - 1}, or -1 for none.")


def check_groups(groups: Iterable[GroupLike], known: Mapping[str, Array]) -> tuple[GroupLike, ...]:
    """The groups, after checking that they fit floating-point leaves and have different names."""
    groups = listed(groups)
    shapes = trees.shapes(known)
    names = [group.name for group in groups]
    for group in groups:
        if names.count(group.name) > 1:
            raise ValueError(f"Two groups have the name {group.name!r}: results go by name, so rename one of them.")
        check_group(group, shapes)
        for member in group.members:
            if not jnp.issubdtype(known[member.path].dtype, jnp.floating):
                raise ValueError(
                    f"Group {group.name!r}: {member.path} holds {known[member.path].dtype}, no floating-point numbers: "
                    "select other places, as with `matching`."
                )
    return groups


def entries(group: GroupLike, shapes: Mapping[str, tuple[int, ...]]) -> Int[np.ndarray, " size"]:
    """How many numbers belong to each member, over all places."""
    total = np.zeros(group.size, np.int64)
    for member in group.members:
        rest = int(np.prod(shapes[member.path], dtype=np.int64)) // max(1, len(member.index))
        total += rest * np.bincount(member.index[member.index >= 0], minlength=group.size)
    return total


def member_sums(
    function: Callable[..., Array], group: GroupLike, *dictionaries: Mapping[str, Array]
) -> Float[Array, " size"]:
    """Sums ``function(leaf, ...)`` over everything that belongs to each member.

    Args:
      function: Elementwise, of as many arrays as there are dictionaries; defined at module level, because it is static
        under compilation.
      group: The group.
      dictionaries: Leaf dictionaries.

    Returns:
      (size,), float32 or wider.
    """
    parts = [
        _sum(
            tuple(leaves[member.path] for leaves in dictionaries),
            jnp.asarray(member.index, jnp.int32),
            function=function,
            axis=member.axis,
            size=group.size,
        )
        for member in group.members
    ]
    return sum(parts[1:], parts[0])


# One program per shape, which calls outside `jit` share.
@partial(jax.jit, static_argnames=("function", "axis", "size"))
def _sum(
    arrays: tuple[Array, ...], index: Int[Array, " length"], *, function: Callable[..., Array], axis: int, size: int
) -> Float[Array, " size"]:
    wide = [x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in arrays]
    values = function(*wide)
    line = jnp.sum(values, axis=tuple(other for other in range(values.ndim) if other != axis))
    # Positions of no member go to a bin of their own: a negative index would count from the end.
    return jax.ops.segment_sum(line, jnp.where(index < 0, size, index), size + 1)[:size]


def spread(values: Float[Array, " size"], member: MemberLike, ndim: int) -> Float[Array, "..."]:
    """One number per member laid out along its axis, 1 where there is no member; other axes have length 1."""
    padded = jnp.append(values, jnp.ones((), values.dtype))
    along = padded[np.where(member.index < 0, len(values), member.index)]
    return along.reshape([-1 if axis == member.axis else 1 for axis in range(ndim)])
