"""Scores that need every sample, batches through taps to scores of groups, informative channels against loud ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressjax import channels, scores, zoo
from compressjax.projections import producers

RNG = np.random.default_rng(11)
ONE_VS_REST = (scores.absolute_snr, scores.fisher_ratio, scores.symmetric_divergence, scores.two_sample_t)
OF_FEATURES = (scores.discriminant_information, scores.information_loss, scores.mmd)


def sample(samples, shape, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples).astype(np.int32)
    labels[:classes] = np.arange(classes)
    return rng.normal(size=(samples, *shape)) + labels.reshape(-1, *(1,) * len(shape)) * rng.normal(size=shape), labels


def information(rows, labels, ridge=1e-4):
    """The definition, one solve."""
    mean = rows.mean(0)
    scatter = sum(np.outer(row - mean, row - mean) for row in rows)
    between = np.zeros_like(scatter)
    for c in np.unique(labels):
        centre = rows[labels == c].mean(0) - mean
        between += (labels == c).sum() * np.outer(centre, centre)
    return np.trace(np.linalg.solve(scatter + ridge * np.eye(len(scatter)), between))


@pytest.mark.parametrize("shape", [(2, 3, 4), (7, 6, 4), (4,)])  # fewer features than samples, more, one
def test_discriminant_information_is_its_definition(shape) -> None:
    x, labels = sample(30, shape)
    found = scores.discriminant_information(x, labels)
    expected = [information(x[..., c].reshape(30, -1), labels) for c in range(4)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float64


def test_both_forms_of_discriminant_information_agree_at_any_scale() -> None:
    for scale in (1e-3, 1.0, 1e3):
        x, labels = sample(20, (20, 1))
        wide = np.concatenate([scale * x, np.zeros((20, 1, 1))], 1)  # one more feature: the other form
        narrow, dual = (scores.discriminant_information(rows, labels)[0] for rows in (scale * x, wide))
        np.testing.assert_allclose(dual, narrow, rtol=1e-6)
        assert 0 <= dual <= 2


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), features=st.integers(1, 12))
def test_discriminant_information_never_falls_when_a_feature_is_added(seed, features) -> None:
    x, labels = sample(8, (features + 1, 1), seed=seed)
    less, more = (scores.discriminant_information(rows, labels)[0] for rows in (x[:, :-1], x))
    assert more >= less - 1e-9
    assert -1e-9 <= less <= 2 + 1e-9


def test_information_loss_is_that_of_separate_solves() -> None:
    x, labels = sample(40, (3, 2, 7))
    rows = x.mean((1, 2))
    expected = [information(rows, labels) - information(np.delete(rows, k, 1), labels) for k in range(7)]
    found = scores.information_loss(x, labels)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-10)
    assert (found >= 0).all()
    few = scores.information_loss(x[:5], labels[:5])  # more channels than samples
    expected = [
        information(rows[:5], labels[:5]) - information(np.delete(rows[:5], k, 1), labels[:5]) for k in range(7)
    ]
    np.testing.assert_allclose(few, expected, rtol=1e-4, atol=1e-8)


def test_information_loss_misses_neither_of_two_equal_channels() -> None:
    x, labels = sample(200, (3,))
    x[:, 2] = RNG.normal(size=200)
    twice = np.concatenate([x[:, :1], x], 1)
    alone, doubled = scores.information_loss(x, labels), scores.information_loss(twice, labels)
    assert alone[0] > 10 * max(doubled[0], doubled[1])
    assert doubled[2] > 10 * max(doubled[0], doubled[1])
    single = scores.discriminant_information(twice, labels)
    np.testing.assert_allclose(single[0], single[1])  # which no score of single channels notices


def test_mmd_is_the_mean_over_pairs_blocks_and_classes() -> None:
    x, labels = sample(25, (2, 2, 3))
    expected = np.zeros(3)
    for block in (slice(0, 8), slice(8, 16), slice(16, 24)):  # the last sample is left out
        rows, own = x[block].reshape(8, 4, 3), labels[block]
        for channel in range(3):
            distance = np.square(rows[:, None, :, channel] - rows[None, :, :, channel]).sum(-1)
            k = np.exp(-distance / (2 * 1.5**2))
            terms = []
            for c in np.unique(own):
                p, q = own == c, own != c
                terms.append(k[p][:, p].mean() + k[q][:, q].mean() - 2 * k[p][:, q].mean())
            expected[channel] += np.mean(terms) / 3
    np.testing.assert_allclose(scores.mmd(x, labels, sigma=1.5, block=8), expected, rtol=1e-4)


def test_mmd_takes_the_mean_of_blocks_and_leaves_out_blocks_of_one_class() -> None:
    x, labels = sample(16, (3,))
    first, second = (scores.mmd(x[part], labels[part], block=8) for part in (slice(0, 8), slice(8, 16)))
    np.testing.assert_allclose(scores.mmd(x, labels, block=8), (first + second) / 2, rtol=1e-5)
    single = labels.copy()
    single[8:] = 1
    np.testing.assert_allclose(scores.mmd(x, single, block=8), first, rtol=1e-5)
    same = np.repeat(np.arange(2), 8)
    with pytest.raises(ValueError, match="No block of 8 samples has two classes: shuffle the samples"):
        scores.mmd(x, same, block=8)


@pytest.mark.parametrize("score", OF_FEATURES)
def test_samples_of_no_class_and_numbers_of_classes_do_not_matter(score) -> None:
    x, labels = sample(30, (2, 4))
    expected = score(x, labels)
    padded = np.concatenate([x, 100 + x[:3]]), np.concatenate([5 * labels + 2, np.full(3, -1)])
    np.testing.assert_allclose(score(*padded), expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.int8])
def test_features_in_few_bits_are_taken_for_what_they_are(dtype) -> None:
    x, labels = sample(30, (2, 4))
    few = jnp.asarray(10 * x, dtype)
    taps = lambda params, x: {"g0": (x,)}  # noqa: E731
    left, right = (scores.class_statistics(taps, {}, [(v, labels)], 3) for v in (few, few.astype(jnp.float32)))
    assert left["g0"][0].mean_p.dtype == jnp.float32
    np.testing.assert_array_equal(left["g0"][0].var_q, right["g0"][0].var_q)
    for score in OF_FEATURES:
        np.testing.assert_array_equal(score(few, labels), score(few.astype(jnp.float32), labels))


@pytest.mark.parametrize("score", OF_FEATURES)
def test_features_that_do_not_fit(score, unchecked) -> None:
    x, labels = sample(10, (4,))
    with pytest.raises(ValueError, match=r"labels of shape \(9,\): give \(samples, ..., channels\) and one label"):
        score(x, labels[:9])
    with pytest.raises(ValueError, match="Samples of 1 classes were given"):
        score(x, np.full(10, 3))
    with pytest.raises(ValueError, match="give integers from 0, or -1 to leave out"):
        score(x, labels - 2)
    with pytest.raises(ValueError, match="Labels of dtype float"):
        score(x, labels.astype(float))
    x[3, 1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        score(x, labels)


def test_settings_that_do_not_fit() -> None:
    x, labels = sample(10, (4,))
    for score in (scores.discriminant_information, scores.information_loss):
        with pytest.raises(ValueError, match=r"ridge is 0\.0: it must be positive"):
            score(x, labels, ridge=0.0)
    for bad in ({"sigma": 0.0}, {"block": 1}):
        with pytest.raises(ValueError, match="sigma must be positive, and a block has two samples"):
            scores.mmd(x, labels, **bad)


MODEL = zoo.build("lenet5", widths=(4, 5, 6))


@pytest.fixture(scope="module")
def lenet():
    x = RNG.normal(size=(20, 28, 28, 1)).astype(np.float32)
    labels = np.arange(20) % 3
    x += labels[:, None, None, None]
    params = MODEL.init(jax.random.key(0))
    net = channels.trace(MODEL.apply, params, x[:8])
    whole = channels.trace(MODEL.apply, params, x).taps()(params, x)
    batches = [(x[i : i + 8], labels[i : i + 8]) for i in (0, 8, 16)]  # the last has four samples
    return net, params, batches, whole, labels


def test_batches_to_scores_of_groups(lenet) -> None:
    net, params, batches, whole, labels = lenet
    statistics = scores.class_statistics(net.taps(), params, iter(batches), 3)
    assert statistics.keys() == {group.name for group in net.groups}
    for score in ONE_VS_REST:
        found = scores.discriminative(statistics, score)
        for group in net.groups:
            (array,) = whole[group.name]
            sums = scores.class_start(3, group.size, int(np.prod(array.shape[1:-1])))
            expected = score(scores.one_vs_rest(scores.class_add(sums, array, jnp.asarray(labels))))
            assert found[group.name].shape == (group.size,)
            np.testing.assert_allclose(found[group.name], expected, rtol=1e-3, atol=1e-5)
    half = channels.allocate(net.groups, scores.discriminative(statistics, scores.fisher_ratio), 0.5)
    assert net.keep(half).keys() == statistics.keys()


def test_batches_to_scores_of_features(lenet) -> None:
    net, params, batches, whole, labels = lenet
    for score in OF_FEATURES:
        found = scores.feature_scores(net.taps(), params, iter(batches), score)
        for group in net.groups:
            np.testing.assert_allclose(found[group.name], score(whole[group.name][0], labels), rtol=1e-3, atol=1e-5)


def test_a_group_read_twice_has_the_mean_score() -> None:
    x, labels = sample(12, (2, 3))
    taps = lambda params, x: {"g0": (x, x[:, 0])}  # noqa: E731
    statistics = scores.class_statistics(taps, {}, [(jnp.asarray(x, jnp.float32), labels)], 3)
    first, second = map(scores.fisher_ratio, statistics["g0"])
    np.testing.assert_allclose(scores.discriminative(statistics, scores.fisher_ratio)["g0"], (first + second) / 2)
    assert abs(first - second).max() > 1e-3


def test_batches_that_do_not_fit(unchecked) -> None:
    x, labels = sample(12, (3,))
    taps = lambda params, x: {"g0": (x,)}  # noqa: E731

    def of_statistics(batches):
        return scores.class_statistics(taps, {}, batches, 3)

    def of_features(batches):
        return scores.feature_scores(taps, {}, batches, scores.mmd)

    for run in (of_statistics, of_features):
        with pytest.raises(ValueError, match="needs at least one batch"):
            run([])
        with pytest.raises(ValueError, match="A batch has 12 samples, the first had 6: none may be larger"):
            run([(x[:6], labels[:6]), (x, labels)])
        with pytest.raises(ValueError, match="A batch is a ndarray: give tuples"):
            run([x])
        with pytest.raises(ValueError, match="Labels are float64 of shape"):
            run([(x, labels.astype(float))])
    with pytest.raises(ValueError, match="g0: Samples of 1 of 3 classes were seen"):
        of_statistics([(x, np.zeros(12, int))])
    with pytest.raises(ValueError, match=r"g0: .* not finite"):
        of_statistics([(np.where(x > 0, np.inf, x), labels)])
    with pytest.raises(ValueError, match="g0 has no taps"):
        scores.discriminative({"g0": ()}, scores.fisher_ratio)


@pytest.mark.parametrize("score", [*ONE_VS_REST, *OF_FEATURES])
def test_quiet_channels_that_know_the_class_beat_loud_ones_that_do_not(score) -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 4, 400)
    informative = np.array([0, 3, 5, 6])
    x = rng.normal(size=(400, 8)).astype(np.float32)
    x[:, informative] = 0.3 * x[:, informative] + np.eye(4)[labels]  # input k knows class k, or is noise
    loudness = np.full(8, 6.0, np.float32)
    loudness[informative] = 1.5
    params = {"a": jnp.diag(jnp.asarray(loudness)), "b": jnp.asarray(rng.normal(size=(8, 4)), jnp.float32)}
    net = channels.trace(lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"], params, x[:100])
    batches = [(x[i : i + 100], labels[i : i + 100]) for i in range(0, 400, 100)]
    if score in ONE_VS_REST:
        found = scores.discriminative(scores.class_statistics(net.taps(), params, batches, 4), score)
    else:
        found = scores.feature_scores(net.taps(), params, batches, score)
    first = lambda values: set(np.argsort(-np.asarray(values))[:4].tolist())  # noqa: E731
    assert first(found["g0"]) == set(informative.tolist())
    magnitude = np.maximum(x * loudness[None], 0).mean(0)
    for blind in (magnitude, scores.l1(params, producers(net.groups, params))["g0"]):
        assert not first(blind) & set(informative.tolist())


def test_unsigned_labels_are_filled_up_too() -> None:
    x, labels = sample(10, (2,))
    parts = [(x[:6], labels[:6]), (x[6:], labels[6:])]
    narrow = [(values, y.astype(np.uint8)) for values, y in parts]

    def taps(params, x):
        return {"g0": (x,)}

    wide, found = (scores.class_statistics(taps, {}, batches, 3) for batches in (parts, narrow))
    jax.tree.map(np.testing.assert_array_equal, found, wide)
    wide, found = (scores.feature_scores(taps, {}, batches, scores.mmd) for batches in (parts, narrow))
    np.testing.assert_array_equal(found["g0"], wide["g0"])


def test_labels_beyond_32_bits_are_refused() -> None:
    x, labels = sample(10, (2,))
    labels = np.asarray(labels, np.int64)
    labels[3] += 2**32

    def taps(params, x):
        return {"g0": (x,)}

    with pytest.raises(ValueError, match="labels are not between 0 and 2"):
        scores.class_statistics(taps, {}, [(x, labels)], 3)
