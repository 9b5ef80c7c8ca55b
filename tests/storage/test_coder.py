"""The range coder's wrapper: tails, budgets, packing, number models."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressjax.storage import _gaps, _models, _packed
from compressjax.storage._coder import Reader, Writer, number_bits, padding_for, payable_elements


def reader_of(writer, extra=0):
    raw, stream = writer.finish()
    stream += bytes(extra)
    return Reader(memoryview(b"".join(raw)), memoryview(stream), len(stream)), stream


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 1 << 40), st.floats(0, 1, exclude_max=True)), max_size=20))
def test_any_sequence_of_integers(items):
    items = [(size, int(fraction * size)) for size, fraction in items]
    writer = Writer()
    for size, value in items:
        writer.integer(value, size)
        writer.number(value)
    reader, stream = reader_of(writer)
    for size, value in items:
        assert reader.integer(size) == value
        assert reader.number() == value
    ideal = sum(np.log2(size) + (size > 1 << 16) + number_bits(value) for size, value in items)
    assert sum(reader.ideal.values()) <= ideal * 1.0001
    assert 8 * len(stream) <= ideal + 8.1  # at most one byte for termination
    assert not stream.endswith(b"\0")


@given(st.integers(0, 2**32), st.integers(1, 300), st.integers(2, 400))
def test_any_categorical(seed, alphabet, count):
    rng = np.random.default_rng(seed)
    weights = rng.random(alphabet) ** 8
    values = rng.integers(0, alphabet, count)
    writer = Writer()
    writer.symbols(values, weights)
    reader, stream = reader_of(writer)
    assert np.array_equal(reader.symbols(count, weights), values)
    assert 8 * len(stream) <= 1.02 * sum(reader.ideal.values()) + 8


def test_long_runs_of_certain_symbols():
    weights = np.array([1.0, 1e-9])
    values = np.zeros(3_000_000, np.uint8)
    values[2_000_001] = 1
    writer = Writer()
    writer.symbols(values, weights)
    reader, stream = reader_of(writer)
    assert np.array_equal(reader.symbols(values.size, weights), values)
    assert len(stream) <= 5


def test_reader_refuses_more_symbols_than_the_stream_holds():
    reader, _ = reader_of(Writer())
    with pytest.raises(ValueError, match="more than its data can hold"):
        reader.uniform(1 << 40, 2)
    with pytest.raises(ValueError, match="more than its data can hold"):
        reader.symbols(1 << 40, np.ones(3))
    with pytest.raises(ValueError, match="raw bytes"):
        reader.raw(1)

    def endless():
        while True:
            reader.number()

    with pytest.raises(ValueError, match=r"past the end|more than its data"):
        endless()


def test_padding_buys_elements():
    for elements in (0, 65_536, 65_537, 10**7):
        for size in (10, 5000, 10**6):
            assert payable_elements(size + padding_for(elements, size)) >= elements
    assert padding_for(65_536, 0) == 0


@given(st.lists(st.integers(0, 2**13 - 1), max_size=50), st.integers(13, 32))
def test_packing(values, width):
    data = _packed.pack(np.array(values, np.int64), width)
    assert len(data) == _packed.packed_bytes(len(values), width)
    assert _packed.unpack(data, len(values), width).tolist() == values


def test_packing_across_chunks(monkeypatch):
    monkeypatch.setattr(_packed, "_CHUNK", 16)
    values = np.random.default_rng(0).integers(0, 32, 100)
    assert _packed.unpack(_packed.pack(values, 5), 100, 5).tolist() == values.tolist()


def test_gaps_across_scans(monkeypatch):
    mask = np.random.default_rng(0).random(1000) < 0.02
    whole = _gaps.from_mask(mask, int(mask.sum()))
    monkeypatch.setattr(_gaps, "_SCAN", 7)
    assert np.array_equal(_gaps.from_mask(mask, int(mask.sum())), whole)
    assert np.array_equal(_gaps.to_mask([whole[:3], whole[3:]], 1000), mask)


def test_gap_cost_formula_is_what_is_written():
    mask = np.random.default_rng(0).random(100_000) < 0.003
    gaps = _gaps.from_mask(mask, int(mask.sum()))
    writer = Writer()
    _gaps.write(writer, gaps, mask.size)
    _, stream = reader_of(writer)
    assert 8 * len(stream) == pytest.approx(_gaps.cost(gaps, mask.size), abs=9)


def test_histogram_follows_the_counts():
    counts = np.array([1000, 10, 0, 300, 1])
    model = _models.fit(np.repeat(counts, 50), None)
    weights = model.weights.reshape(5, 50)[:, 0]
    assert weights[2] == 0 < weights[4] < weights[1] < weights[3] < weights[0]
    assert weights[0] / weights[3] == pytest.approx(1000 / 300, rel=0.2)


def test_bells():
    levels = np.arange(-3, 4)
    assert _models.bell_weights(levels, _models.LAPLACE, 0).tolist() == [0.125, 0.25, 0.5, 1, 0.5, 0.25, 0.125]
    assert _models.bell_weights(levels, _models.GAUSS, 0).tolist() == [2**-9, 2**-4, 0.5, 1, 0.5, 2**-4, 2**-9]
    samples = np.rint(np.random.default_rng(0).normal(size=500) * 10).astype(int)
    levels = np.arange(samples.min(), samples.max() + 1)
    model = _models.fit(np.bincount(samples - levels[0], minlength=levels.size), levels)
    assert model.kind == _models.GAUSS
    assert model.data_bits < 500 * np.log2(10 * np.sqrt(2 * np.pi * np.e)) * 1.03
