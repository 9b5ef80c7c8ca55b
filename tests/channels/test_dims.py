"""The algebra of axes against its meaning: whatever is kept, every equation holds between the masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressjax.channels._dims import (
    ONE,
    Conflict,
    Dim,
    atoms,
    cut,
    divide,
    dsum,
    factors,
    freeze,
    new,
    prod,
    same,
    unify,
)
from compressjax.channels._terms import Term, solved


def spelled(*dims):
    """Terms with letters in order of appearance."""
    names = {}
    for a in (a for d in dims for a in atoms(d)):
        if a.frozen is None:
            names.setdefault(a, "abcdefgh"[len(names)])
    return [str(solved(d, names, {})) for d in dims]


def test_a_cut_splits_an_atom_and_falls_on_its_boundary_again():
    d = new(6)
    left, right = cut(d, 2)
    again = cut(d, 2)
    assert (left.n, right.n) == (2, 4)
    assert spelled(d, left, right, *again) == ["a+b", "a", "b", "a", "b"]


def test_a_divided_atom_is_a_product():
    d = new(6)
    outer, inner = divide(d, 2)
    assert spelled(d, outer, inner) == ["a*b", "a", "b"]


def test_a_product_is_cut_between_its_blocks():
    a, b = new(4), new(3)
    d = prod([a, b])
    left, right = cut(d, 6)
    assert spelled(d, left, right) == ["(a+b)*c", "a*c", "b*c"]


def test_a_cut_inside_a_block_keeps_the_blocks_whole():
    a, b = new(3), new(4)
    left, right = cut(prod([a, b]), 2)
    assert spelled(a, b, left, right) == ["3", "a+b", "a", "b+a+b+a+b"]


def test_a_concatenation_is_divided_piece_by_piece():
    a, b = new(4), new(6)
    outer, inner = divide(dsum([a, b]), 5)
    assert spelled(a, b, outer, inner) == ["a*b", "c*b", "a+c", "b"]


def test_unlike_pieces_share_the_inner_factor_only():
    d = dsum([new(2), new(4)])
    outer, inner = divide(d, 2)
    assert spelled(d, outer, inner) == ["a+1+a+1", "2", "a+1"]


def test_products_meet_in_their_common_refinement():
    a, b, c, d = new(4), new(6), new(2), new(12)
    unify(prod([a, b]), prod([c, d]))
    assert spelled(a, b, c, d) == ["a*b", "c", "a", "b*c"]


def test_sums_meet_in_their_common_refinement():
    a, b, c, d = new(3), new(5), new(4), new(4)
    unify(dsum([a, b]), dsum([c, d]))
    assert spelled(a, b, c, d) == ["a", "1+b", "a+1", "b"]


def test_sizes_that_do_not_divide_conflict_and_are_frozen():
    a, b, c, d = new(4), new(9), new(6), new(6)
    with pytest.raises(Conflict, match="does not split"):
        unify(prod([a, b]), prod([c, d]))
    same(prod([a, b]), prod([c, d]), "why")
    assert all(x.frozen is not None for e in (a, b, c, d) for x in atoms(e))


def test_equal_sizes_alone_tie_nothing():
    a, b = new(4), new(4)
    unify(prod([a, new(2)]), prod([new(4), new(2)]))
    assert spelled(a, b) == ["a", "b"]


def test_freezing_and_notes_follow_the_atoms():
    a, b = new(4, note="constant"), new(4)
    left, _ = cut(a, 1)
    assert left is ONE
    unify(a, b)
    assert all("constant" in x.notes for x in atoms(b))
    freeze(b, "first")
    freeze(a, "second")
    assert {x.frozen for x in atoms(a)} == {"first"}
    c = new(4)
    unify(c, a)
    assert {x.frozen for x in atoms(c)} == {"first"}


def test_size_one_takes_part_in_nothing():
    assert new(1, frozen="x") is ONE
    assert prod([ONE, ONE]) is ONE
    assert factors(prod([ONE, a := new(3)])) == [a]


def test_a_term_multiplied_with_itself_has_two_members_per_position():
    a = Term(2, "group", "g0")
    square = Term(4, "product", parts=(a, a))
    assert [v.tolist() for v in square.index("g0")] == [[0, 0, 1, 1], [0, 1, 0, 1]]
    assert square.mask({"g0": np.array([True, False])}).tolist() == [True, False, False, False]
    assert square.index("g1") == []


def test_the_index_of_a_nested_term():
    a, b, c = (Term(n, "group", name) for n, name in ((2, "a"), (3, "b"), (2, "c")))
    term = Term(10, "product", parts=(Term(5, "sum", parts=(a, b)), c))
    assert str(term) == "(a+b)*c"
    assert term.index("b")[0].tolist() == [-1, -1, -1, -1, 0, 0, 1, 1, 2, 2]
    assert term.index("c")[0].tolist() == [0, 1] * 5
    assert term.at({"a": 1, "b": 1}) == 4


@st.composite
def equations(draw):
    """Random axes and pairs of sides: an axis, a product of two or three, a concatenation of two."""
    sizes = draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=4, max_size=7))
    numbers = st.lists(st.integers(0, len(sizes) - 1), min_size=1, max_size=3)
    sides = draw(st.lists(st.tuples(st.booleans(), numbers), min_size=4, max_size=10))
    return sizes, sides


def built(sides, dims):
    return [(prod if product else dsum)([dims[i] for i in numbers]) for product, numbers in sides]


def solve(sizes, sides, order):
    dims = [new(n) for n in sizes]
    values = built(sides, dims)
    pairs = [(a, b) for i, a in enumerate(values) for b in values[:i] if a.n == b.n]
    for k in order(len(pairs)):
        same(*pairs[k])
    for k in order(len(pairs)):
        same(*pairs[k])
    return dims, pairs


@settings(max_examples=150)
@given(equations(), st.randoms(use_true_random=False))
def test_whatever_is_kept_the_equations_hold(drawn, random):
    sizes, sides = drawn
    order = lambda n: random.sample(range(n), n)  # noqa: E731
    dims, pairs = solve(sizes, sides, order)
    free = {a: f"a{i}" for i, a in enumerate(dict.fromkeys(a for d in dims for a in atoms(d))) if a.frozen is None}
    rng = np.random.default_rng(random.randrange(1000))
    keep = {name: rng.random(a.n) < 0.5 for a, name in free.items()}
    memo: dict[Dim, Term] = {}
    for a, b in pairs:
        np.testing.assert_array_equal(solved(a, free, memo).mask(keep), solved(b, free, memo).mask(keep))
    assert all(sum(1 for _ in solved(d, free, memo).mask({})) == n for d, n in zip(dims, sizes, strict=True))
