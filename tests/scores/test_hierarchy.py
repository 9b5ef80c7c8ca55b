"""Label hierarchies: clusters are those of the confusions, whatever the order of the classes."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressjax import scores

BLOCKS = np.array([[6, 2, 0, 0, 0], [1, 7, 0, 0, 0], [0, 0, 5, 2, 1], [0, 0, 1, 6, 1], [0, 0, 2, 2, 4]])


def noisy(sizes, seed, within=0.1, across=0.004):
    """Rates with more confusion within blocks, and the block of every class."""
    rng = np.random.default_rng(seed)
    block = np.repeat(np.arange(len(sizes)), sizes)
    rates = np.where(block[:, None] == block[None, :], within, across) * rng.uniform(0.7, 1.3, (len(block),) * 2)
    np.fill_diagonal(rates, 0.0)
    np.fill_diagonal(rates, 1 - rates.sum(axis=1))
    return rates, block


def partition(found):
    return {frozenset(np.flatnonzero(found == i).tolist()) for i in set(found.tolist())}


def test_distance_by_hand():
    found = scores.confusion_distance(np.array([[6, 2], [4, 4]]))
    # F = [[3/4, 1/4], [1/2, 1/2]]
    np.testing.assert_array_equal(found, [[0, (3 / 4 + 1 / 2) / 2], [(3 / 4 + 1 / 2) / 2, 0]])
    assert found.dtype == np.float64


@given(st.integers(0, 10_000))
def test_distance_is_symmetric_and_takes_counts_or_rates(seed):
    counts = np.random.default_rng(seed).integers(0, 5, (6, 6)) + np.eye(6, dtype=int)
    found = scores.confusion_distance(counts)
    np.testing.assert_array_equal(found, found.T)
    assert (np.diag(found) == 0).all()
    assert found.min() >= 0
    assert found.max() <= 1
    np.testing.assert_allclose(found, scores.confusion_distance(counts / counts.sum(1, keepdims=True)), atol=1e-14)


def test_blocks_are_found_exactly():
    assert scores.class_clusters(BLOCKS, 2).tolist() == [0, 0, 1, 1, 1]
    assert scores.class_clusters(BLOCKS, 5).tolist() == [0, 1, 2, 3, 4]
    assert scores.class_clusters(noisy([3, 4], 0)[0], 1).tolist() == [0] * 7


@pytest.mark.parametrize("seed", range(5))
def test_clusters_do_not_depend_on_the_order_of_the_classes(seed):
    rates, block = noisy([4, 3, 5], seed)
    found = scores.class_clusters(rates, 3)
    assert partition(found) == partition(block)
    order = np.random.default_rng(seed + 100).permutation(len(block))
    permuted = scores.class_clusters(rates[np.ix_(order, order)], 3)
    assert partition(permuted) == partition(block[order])
    assert [int(found[i]) for i in sorted(np.unique(found, return_index=True)[1])] == [0, 1, 2]


def test_there_are_as_many_clusters_as_asked_for():
    rates, _ = noisy([4, 3, 5], 1)
    for k in range(1, 13):
        assert len(set(scores.class_clusters(rates, k).tolist())) == k


def test_coarse_classes_are_confused_less_than_those_of_random_groups():
    """What the hierarchy is for: coarse labels that a network already gets right."""
    rates, block = noisy([4, 3, 5], 3, within=0.08, across=0.01)
    found = scores.class_clusters(rates, 3)

    def right(groups):
        return np.mean([rates[i, groups == groups[i]].sum() for i in range(len(groups))])

    rng = np.random.default_rng(0)
    others = [right(rng.permutation(found)) for _ in range(20)]
    assert right(found) > max(others)
    assert right(found) > np.diag(rates).mean()
    assert len(block) == 12


def test_parts_that_are_never_confused_are_not_joined_at_random():
    with pytest.raises(ValueError, match="5 parts that are never confused with each other, more than clusters=2"):
        scores.class_clusters(np.eye(5), 2)
    assert scores.class_clusters(np.eye(5), 5).tolist() == [0, 1, 2, 3, 4]
    assert scores.class_clusters(BLOCKS + 0.01, 2).tolist() == [0, 0, 1, 1, 1]  # the way out


def test_confusion_is_counted_by_label_and_prediction():
    labels, said = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 0, 2, 2])
    found = scores.confusion_matrix(labels, said, 3)
    assert found.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]
    for i, j in itertools.product(range(3), repeat=2):
        assert found[i, j] == ((labels == i) & (said == j)).sum()


def test_coarse_labels():
    assert scores.coarse_labels(np.array([[3, 0], [2, 1]]), np.array([0, 1, 0, 1])).tolist() == [[1, 0], [0, 1]]


def test_half_of_27_blocks_is_14_and_of_54_is_27():
    fine, coarse = np.array([0, 1]), np.array([0, 0])
    for blocks, early in ((27, 14), (54, 27)):
        depths = {f"{name}{i}": i for i in range(blocks) for name in ("conv", "norm")}
        levels = scores.label_levels(depths, coarse, fine)
        assert [name for name, labels in levels.items() if labels is coarse] == list(levels)[: 2 * early]


def test_thresholds_at_the_ends_and_uneven_depths():
    fine, coarse = np.array([0, 1]), np.array([0, 0])
    depths = {"late": 9.0, "early": 0.5, "middle": 7.0}
    assert all(x is fine for x in scores.label_levels(depths, coarse, fine, 0.0).values())
    assert all(x is coarse for x in scores.label_levels(depths, coarse, fine, 1.0).values())
    levels = scores.label_levels(depths, coarse, fine, 1 / 3)
    assert [name for name, labels in levels.items() if labels is coarse] == ["early"]


@pytest.mark.parametrize(
    ("confusion", "clusters", "match"),
    [
        (np.ones((2, 3)), 2, r"has shape \(2, 3\): it must be \(classes, classes\)"),
        (np.ones(4), 2, r"has shape \(4,\)"),
        (np.ones((0, 0)), 1, r"has shape \(0, 0\)"),
        (np.array([[1, -1], [1, 1]]), 2, "negative or not finite"),
        (np.array([[1, np.nan], [1, 1]]), 2, "negative or not finite"),
        (np.array([[1, 1], [0, 0]]), 2, "Row 1 of the confusion matrix is empty"),
        (np.ones((3, 3)), 0, "clusters=0 must be a whole number from 1 to the 3 classes"),
        (np.ones((3, 3)), 4, "clusters=4 must be"),
        (np.ones((3, 3)), True, "clusters=True must be"),
        (np.ones((3, 3)), 1.5, "clusters=1.5 must be"),
    ],
)
def test_bad_confusions(unchecked, confusion, clusters, match):
    with pytest.raises(ValueError, match=match):
        scores.class_clusters(confusion, clusters)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: scores.coarse_labels(np.array([0, 2]), np.array([0, 1])), r"labels run from 0 to 2: .* 0\.\.1"),
        (lambda: scores.coarse_labels(np.array([-1]), np.array([0, 1])), "labels run from -1"),
        (lambda: scores.coarse_labels(np.array([0.0]), np.array([0, 1])), "labels are float64"),
        (lambda: scores.coarse_labels(np.array([0]), np.array([[0, 1]])), r"groups has shape \(1, 2\)"),
        (lambda: scores.coarse_labels(np.array([0]), np.array([-1, 1])), "one number >= 0 per class"),
        (lambda: scores.confusion_matrix(np.array([0]), np.array([0, 1]), 2), "1 labels and 2 predictions"),
        (lambda: scores.confusion_matrix(np.array([0]), np.array([2]), 2), "predictions run from 2 to 2"),
        (lambda: scores.label_levels({}, np.array([0]), np.array([0]), 1.5), "threshold=1.5 is a share"),
        (lambda: scores.label_levels({}, np.array([0]), np.array([0]), np.nan), "threshold=nan is a share"),
        (lambda: scores.label_levels({"g0": np.inf}, np.array([0]), np.array([0])), "depth of 'g0' is inf"),
        (lambda: scores.label_levels({}, np.array([0]), np.array([0, 1])), "label the same samples"),
    ],
)
def test_bad_labels(unchecked, call, match):
    with pytest.raises(ValueError, match=match):
        call()


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16])
def test_labels_of_few_bits_count_as_wide_ones(dtype):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 100, 500)
    predictions = np.where(rng.random(500) < 0.5, labels, rng.integers(0, 100, 500))
    expected = np.zeros((100, 100), int)
    np.add.at(expected, (labels, predictions), 1)
    for said in (predictions, predictions.astype(dtype)):
        np.testing.assert_array_equal(scores.confusion_matrix(labels.astype(dtype), said, 100), expected)
