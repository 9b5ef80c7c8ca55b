"""Context coding: integers only, learns structure, and beats independent positions where there is any."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressjax import storage
from compressjax.storage import _context, _logistic, _shape
from compressjax.storage._coder import Reader, Writer
from compressjax.storage._memory import Memory
from compressjax.storage._mixing import WEIGHT, Kind, Predictor


def reader_of(writer):
    raw, stream = writer.finish()
    return Reader(memoryview(b"".join(raw)), memoryview(stream), len(stream)), stream


def test_tables_are_what_exact_arithmetic_gives():
    with localcontext() as context:
        context.prec = 40
        two = Decimal(2)
        for k, value in enumerate(_logistic._POWERS):
            assert value == int(two ** (Decimal(k) / 64) * 2**32)
        for k, value in enumerate(_logistic.LOGARITHMS):
            assert value == int((1 + Decimal(k) / 256).ln() / two.ln() * 1024)


def test_logarithm_and_logistic_function():
    for number in (1, 2, 5, 1000, 12345678901234567890):
        assert _logistic.log2(number) / 1024 == pytest.approx(math.log2(number), abs=4 / 1024)
    odds = np.arange(-13_000, 13_000, 37)
    found = np.array([_logistic.probability(int(x)) for x in odds]) / _logistic.CERTAIN
    np.testing.assert_allclose(
        found, np.clip(1 / (1 + 2.0 ** (-odds / 1024)), 2.0**-12, 1 - 2.0**-12), rtol=0.012, atol=2**-16
    )
    assert (np.diff(found) >= 0).all()


def test_a_predictor_counts_and_learns_which_context_to_believe():
    kind = Kind("x", 2, WEIGHT // 3, ones=1, zeros=1, slowness=5)
    predictor = Predictor(kind)
    rng = np.random.default_rng(0)
    spent = []

    def bit(kind, value, one):
        spent.append(-math.log2((one if value else _logistic.CERTAIN - one) / _logistic.CERTAIN))
        return value

    for _ in range(600):
        telling, noise = (int(x) for x in rng.integers(0, 2, 2))
        predictor.code(int(rng.random() < (0.95 if telling else 0.05)), (telling, noise), bit)
    assert spent[0] == 1.0  # nothing is known at first
    assert sum(spent) < 600 * 0.36  # entropy 0.286 bits, without contexts 1
    assert predictor.weights[1] > 2 * predictor.weights[2]


shapes = st.lists(st.integers(0, 5), min_size=0, max_size=4).map(tuple)


@settings(max_examples=20)
@given(st.lists(st.tuples(shapes, st.integers(0, 2**32), st.integers(0, 14), st.floats(0, 1)), max_size=4))
def test_any_levels_come_back(leaves):
    writer, trees = Writer(), []
    for shape, seed, bits, density in leaves:
        rng = np.random.default_rng(seed)
        codes = rng.integers(-(1 << bits), (1 << bits) + 1, math.prod(shape)) * (rng.random(math.prod(shape)) < density)
        expected = _context.cost(codes, shape, writer.memory)
        assert expected == _context.cost(codes, shape, writer.memory)  # trying leaves no trace
        _shape.write(writer, shape)
        _context.write(writer, codes, shape)
        writer.memory.see(shape)
        trees.append((shape, codes))
    reader, _ = reader_of(writer)
    for shape, codes in trees:
        assert _shape.read(reader) == shape
        assert np.array_equal(_context.read(reader, shape), codes)
        reader.memory.see(shape)
    assert reader.memory == writer.memory


def test_cost_is_what_is_written():
    rng = np.random.default_rng(0)
    codes = rng.integers(-2, 3, 600) * (rng.random(600) < 0.2)
    writer = Writer()
    cost = _context.cost(codes, (20, 30), writer.memory)
    _context.write(writer, codes, (20, 30))
    assert 8 * len(reader_of(writer)[1]) == pytest.approx(cost, abs=9)


def skewed(rng, shape):
    """Rows and columns of very different densities, as in pruned networks."""
    sizes = np.where(np.eye(len(shape), dtype=bool), shape, 1)
    odds = math.prod(rng.exponential(size=size) for size in sizes)
    return rng.random(shape) < np.minimum(1, 0.1 * odds)


@pytest.mark.parametrize("shape", [(40, 50), (3, 3, 12, 16)])
def test_context_beats_independent_positions_where_there_is_structure(shape):
    mask = skewed(np.random.default_rng(0), shape)
    cost = _context.cost(mask.reshape(-1), shape, Memory(), binary=True)
    assert cost < 0.85 * storage.bits.entropy(mask.size, int(mask.sum()))


def test_where_there_is_none_it_costs_little_more():
    mask = np.random.default_rng(0).random(3000) < 0.08
    cost = _context.cost(mask, (50, 60), Memory(), binary=True)
    assert cost < 1.05 * storage.bits.entropy(3000, int(mask.sum()))


def test_signs_and_magnitudes_are_predicted_too():
    rng = np.random.default_rng(0)
    sign = np.where(rng.random((1, 60)) < 0.5, -1, 1) * np.where(rng.random((40, 60)) < 0.1, -1, 1)
    x = np.float32(0.25) * sign * rng.choice([1, 1, 1, 1, 2], (40, 60)) * (rng.random((40, 60)) < 0.5)
    account = storage.account(storage.encode(storage.positive_zeros({"x": x.astype(np.float32)})))
    (leaf,) = account.leaves
    assert leaf.codec == "context + levels"
    assert leaf.values < leaf.nonzeros * (0.72 + 0.85)  # entropies 0.47 and 0.72 bits, and learning them
    assert 0 < leaf.positions <= 1.02 * x.size
    assert leaf.codebook < 16


def test_weights_of_the_mixture_go_on_to_the_next_leaf():
    rng = np.random.default_rng(0)
    a, b = (skewed(rng, (30, 40)).reshape(-1) for _ in range(2))
    memory = Memory()
    alone = _context.cost(b, (30, 40), memory, binary=True)
    writer = Writer()
    _context.write(writer, a, (30, 40), binary=True)
    assert _context.cost(b, (30, 40), writer.memory, binary=True) != alone
    assert memory == Memory()


@pytest.mark.parametrize(
    ("shapes", "most"),
    [([(5, 5, 1, 10), (10,), (5, 5, 10, 24), (24,), (384, 80)], 11), ([(7, 3), (3, 5)], 4), ([(9,) * 4], 3)],
)
def test_predictable_shapes_cost_little(shapes, most):
    writer = Writer()
    for shape in shapes:
        _shape.write(writer, shape)
        writer.memory.see(shape)
    reader, stream = reader_of(writer)
    for shape in shapes:
        assert _shape.read(reader) == shape
        reader.memory.see(shape)
    assert len(stream) <= most


def test_large_leaves_are_not_scanned():
    size = _context.LARGEST + 1
    assert _context.cost(np.zeros(size, np.int64), (size,), Memory()) == math.inf
    with pytest.raises(ValueError, match="entry by entry"):
        _context.read(reader_of(Writer())[0], (size,))
