"""Law 1: every constraint is an exact, deterministic projection, whatever the transformation and the dtype.

A new set is tested by adding one row to `ROWS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import projections as p
from compressjax import quantizers as q

CONV, DENSE, KERNEL = (3, 2, 4, 6), (8, 6), (3, 3, 2, 4)
CORNER = np.isin(np.arange(9).reshape(3, 3, 1, 1), (0, 1, 3, 4))


@dataclass(frozen=True)
class Row:
    """A set, a shape, and what is special about it."""

    set: p.Constraint
    shape: tuple[int, ...]
    free: int | None = None  # entries that the support of any dense tensor must have
    tied: Callable[[tuple[int, ...]], np.ndarray] | None = None  # support of a constant tensor
    local: bool = False  # only locally nearest: compared with far members only
    rounds: bool = False  # linear algebra: vmap and loop agree to rounding, not to the bit
    again: bool = False  # other numbers of a set above or below: what transformations do to it is seen there

    def __str__(self) -> str:
        return f"{self.set}-{'x'.join(map(str, self.shape))}"


def first(count: int, *, split: tuple[int, ...], within: tuple[int, ...]) -> Callable[[tuple[int, ...]], np.ndarray]:
    """The support that has the first `count` groups, when groups span the axes `within` of the shape `split`."""

    def build(shape: tuple[int, ...]) -> np.ndarray:
        kept = [1 if axis in within else length for axis, length in enumerate(split)]
        mask = (np.arange(np.prod(kept)) < count).reshape(kept)
        return np.broadcast_to(mask, split).reshape(shape)

    return build


ROWS = [
    Row(p.Cardinality(7), CONV, 7, first(7, split=CONV, within=())),
    Row(p.Cardinality(0.25), DENSE, 12, first(12, split=DENSE, within=()), again=True),
    Row(p.Cardinality(0), (5,), 0, first(0, split=(5,), within=())),
    Row(p.Cardinality(5), (5,), 5, first(5, split=(5,), within=())),
    Row(p.NM(2, 4), DENSE, 24, lambda _: np.broadcast_to(np.arange(8)[:, None] % 4 < 2, DENSE)),
    Row(p.NM(1, 2), CONV, 72, lambda _: np.broadcast_to(np.arange(4)[:, None] % 2 < 1, CONV), again=True),
    Row(p.NM(2, 3, axis=-1), DENSE, 32, lambda _: np.broadcast_to(np.arange(6) % 3 < 2, DENSE)),
    Row(p.Filters(2), CONV, 48, first(2, split=CONV, within=(0, 1, 2))),
    Row(p.Filters(0.5), DENSE, 24, first(3, split=DENSE, within=(0,)), again=True),
    Row(p.Channels(3), CONV, 108, first(3, split=CONV, within=(0, 1, 3))),
    Row(p.Columns(5), CONV, 30, first(5, split=CONV, within=(3,))),
    Row(p.Block((4, 2), 2), DENSE, 16, first(2, split=(2, 4, 3, 2), within=(1, 3))),
    Row(p.BlockPunched((2, 3), 5), CONV, 30, first(5, split=(3, 2, 2, 2, 2, 3), within=(3, 5))),
    Row(p.BlockPunched((4, 3), 5), DENSE, 15, first(5, split=(8, 2, 3), within=(2,)), again=True),
    Row(p.BlockRows(3, 5), DENSE, 15, first(5, split=(8, 2, 3), within=(2,))),
    Row(p.BlockRows(2, 0.25), CONV, 36, first(18, split=(3, 2, 4, 3, 2), within=(4,)), again=True),
    Row(p.BlockColumns(4, 5), DENSE, 20, first(5, split=(2, 4, 6), within=(1,))),
    Row(p.BlockColumns(2), CONV, 144, first(72, split=(3, 2, 2, 2, 6), within=(3,)), again=True),
    Row(p.Pattern(), KERNEL, 32, lambda _: np.broadcast_to(CORNER, KERNEL)),
    Row(p.Pattern(1, ((4,), (0,))), KERNEL, 8, again=True),
    Row(p.Submatrix(2, 4), DENSE, 8, lambda _: np.add.outer(np.arange(8) // 4, np.arange(6) // 2) == 0, local=True),
    Row(p.LowRank(2), DENSE, 48, rounds=True),
    Row(p.LowRank(3), CONV, 144, rounds=True, again=True),
    Row(p.Joint(p.Members(np.arange(48) % 6, 6, 2)), DENSE, 16, lambda _: np.broadcast_to(np.arange(6) < 2, DENSE)),
    Row(p.Members(np.repeat([0, 1, -1, 2], 3), 3, 2), (12,), 9, lambda _: np.repeat([True, True, True, False], 3)),
    Row(p.Joint(p.Cardinality(9)), DENSE, 9, first(9, split=DENSE, within=())),
    Row(q.Levels(1), DENSE, again=True),
    Row(q.Levels(3), DENSE),
    Row(q.Levels(3, scale=0.25), DENSE),
    Row(q.Binary(), DENSE),
    Row(q.PerOutput(q.Binary(), 4), DENSE),
    Row(q.Ternary(), DENSE),
    Row(q.PowerOfTwo(2), DENSE),
    Row(q.PowerOfTwo(4), CONV, again=True),
    Row(q.Codebook(1), DENSE, again=True),
    Row(q.Codebook(3), CONV),
    Row(p.Joint(q.Codebook(2)), DENSE),
    Row(p.Both(p.Cardinality(20), q.Levels(2)), DENSE, local=True),
    Row(p.Both(p.NM(2, 4), q.Binary()), DENSE, local=True),
    Row(p.Both(p.Filters(3), q.Codebook(2)), CONV, local=True),
    Row(p.Both(p.Pattern(), q.PowerOfTwo(2)), KERNEL, local=True),
    Row(p.Both(p.Cardinality(0.5), q.Ternary()), DENSE, local=True),
    Row(q.Coded(120.0), DENSE, local=True),
]
each_row = pytest.mark.parametrize(
    "row", [pytest.param(row, id=str(row), marks=[pytest.mark.slow] if row.local else []) for row in ROWS]
)
each_set = pytest.mark.parametrize(
    "row", [pytest.param(row, id=str(row), marks=[pytest.mark.slow] if row.local or row.again else []) for row in ROWS]
)
# Sets of sets take longest to compile, and differ least between dtypes.
each_row_and_dtype = pytest.mark.parametrize(
    "row, dtype",
    [
        pytest.param(row, dtype, id=f"{row}-{dtype.dtype}", marks=[pytest.mark.slow] if row.local and narrow else [])
        for row in ROWS
        for narrow, dtype in enumerate((jnp.float32, jnp.bfloat16))
    ],
)


def draw(row: Row, dtype=jnp.float32, seed: int = 0) -> jax.Array:
    """A tensor of the row's shape; quantizers also see zeros, which they must keep."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(row.shape)
    if isinstance(row.set, q.Quantizer):
        x = np.where(np.arange(x.size).reshape(x.shape) % 5 == 0, 0.0, x)
    return jnp.asarray(x, dtype)


@cache
def compiled(constraint: p.Constraint) -> Callable[[jax.Array], tuple[jax.Array, jax.Array, jax.Array]]:
    """Projection, support and membership in one compiled function, which all tests of a row share."""
    return jax.jit(lambda x: (constraint.project(x), constraint.support(x), constraint.contains(x)))


def same(a: jax.Array, b: jax.Array) -> bool:
    return a.dtype == b.dtype and np.array_equal(np.asarray(a, np.float64), np.asarray(b, np.float64))


@each_row_and_dtype
def test_projection_is_a_member_and_its_own_projection(row: Row, dtype) -> None:
    function = compiled(row.set)
    for x in (draw(row, dtype), jnp.zeros(row.shape, dtype)):
        z, support, _ = function(x)
        again, _, member = function(z)
        assert z.shape == support.shape == x.shape
        assert z.dtype == dtype
        assert support.dtype == jnp.bool_
        assert bool(member)
        assert same(again, z)
        assert not np.any(np.asarray(z != 0) & ~np.asarray(support))


@each_row_and_dtype
def test_no_random_member_is_nearer(row: Row, dtype) -> None:
    function = compiled(row.set)
    x = draw(row, dtype)
    z, _, inside = function(x)
    everything = row.free == int(np.prod(row.shape)) and not isinstance(row.set, p.LowRank)
    assert bool(inside) == everything, "membership must not be vacuous"
    distance = np.linalg.norm(np.asarray(x - z, np.float64))
    rng = np.random.default_rng(1)
    for noise in (3.0, 3.0, 3.0) if row.local else (0.01, 0.05, 0.1, 0.3, 1.0, 3.0):
        # Members near and far; a quantizer is nearest among the tensors with the zeros of x.
        member, _, _ = function(jnp.where(x == 0, x, x + jnp.asarray(noise * rng.standard_normal(row.shape), dtype)))
        other = np.linalg.norm(np.asarray(x - member, np.float64))
        assert distance <= other * (1 + 4 * float(jnp.finfo(dtype).eps)) + 1e-12


@pytest.mark.parametrize("row", [row for row in ROWS if row.free is not None], ids=str)
def test_support_has_the_exact_count(row: Row) -> None:
    for x in (draw(row), jnp.zeros(row.shape), jnp.ones(row.shape)):
        assert int(compiled(row.set)(x)[1].sum()) == row.free


@pytest.mark.parametrize("row", [row for row in ROWS if row.tied is not None], ids=str)
def test_ties_go_to_the_lowest_index(row: Row) -> None:
    assert row.tied is not None
    _, support, _ = compiled(row.set)(jnp.full(row.shape, -2.0))
    np.testing.assert_array_equal(support, row.tied(row.shape))


@each_set
def test_jit_equals_eager(row: Row) -> None:
    x = draw(row)
    z, support, member = compiled(row.set)(x)
    assert same(z, row.set.project(x))
    np.testing.assert_array_equal(support, row.set.support(x))
    assert bool(member) == bool(row.set.contains(x))


@each_set
def test_vmap_equals_loop(row: Row) -> None:
    batch = jnp.stack([draw(row, seed=seed) for seed in range(3)])
    together = jax.jit(jax.vmap(row.set.project))(batch)
    alone = jnp.stack([compiled(row.set)(x)[0] for x in batch])
    if row.rounds:
        np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)
    else:
        assert same(together, alone)


@each_row
def test_magnitude_does_not_matter(row: Row) -> None:
    if isinstance(row.set, q.Levels) and row.set.scale is not None:
        pytest.skip("a fixed scale does not follow the magnitude")
    x = draw(row)
    z, _, _ = compiled(row.set)(x)
    for factor in (2.0**-60, 2.0**60):
        scaled, _, _ = compiled(row.set)(x * factor)
        if row.rounds:
            np.testing.assert_allclose(scaled / factor, z, rtol=1e-5, atol=1e-5)
        else:
            assert same(scaled, z * factor)
