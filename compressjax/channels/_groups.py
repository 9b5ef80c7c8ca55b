"""What `trace` finds and `Net.shrink` returns: plain records."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from compressjax.channels._program import Program, Value
from compressjax.channels._terms import Term

Tree = Any


@dataclass(frozen=True)
class Member:
    """A place where a group occurs.

    Attributes:
      path: Leaf path.
      axis: Axis of the leaf.
      index: Read-only int32, per position of the axis the member number, or -1 where the group has none.
      term: What the whole axis consists of.

    >>> Member("fc/bias", 0, np.arange(3, dtype=np.int32), Term(3, "group", "g0"))
    Member(fc/bias, 0, g0)
    """

    path: str
    axis: int
    index: Int[np.ndarray, " positions"] = field(compare=False)
    term: Term

    def __repr__(self) -> str:
        return f"Member({self.path}, {self.axis}, {self.term})"


@dataclass(frozen=True)
class Group:
    """Channels that can only be removed together, everywhere they occur.

    Attributes:
      name: ``"g0"``, ``"g1"``, ... in the order in which the leaves meet them.
      size: How many there are.
      members: Where they occur.
      notes: What happens to it in the program beyond weights: constants sliced, sums over it, ...
      entries: How many parameters one of them holds, at full width of all other groups.

    >>> Group("g0", 4, (), ())
    Group(name='g0', size=4, members=(), notes=(), entries=0)
    """

    name: str
    size: int
    members: tuple[Member, ...]
    notes: tuple[str, ...]
    entries: int = 0


@dataclass(frozen=True)
class Shrunk:
    """What `Net.shrink` returns.

    Attributes:
      params: The smaller tree.
      widths: Path to (old shape, new shape) of every leaf that changed.
      keep: The keep set, complete and read-only.
      kept: Of every axis that lost something, by (path, axis), which of its old positions are still there: what
        `compressjax.zoo.Model.like` asks for.
      hazards: What a rebuilt module may get wrong, one sentence each; the replay gets it right.

    >>> Shrunk({}, {}, {}, {}, ()).hazards
    ()
    """

    params: Tree
    widths: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    keep: Mapping[str, Bool[np.ndarray, " members"]]
    kept: Mapping[tuple[str, int], Bool[np.ndarray, " old"]]
    hazards: tuple[str, ...]


@dataclass(frozen=True)
class Traced:
    """What a net remembers of its function."""

    program: Program
    leaves: Mapping[str, Value]  # values of the parameter leaves
    inputs: tuple[tuple[int, ...], ...]  # shapes of the leaves of xs
    inputs_tree: Any
    params_tree: Any
    outputs_tree: Any
