"""Programs as index arithmetic, formulas as programs and back, and variation that cannot leave the valid ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressjax.search import expressions as ex
from compressjax.search.expressions import PAPER, Language, Operator, Programs

LENGTH = 20
SMALL = ex.PAPER.only(["gP", "gQ", "mX"])


def row(formula, length=LENGTH, language=PAPER):
    return ex.stacked([ex.parse(formula, language)], length)


def simulated(tokens, language):
    """The definition, token by token: whether a program is whole, and the subtree that ends at each token."""
    stack, starts, ended = [], [], False
    for place, token in enumerate(tokens):
        if not 0 <= token < language.size:
            return False, []
        if token == 0:
            ended = True
            continue
        needs = int(language.arity[token])
        if ended or len(stack) < needs:
            return False, []
        operands = [stack.pop() for _ in range(needs)]
        starts.append(operands[-1] if operands else place)
        stack.append(starts[-1])
        if len(stack) > language.stack:
            return False, []
    return len(stack) == 1, starts


@jax.jit
def begins(tokens):
    return jax.vmap(ex.start, in_axes=(None, 0))(ex.heights(tokens), jnp.arange(len(tokens)))


@settings(max_examples=100)
@given(st.lists(st.sampled_from([0, 1, 5, 15, 16, 29, -1, 30]), min_size=6, max_size=6))
def test_validity_is_that_of_a_stack(tokens):
    assert bool(ex.valid(jnp.array(tokens))) == simulated(tokens, PAPER)[0]


@pytest.mark.parametrize("seed", range(2))
def test_random_programs_are_valid_and_their_subtrees_start_where_a_stack_says(seed):
    programs = ex.random_programs(jax.random.key(seed), 100, LENGTH, least=0, most=4)
    assert bool(ex.valid(programs.tokens).all())
    for tokens in np.asarray(programs.tokens):
        whole, starts = simulated(tokens.tolist(), PAPER)
        assert whole
        assert begins(jnp.asarray(tokens))[: len(starts)].tolist() == starts


def test_full_trees_have_the_height_that_was_asked_for():
    def height(tokens):
        stack = []
        for token in tokens:
            if token:
                operands = [stack.pop() for _ in range(int(PAPER.arity[token]))]
                stack.append(1 + max(operands, default=-1))
        return stack[0]

    for most in range(4):
        programs = ex.random_programs(jax.random.key(0), 50, 31, least=most, most=most, grow=False)
        assert {height(tokens) for tokens in np.asarray(programs.tokens)} == {most}


def test_random_programs_use_every_token_and_constants_of_the_language():
    programs = ex.random_programs(jax.random.key(0), 2000, LENGTH, least=0, most=3)
    tokens, consts = np.asarray(programs.tokens), np.asarray(programs.consts)
    assert set(range(PAPER.size)) == set(np.unique(tokens).tolist())
    assert set(np.unique(consts[tokens == PAPER.constant])) == {np.float32(c) for c in PAPER.constants}
    assert np.all(consts[tokens != PAPER.constant] == 0)


LANGUAGES = {(7, 2): Language(PAPER.operators, PAPER.terminals, stack=2), (LENGTH, 8): PAPER}


@settings(max_examples=30)
@given(st.integers(0, 2**31 - 1), st.sampled_from(list(LANGUAGES)))
def test_children_of_valid_programs_are_valid(seed, sizes):
    length, language = sizes[0], LANGUAGES[sizes]
    keys = jax.random.split(jax.random.key(seed), 5)
    one, two = (ex.random_programs(key, 64, length, language) for key in keys[:2])
    first, second = ex.crossover(keys[2], one, two, language)
    for children in (one, two, first, second, ex.mutate(keys[3], first, language)):
        assert bool(ex.valid(children.tokens, language).all())
        assert not np.any(np.asarray(children.consts)[np.asarray(children.tokens) != language.constant])


def test_a_crossover_exchanges_two_subtrees_and_nothing_else():
    one, two = row("square(gP - 0.5)"), row("abs(mX * nP) + l1")
    count = 300
    many = [Programs(*(jnp.repeat(leaf, count, axis=0) for leaf in parent)) for parent in (one, two)]
    children = ex.crossover(jax.random.key(0), *many)
    parts = (
        ["square(gP - 0.5)", "gP - 0.5", "gP", "0.5"],
        ["abs(mX * nP) + l1", "abs(mX * nP)", "mX * nP", "mX", "nP", "l1"],
    )
    wanted = set()
    for own in parts[0]:
        for other in parts[1]:
            first = "square(gP - 0.5)".replace(own, "@").replace("@", f"({other})")
            second = "abs(mX * nP) + l1".replace(other, "@").replace("@", f"({own})")
            wanted.add(tuple(ex.unparse(ex.parse(text)) for text in (first, second)))
    found = {tuple(ex.unparse(ex.single(child, i)) for child in children) for i in range(count)}
    assert found == wanted  # 4 x 6 pairs of subtrees, all of them met


def test_a_child_without_room_is_its_parent():
    tight = Programs(*(leaf[:, :3] for leaf in row("gP + gQ")))
    first, _ = ex.crossover(jax.random.key(0), *(jax.tree.map(lambda leaf: jnp.repeat(leaf, 50, 0), tight),) * 2)
    texts = {ex.unparse(ex.single(first, i)) for i in range(50)}
    assert "gP + gQ" in texts
    assert all(len(text) <= len("gP + gQ") for text in texts)


def test_moved_constants_keep_their_sign_and_everything_else():
    programs = row("gP * 2 - -0.5 * gQ")
    moved = ex.move_constants(jax.random.key(0), programs, rate=1.0, std=1.0)
    np.testing.assert_array_equal(moved.tokens, programs.tokens)
    is_constant = np.asarray(programs.tokens) == PAPER.constant
    assert np.all(np.asarray(moved.consts != programs.consts) == is_constant)
    np.testing.assert_array_equal(np.sign(moved.consts), np.sign(programs.consts))
    still = ex.move_constants(jax.random.key(0), programs, rate=0.0)
    np.testing.assert_array_equal(still.consts, programs.consts)


@pytest.mark.parametrize("seed", range(2))
def test_formulas_are_read_back_to_the_same_program(seed):
    programs = ex.random_programs(jax.random.key(seed), 100, LENGTH, least=0, most=4)
    programs = ex.move_constants(jax.random.key(seed), programs, rate=1.0, std=5.0)
    for i in range(100):
        own = ex.single(programs, i)
        again = ex.stacked([ex.parse(ex.unparse(own))], LENGTH)
        np.testing.assert_array_equal(again.tokens[0], own.tokens)
        np.testing.assert_array_equal(again.consts[0], own.consts)


@pytest.mark.parametrize(
    "formula, plain",
    [
        ("gP-gQ-vP", "gP - gQ - vP"),
        ("gP - (gQ - vP)", "gP - (gQ - vP)"),
        ("(gP*gQ)/vP", "gP * gQ / vP"),
        ("gP/(gQ*vP)", "gP / (gQ * vP)"),
        ("((gP)) + 1e-4", "gP + 1e-04"),
        ("-2 * neg(gP)", "-2.0 * neg(gP)"),
        ("add(gP, gQ)", "gP + gQ"),
    ],
)
def test_brackets_and_binding(formula, plain):
    assert ex.unparse(ex.parse(formula)) == plain


@pytest.mark.parametrize(
    "formula, rule",
    [
        ("", "its end"),
        ("gP +", "its end"),
        ("gP gQ", "'gQ' as piece 1"),
        ("foo(gP)", "only add, sub"),
        ("abs gP", r"'\(' is needed"),
        ("abs(gP", "is needed"),
        ("gP ? gQ", "character 2"),
        ("1e99", "float32"),
        ("(" * 2000 + "gP", "more than 1000"),
        ("add(gP)", "',' is needed"),
        ("gP + (gP + (gP + (gP + (gP + (gP + (gP + (gP + gP)))))))", "stack of 8"),
    ],
)
def test_unreadable_formulas_are_refused(formula, rule):
    with pytest.raises(ValueError, match=rule):
        ex.parse(formula)


@pytest.mark.parametrize(
    "tokens, rule",
    [
        ([15, 99, 0], r"Token 1 of program 0 is 99.*0\.\.29"),
        ([15, -1, 0], "Token 1 of program 0 is -1"),
        ([15, 1, 0], r"Token 1 \(add\) of program 0 finds 1 values on the stack and needs 2"),
        ([15, 0, 15], r"Token 2 \(gP\) of program 0 follows padding"),
        ([15, 16, 0], "leaves 2 values"),
        ([0, 0, 0], "leaves 0 values"),
    ],
)
def test_malformed_programs_are_refused_by_token(tokens, rule):
    with pytest.raises(ValueError, match=rule):
        ex.check(Programs(jnp.array(tokens), jnp.zeros(3)))


def test_infinite_constants_and_odd_shapes_are_refused(unchecked):
    with pytest.raises(ValueError, match="constant inf"):
        ex.check(Programs(jnp.array([PAPER.constant]), jnp.array([jnp.inf])))
    for tokens, consts in (
        (jnp.zeros(3), jnp.zeros(3)),
        (jnp.zeros(3, int), jnp.zeros(2)),
        (jnp.zeros((1, 0), int),) * 2,
    ):
        with pytest.raises(ValueError, match="must be"):
            ex.check(Programs(tokens, consts))
    with pytest.raises(ValueError, match="no program"):
        ex.stacked([], 3)
    with pytest.raises(ValueError, match="3 tokens and length=2"):
        ex.stacked([ex.parse("gP + gQ")], 2)
    with pytest.raises(ValueError, match="least=3"):
        ex.random_programs(jax.random.key(0), 1, 8, least=3, most=2)


def test_languages_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="two meanings of gP"):
        Language(PAPER.operators, ("gP", "gP"))
    with pytest.raises(ValueError, match="arity 3"):
        Language((Operator("fma", 3, jnp.add),), ("a",))
    with pytest.raises(ValueError, match="'a b' cannot"):
        Language((), ("a b",))
    with pytest.raises(ValueError, match="no terminals"):
        Language(PAPER.operators, ())
    with pytest.raises(ValueError, match="stack=1"):
        Language(PAPER.operators, ("a",), stack=1)
    with pytest.raises(ValueError, match="constants"):
        Language(PAPER.operators, ("a",), (float("nan"),))
    with pytest.raises(ValueError, match="no terminal 'zz'"):
        PAPER.only(["zz"])
    with pytest.raises(ValueError, match="no 'zz'"):
        PAPER.token("zz")


def test_a_language_without_operators_of_one_operand_grows_trees_too():
    language = Language((PAPER.operators[0],), ("a",))
    programs = ex.random_programs(jax.random.key(0), 50, 6, language, least=2, most=4)
    assert bool(ex.valid(programs.tokens, language).all())
    assert set(ex.lengths(programs.tokens).tolist()) == {1, 3, 5}
