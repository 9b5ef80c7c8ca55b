"""Hand cases and bad input of the sparse sets; the laws are in tests/invariants."""

from itertools import combinations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressjax.projections import (
    NM,
    Block,
    BlockColumns,
    BlockPunched,
    BlockRows,
    Cardinality,
    Channels,
    Columns,
    Filters,
    Pattern,
)


def test_cardinality_by_hand() -> None:
    x = jnp.array([[1.0, -2.0], [2.0, 0.5]])
    np.testing.assert_array_equal(Cardinality(1).project(x), [[0, -2], [0, 0]])
    np.testing.assert_array_equal(Cardinality(2).project(x), [[0, -2], [2, 0]])
    np.testing.assert_array_equal(Cardinality(3).project(x), [[1, -2], [2, 0]])
    assert Cardinality(0.5).count((3, 3)) == 4


def test_cardinality_counts_exactly_although_zeros_are_kept() -> None:
    x = jnp.array([0.0, 0.0, 1.0, 0.0])
    np.testing.assert_array_equal(Cardinality(3).support(x), [True, True, True, False])
    assert bool(Cardinality(1).contains(x))


def test_nm_groups_along_the_inputs() -> None:
    x = jnp.array([[1.0, 4.0], [2.0, 3.0], [3.0, 2.0], [4.0, 1.0]])
    np.testing.assert_array_equal(NM(1, 2).project(x), [[0, 4], [2, 0], [0, 2], [4, 0]])
    np.testing.assert_array_equal(NM(1, 2, axis=1).project(x), [[0, 4], [0, 3], [3, 0], [4, 0]])
    assert not bool(NM(1, 2).contains(x))


def test_filters_and_channels_by_hand() -> None:
    x = jnp.array([[3.0, 0.0, 2.0], [0.0, 1.0, 2.5]])
    np.testing.assert_array_equal(Filters(1).project(x), [[0, 0, 2], [0, 0, 2.5]])
    np.testing.assert_array_equal(Channels(1).project(x), [[3, 0, 2], [0, 0, 0]])
    np.testing.assert_array_equal(Columns(1).project(x), Channels(1).project(x))


def test_the_score_is_the_l2_norm_not_the_sum() -> None:
    # Sum of magnitudes: 3 against 2.75; sum of squares: 3 against 7.56.
    x = jnp.array([[1.0, 2.75], [1.0, 0.0], [1.0, 0.0]])
    np.testing.assert_array_equal(Filters(1).project(x), [[0, 2.75], [0, 0], [0, 0]])


def test_a_tiny_group_wins_over_a_zero_group() -> None:
    x = jnp.array([[0.0, 1.0, 1e-30]])
    np.testing.assert_array_equal(Filters(2).project(x), x)


def test_columns_share_a_position_across_filters() -> None:
    x = np.zeros((2, 2, 1, 3), np.float32)
    x[1, 0, 0] = 1.0
    x[0, 1, 0, 2] = 1.5
    np.testing.assert_array_equal(Columns(1).support(jnp.asarray(x))[..., 0, :].sum(-1), [[0, 0], [3, 0]])


def test_block_by_hand() -> None:
    x = jnp.array([[1.0, 1.0, 0.0, 2.0], [1.0, 1.0, 0.0, 0.5]])
    np.testing.assert_array_equal(Block((2, 2), 1).project(x), [[0, 0, 0, 2], [0, 0, 0, 0.5]])
    np.testing.assert_array_equal(Block((1, 2), 2).project(x), [[1, 1, 0, 2], [0, 0, 0, 0]])


def test_block_punched_kernels_of_a_block_share_positions() -> None:
    rng = np.random.default_rng(0)
    mask = np.asarray(BlockPunched((2, 4), 9).support(jnp.asarray(rng.standard_normal((3, 3, 4, 8)), jnp.float32)))
    blocks = mask.reshape(3, 3, 2, 2, 2, 4)
    assert (blocks == blocks[:, :, :, :1, :, :1]).all()
    assert mask.sum() == 9 * 2 * 4


def test_block_punched_energies_are_compared_over_the_whole_layer() -> None:
    x = np.ones((3, 3, 1, 2), np.float32)
    x[..., 1] = 2.0  # both kept groups lie in the second block
    mask = np.asarray(BlockPunched((1, 1), 9).support(jnp.asarray(x)))
    assert mask[..., 1].all()
    assert not mask[..., 0].any()


def test_block_punched_matrix_is_block_row_pruning() -> None:
    x = jnp.array([[1.0, 1.0, 0.0, 3.0], [2.0, 0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(BlockPunched((2, 2), 2).project(x), [[0, 0, 0, 3], [2, 0, 0, 0]])
    np.testing.assert_array_equal(BlockRows(2, 2).project(x), [[0, 0, 0, 3], [2, 0, 0, 0]])


def test_blocks_lose_columns_on_their_own() -> None:
    x = jnp.array([[1.0, 1.0, 0.0], [2.0, 1.0, 0.0], [0.0, 2.0, 3.0], [0.0, 2.0, 0.0]])
    expected = [[1, 0, 0], [2, 0, 0], [0, 2, 3], [0, 2, 0]]
    np.testing.assert_array_equal(BlockColumns(2, 3).project(x), expected)
    # A convolution kernel is one matrix per position.
    np.testing.assert_array_equal(BlockColumns(2, 3).project(x.reshape(1, 1, 4, 3))[0, 0], expected)
    np.testing.assert_array_equal(BlockColumns(2, 3).project(x.reshape(2, 1, 2, 3)).reshape(4, 3), expected)


def test_block_sets_are_nearest_among_all_choices_of_groups() -> None:
    """Every way to keep the groups is tried: the projection loses the least energy."""
    x = np.random.default_rng(0).standard_normal((3, 1, 2, 4)).astype(np.float32)
    cases = [
        (BlockPunched((2, 2), 2), lambda energy: energy.reshape(3, 2, 2, 2).sum((1, 3))),
        (BlockColumns(2, 4), lambda energy: energy.reshape(3, 2, 4).sum(1)),
        (BlockRows(4, 2), lambda energy: energy.reshape(6, 4).sum(1)),
    ]
    for constraint, by_group in cases:
        energies = by_group(np.square(x.astype(np.float64))).ravel()
        assert len(energies) == constraint.groups(x.shape)
        kept = constraint.count(x.shape)
        best = min(energies.sum() - energies[list(choice)].sum() for choice in combinations(range(len(energies)), kept))
        distance = np.square(x.astype(np.float64) - np.asarray(constraint.project(jnp.asarray(x)))).sum()
        np.testing.assert_allclose(distance, best, rtol=1e-6)


def test_pattern_keeps_the_pattern_of_most_energy() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 3, 2, 5)).astype(np.float32)
    z = np.asarray(Pattern().project(jnp.asarray(x)))
    for i in range(2):
        for o in range(5):
            kernel = x[:, :, i, o].ravel()
            best = max(Pattern().dictionary(), key=lambda p: float(np.sum(kernel[list(p)] ** 2)))
            assert set(np.flatnonzero(z[:, :, i, o])) == set(best)


def test_pattern_dictionaries() -> None:
    assert all(4 in pattern and len(set(pattern)) == 4 for pattern in Pattern().dictionary())
    assert Pattern(9).dictionary() == (tuple(range(9)),)
    assert Pattern(2, ((0, 1),)).dictionary() == ((0, 1),)


def test_pattern_does_not_lose_what_underflows() -> None:
    x = jnp.zeros((3, 3, 1, 1)).at[2, 2].set(1e-30).at[1, 1].set(1.0)
    np.testing.assert_array_equal(Pattern().project(x), x)


small = st.integers(-3, 3).map(float)


@given(st.lists(small, min_size=6, max_size=6))
def test_filters_against_all_choices(values: list[float]) -> None:
    x = np.array(values, np.float32).reshape(2, 3)
    removed = min(float(np.sum(np.delete(x, kept, axis=1) ** 2)) for kept in combinations(range(3), 2))
    z = np.asarray(Filters(2).project(jnp.asarray(x)))
    assert np.sum((x - z) ** 2) == removed


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cardinality(-1), "must not be negative"),
        (lambda: Cardinality(1.5), "must lie in"),
        (lambda: Cardinality(0.0), "must lie in"),
        (lambda: Cardinality(float("nan")), "must lie in"),
        (lambda: Cardinality(True), "must be an int"),
        (lambda: Filters(-2), "must not be negative"),
        (lambda: NM(3, 2), "n <= m"),
        (lambda: NM(0, 2), "n <= m"),
        (lambda: Block((0, 1), 1), "two positive ints"),
        (lambda: BlockPunched((1, -1), 1), "two positive ints"),
        (lambda: BlockRows(0, 1), "width=0 must be a positive int"),
        (lambda: BlockColumns(True, 1), "width=True must be"),
        (lambda: BlockColumns(2, -1), "must not be negative"),
        (lambda: Pattern(0), "between 1 and the 9"),
        (lambda: Pattern(2, ((0, 0),)), "distinct positions"),
        (lambda: Pattern(2, ((0, 9),)), "distinct positions"),
        (lambda: Pattern(2, ()), "empty"),
    ],
)
def test_bad_settings(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("constraint", "shape", "message"),
    [
        (Cardinality(5), (2, 2), r"keep=5 entries of a tensor of shape \(2, 2\) exceeds the 4"),
        (Filters(4), (5, 3), "exceeds the 3"),
        (Channels(6), (5, 3), "exceeds the 5"),
        (Columns(46), (3, 3, 5, 2), "exceeds the 45"),
        (Block((2, 2), 7), (4, 6), "exceeds the 6"),
        (BlockPunched((2, 2), 55), (3, 3, 4, 6), "exceeds the 54"),
        (Filters(1), (5,), "at least 2 dimensions"),
        (Block((2, 2), 1), (3, 3, 4, 6), "needs a matrix"),
        (Block((2, 2), 1), (4, 5), "2 outputs does not divide the 5"),
        (Block((3, 2), 1), (4, 6), "3 inputs does not divide the 4"),
        (BlockPunched((2, 2), 1), (4,), "needs a kernel"),
        (BlockRows(4), (4, 6), "4 outputs does not divide the 6"),
        (BlockColumns(3), (4, 6), "3 inputs does not divide the 4"),
        (BlockColumns(2, 13), (4, 6), "exceeds the 12"),
        (BlockRows(2), (4,), "at least 2 dimensions"),
        (NM(2, 4), (6, 4), "does not divide"),
        (NM(2, 4), (8,), "no axis -2"),
        (Pattern(), (5, 5, 1, 1), "needs kernels of shape"),
    ],
    ids=str,
)
def test_sets_that_do_not_fit(constraint, shape: tuple[int, ...], message: str) -> None:
    for method in (constraint.project, constraint.support, constraint.contains):
        with pytest.raises(ValueError, match=message):
            method(jnp.ones(shape))


@pytest.mark.parametrize("fault", [jnp.nan, jnp.inf])
def test_patterns_keep_what_is_broken_visible(fault):
    kernel = jnp.ones((3, 3, 1, 2)).at[2, 2, 0, 0].set(fault)
    np.testing.assert_array_equal(Pattern().choose(kernel), [[3, 0]])
    assert Pattern().support(kernel)[2, 2, 0, 0]
