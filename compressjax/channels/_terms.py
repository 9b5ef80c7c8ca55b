"""Terms: what an axis consists of once all equations are solved.

A term is a fixed size, a group, a product of terms (row-major) or a concatenation of terms: ``4*4*g1`` after a
flattening, ``g0+g1+g2`` after concatenations, ``g3*g4`` for heads times width.  Everything that surgery and cost
accounting need follows from it: the kept positions, the member number at every position, the size at other widths.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int

from compressjax.channels._dims import Dim, find


@dataclass(frozen=True)
class Term:
    """What one axis consists of.

    Attributes:
      size: Its size in the traced program.
      kind: ``"fixed"`` (never cut), ``"group"``, ``"product"`` (row-major, outermost first) or ``"sum"``.
      name: The group's name.
      parts: Factors or pieces.

    >>> heads, width = Term(2, "group", "g0"), Term(3, "group", "g1")
    >>> axis = Term(6, "product", parts=(heads, width))
    >>> str(axis), axis.at({"g0": 1}), axis.names
    ('g0*g1', 3, ('g0', 'g1'))
    >>> axis.mask({"g1": np.array([True, False, True])}).astype(int).tolist()
    [1, 0, 1, 1, 0, 1]
    """

    size: int
    kind: Literal["fixed", "group", "product", "sum"] = "fixed"
    name: str = ""
    parts: tuple["Term", ...] = ()

    def __str__(self) -> str:
        if self.kind in ("fixed", "group"):
            return self.name or str(self.size)
        if self.kind == "sum":
            return "+".join(map(str, self.parts))
        return "*".join(f"({p})" if p.kind == "sum" else str(p) for p in self.parts)

    @property
    def names(self) -> tuple[str, ...]:
        """The groups in it, each once, in order of appearance."""
        if self.kind == "group":
            return (self.name,)
        return tuple(dict.fromkeys(name for part in self.parts for name in part.names))

    def at(self, widths: Mapping[str, Any]) -> Any:
        """Its size at other widths: sums and products of the group sizes.

        Args:
          widths: Group name to width; integers, NumPy or JAX arrays, traced or not, of one shape.  A group without
            entry has its traced size.

        Returns:
          The size, of the type and shape of the widths.
        """
        if self.kind == "fixed":
            return self.size
        if self.kind == "group":
            return widths.get(self.name, self.size)
        sizes = [part.at(widths) for part in self.parts]
        return sum(sizes[1:], sizes[0]) if self.kind == "sum" else math.prod(sizes[1:], start=sizes[0])

    def mask(self, keep: Mapping[str, Any]) -> Bool[np.ndarray, " size"]:
        """Which positions stay: concatenated over a sum, the outer AND over a product."""
        if self.kind == "fixed" or (self.kind == "group" and self.name not in keep):
            return np.ones(self.size, bool)
        if self.kind == "group":
            return np.asarray(keep[self.name])
        masks = [part.mask(keep) for part in self.parts]
        if self.kind == "sum":
            return np.concatenate(masks)
        out = masks[0]
        for mask in masks[1:]:
            out = np.logical_and.outer(out, mask).reshape(-1)
        return out

    def index(self, name: str) -> list[Int[np.ndarray, " size"]]:
        """The member number of a group at every position, -1 where it has none; int32.

        Returns:
          One vector; none if the group does not occur; more only where a group is multiplied with itself, so that one
          position belongs to several members.
        """
        if self.kind == "group" and self.name == name:
            return [np.arange(self.size, dtype=np.int32)]
        if self.kind == "sum":
            pieces = [part.index(name) for part in self.parts]
            nothing = [np.full(part.size, -1, np.int32) for part in self.parts]
            return [
                np.concatenate([blank if piece is None else piece for piece, blank in zip(row, nothing, strict=True)])
                for row in itertools.zip_longest(*pieces)
            ]
        if self.kind != "product":
            return []
        out, outer = [], 1
        for part in self.parts:
            inner = self.size // (outer * part.size)
            out += [np.tile(np.repeat(vector, inner), outer) for vector in part.index(name)]
            outer *= part.size
        return out


def solved(d: Dim, names: Mapping[Dim, str], memo: dict[Dim, Term]) -> Term:
    """The term of a solved axis; atoms without a name are fixed.

    Args:
      d: The axis.
      names: Atom to group name.
      memo: Terms already made, shared over a program.
    """
    d = find(d)
    term = memo.get(d)
    if term is None:
        if d.kind is None:
            term = Term(d.n, "group", names[d]) if d in names else Term(d.n)
        else:
            kind: Literal["product", "sum"] = "sum" if d.kind == "sum" else "product"
            parts = tuple(solved(p, names, memo) for p in d.parts)
            # Written flat: a sum of sums is a sum, and pieces of one fixed part are one.
            parts = tuple(
                q for p in parts for q in (p.parts if p.kind == kind else (p,)) if kind == "sum" or q.size > 1
            )
            term = Term(d.n) if all(p.kind == "fixed" for p in parts) else Term(d.n, kind, parts=parts)
        memo[d] = term
    return term
