"""The algebra of axes: an axis is an unknown of known size, a product of axes (row-major) or a concatenation of axes.

Every primitive of a program is a handful of equations between axes.  `unify` solves them one by one, in any order, as
in type inference; the unknowns that are left over are the channel groups::

    cut(d, t):     d == left of size t ++ right
    divide(d, t):  d == outer of size t x inner
    unify(a, b):   a == b

Where two axes cannot be brought together, `Conflict` is raised and the caller freezes both.  A frozen axis is kept
whole, so that every equation on it holds; half-done refinements only tie more to it.  Sizes fall strictly with every
recursion, so that all of this ends.  Axes of size 1 are one shared constant, `ONE`, and take part in nothing.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

# A product cut across its outer factor is written out block by block; longer ones are given up.
_LONGEST_EXPANSION = 4096


class Conflict(Exception):
    """Two axes cannot be equal in the way the algebra expresses it; the caller freezes them and goes on."""


class Dim:
    """One axis: an atom, a product or a concatenation.

    Attributes:
      n: Size.
      kind: None for an atom, ``"prod"`` or ``"sum"``.
      parts: The factors, outermost first, or the pieces in order.
      frozen: Why an atom must be kept whole; its `str` is a clause.
      notes: What a reader of the group should know.
      ref: The axis that this one turned out to be.
    """

    __slots__ = ("frozen", "kind", "n", "notes", "parts", "ref")

    def __init__(self, n: int, kind: str | None = None, parts: Sequence["Dim"] = (), frozen: Any = None) -> None:
        self.n, self.kind, self.parts, self.frozen = int(n), kind, tuple(parts), frozen
        self.notes: frozenset[str] = frozenset()
        self.ref: Dim | None = None


ONE = Dim(1)


def new(n: int, frozen: Any = None, note: str | None = None) -> Dim:
    """A fresh atom of size `n`; `ONE` for size 1."""
    if n == 1:
        return ONE
    d = Dim(n, frozen=frozen)
    if note is not None:
        d.notes = frozenset({note})
    return d


def find(d: Dim) -> Dim:
    """The axis that `d` stands for."""
    root = d
    while root.ref is not None:
        root = root.ref
    while d.ref is not None:  # path compression
        d.ref, d = root, d.ref
    return root


def factors(d: Dim) -> list[Dim]:
    """The factors of an axis, outermost first, without those of size 1."""
    d = find(d)
    if d.kind == "prod":
        return [f for p in d.parts for f in factors(p)]
    return [d] if d.n != 1 else []


def segments(d: Dim) -> list[Dim]:
    """The pieces of an axis in order."""
    d = find(d)
    return [s for p in d.parts for s in segments(p)] if d.kind == "sum" else [d]


def atoms(d: Dim) -> list[Dim]:
    """The atoms below an axis, each once, in order of appearance."""
    d = find(d)
    if d.kind is None:
        return [d] if d.n != 1 else []
    return list(dict.fromkeys(a for p in d.parts for a in atoms(p)))


def prod(ds: Iterable[Dim]) -> Dim:
    """The product of axes, outermost first."""
    fs = [f for d in ds for f in factors(d)]
    return ONE if not fs else fs[0] if len(fs) == 1 else Dim(math.prod(f.n for f in fs), "prod", fs)


def dsum(ds: Sequence[Dim]) -> Dim:
    """The concatenation of axes, without empty ones."""
    ds = [d for d in ds if d.n] or list(ds[:1])
    return find(ds[0]) if len(ds) == 1 else Dim(sum(d.n for d in ds), "sum", ds)


def freeze(d: Dim, why: Any) -> None:
    """Marks every atom below `d` as kept whole; the first reason stays."""
    for a in atoms(d):
        if a.frozen is None:
            a.frozen = why


def note(d: Dim, text: str) -> None:
    """Adds a note to every atom below `d`."""
    for a in atoms(d):
        a.notes |= {text}


def _fresh_like(d: Dim, n: int) -> Dim:
    part = new(n, frozen=d.frozen)
    if part is not ONE:
        part.notes = d.notes
    return part


def cut(d: Dim, t: int) -> tuple[Dim, Dim]:
    """Splits an axis into its first `t` positions, 0 < t < n, and the rest."""
    d = find(d)
    if d.kind is None:
        d.kind, d.parts = "sum", (_fresh_like(d, t), _fresh_like(d, d.n - t))
        return d.parts[0], d.parts[1]
    if d.kind == "sum":
        segs, start = segments(d), 0
        for i, s in enumerate(segs):
            if start == t:
                return dsum(segs[:i]), dsum(segs[i:])
            if start + s.n > t:
                a, b = cut(s, t - start)
                return dsum([*segs[:i], a]), dsum([b, *segs[i + 1 :]])
            start += s.n
    p0, *rest = factors(d)
    inner = math.prod(f.n for f in rest)
    if t % inner == 0:
        a, b = cut(p0, t // inner)
        return prod([a, *rest]), prod([b, *rest])
    if p0.n > _LONGEST_EXPANSION:
        raise Conflict(f"position {t} lies inside one of {p0.n} blocks")
    freeze(p0, "a slice or concatenation ends inside one of its blocks")
    return cut(dsum([prod(rest)] * p0.n), t)


def divide(d: Dim, t: int) -> tuple[Dim, Dim]:
    """Splits an axis into an outer factor of size `t` and an inner one."""
    d = find(d)
    if d.n % t:
        raise Conflict(f"{d.n} does not split by {t}")
    u = d.n // t
    if t == 1 or u == 1:
        return (ONE, d) if t == 1 else (d, ONE)
    if d.kind is None:
        d.kind, d.parts = "prod", (_fresh_like(d, t), _fresh_like(d, u))
        return d.parts[0], d.parts[1]
    if d.kind == "prod":
        outer, inner, left = [], [], t
        for f in factors(d):
            if left == 1:
                inner.append(f)
            elif left % f.n == 0:
                outer.append(f)
                left //= f.n
            else:
                o, i = divide(f, left)
                outer.append(o)
                inner.append(i)
                left = 1
        return prod(outer), prod(inner)
    if any(s.n % u for s in segments(d)):  # unlike parts share one axis: only the inner factor stays free
        block, rest = cut(d, u)
        while rest.n > u:
            piece, rest = cut(rest, u)
            unify(block, piece)
        unify(block, rest)
        return Dim(t, frozen="blocks of unlike parts share one axis"), block
    split = [divide(s, s.n // u) for s in segments(d)]
    for _, i in split[1:]:
        unify(split[0][1], i)
    return dsum([o for o, _ in split]), split[0][1]


def unify(a: Dim, b: Dim) -> None:
    """Makes two axes one, or raises `Conflict`."""
    a, b = find(a), find(b)
    if a is b:
        return
    if a.n != b.n:
        raise Conflict(f"sizes {a.n} and {b.n} differ")
    if a.n == 1:
        return
    if b.kind is None:
        a, b = b, a
    if a.kind is None:  # an unknown takes the other's value
        a.ref = b
        if a.frozen is not None:
            freeze(b, a.frozen)
        for text in a.notes:
            note(b, text)
    elif "sum" in (a.kind, b.kind):  # the boundaries of a concatenation are laid on the other axis
        if a.kind != "sum":
            a, b = b, a
        *first, last = segments(a)
        for s in first:
            left, b = cut(b, s.n)
            unify(s, left)
        unify(last, b)
    else:  # two products: their common refinement, from the outside in
        fa, fb = factors(a), factors(b)
        while fa and fb:
            x, y = find(fa[0]), find(fb[0])
            if x.kind == "prod":
                fa[:1] = factors(x)
            elif y.kind == "prod":
                fb[:1] = factors(y)
            elif x.n >= y.n:
                o, i = divide(x, y.n)
                unify(o, y)
                fa[:1] = factors(i)
                del fb[0]
            else:
                o, i = divide(y, x.n)
                unify(x, o)
                fb[:1] = factors(i)
                del fa[0]


def same(a: Dim, b: Dim, why: Any = None) -> None:
    """Makes two axes one; where that fails, freezes both."""
    try:
        unify(a, b)
    except Conflict as conflict:
        for d in (a, b):
            freeze(d, why if why is not None else f"two ways of splitting it disagree: {conflict}")
