"""The paper formulas against hand counts and the published table."""

import numpy as np
import pytest

from compressjax.storage import bits


def test_relative_index_by_hand():
    # zeros before the non-zeros: 0, 5, 1; g = 2: one filler for 4 zeros; 4 entries of 2 + 3 bits
    mask = np.array([1, 0, 0, 0, 0, 0, 1, 0, 1], bool)
    assert bits.gaps(mask).tolist() == [0, 5, 1]
    assert bits.relative_index(mask, width=3, gap_width=2) == 4 * 5
    assert bits.relative_index(mask, width=3, gap_width=3) == 3 * 6
    assert bits.best_gap_width(mask, width=3) == 3


def test_relative_index_estimate_matches_random_masks():
    mask = np.random.default_rng(0).random(400_000) < 0.01
    exact = bits.relative_index(mask, 2, 5)
    assert bits.relative_index_estimate(mask.size, int(mask.sum()), 2, 5) == pytest.approx(exact, rel=0.01)


# LeNet-5 split 60/500/520/157 at 3 bits (conv) and 2 bits (dense): our split of the published 348x.
_LAYERS = ((500, 60, 3), (25_000, 500, 3), (400_000, 520, 2), (5_000, 157, 2))


def test_published_ratios():
    weights = 430_500
    data = sum(bits.values(k, b) for _, k, b in _LAYERS)
    assert bits.ratio(weights, data) == pytest.approx(4541, abs=1)
    entropy = data + sum(bits.entropy(n, k) for n, k, _ in _LAYERS)
    assert bits.ratio(weights, entropy) == pytest.approx(1015, abs=2)
    bitmap = sum(bits.bitmap(n, k, b) for n, k, b in _LAYERS)
    assert bits.ratio(weights, bitmap) == pytest.approx(32, abs=0.5)
    relative = sum(min(bits.relative_index_estimate(n, k, b, g) for g in range(1, 17)) for n, k, b in _LAYERS)
    assert bits.ratio(weights, relative) == pytest.approx(944, abs=2)


def test_entropy_bounds_the_floor():
    for size, count in ((10, 3), (6000, 750), (7, 0), (7, 7)):
        assert 0 <= bits.positions_floor(size, count) <= bits.entropy(size, count) + 1e-6


def test_no_data_compresses_infinitely():
    assert bits.ratio(10, 0) == float("inf")
