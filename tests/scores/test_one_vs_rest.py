"""Class sums against two passes of float64 NumPy, the scores against their formulas, and the bad input of both."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import scores

RNG = np.random.default_rng(5)


def stream(x, labels, classes, sizes):
    """Statistics after batches of the given sizes."""
    sums = scores.class_start(classes, x.shape[-1], int(np.prod(x.shape[1:-1])))
    for part in np.split(np.arange(len(x)), np.cumsum(sizes)[:-1]):
        sums = scores.class_add(sums, jnp.asarray(x[part]), jnp.asarray(labels[part]))
    return scores.one_vs_rest(sums)


def direct(x, labels):
    """The same in float64, by selecting the samples of every class and of its rest."""
    x = np.asarray(x, np.float64).reshape(len(x), -1, x.shape[-1])
    out = {field: [] for field in scores.OneVsRest._fields[:-1]}
    for c in np.unique(labels):
        for name, part in (("p", x[labels == c]), ("q", x[labels != c])):
            out[f"mean_{name}"].append(part.mean((0, 1)))
            out[f"var_{name}"].append(part.var((0, 1)))
            out[f"count_{name}"].append(len(part))
            out[f"vector_{name}"].append(part.mean(0).T)
    stacked = {name: np.stack(rows, -1 if "count" in name else 1) for name, rows in out.items()}
    return scores.OneVsRest(**stacked, vector=x.mean(0).T)


def maps(samples=60, classes=4, channels=5, offset=0.0, side=3):
    labels = RNG.integers(0, classes, samples)
    labels[:classes] = np.arange(classes)
    x = RNG.normal(size=(samples, side, side + 1, channels)) + 0.5 * np.sin(labels)[:, None, None, None]
    return (x * np.linspace(0.5, 3, channels) + offset).astype(np.float32), labels.astype(np.int32)


@pytest.mark.parametrize("sizes", [(60,), (7, 30, 1, 22)])
def test_streamed_statistics_are_those_of_two_passes(sizes) -> None:
    x, labels = maps()
    found, expected = stream(x, labels, 4, sizes), direct(x, labels)
    for name, left, right in zip(found._fields, found, expected, strict=True):
        assert left.dtype == jnp.float32
        np.testing.assert_allclose(left, right, rtol=2e-5, atol=2e-6, err_msg=name)


def test_variances_survive_an_offset_that_float32_cancellation_would_not() -> None:
    x, labels = maps(samples=300, offset=1e4)
    found, expected = stream(x, labels, 4, (100, 100, 100)), direct(x, labels)
    np.testing.assert_allclose(found.var_p, expected.var_p, rtol=1e-4)
    np.testing.assert_allclose(found.var_q, expected.var_q, rtol=1e-4)
    np.testing.assert_allclose(found.vector_p, expected.vector_p, rtol=1e-6)
    flat = x.reshape(-1, x.shape[-1])
    naive = np.square(flat).mean(0, dtype=np.float32) - np.square(flat.mean(0, dtype=np.float32))
    assert np.abs(naive / flat.astype(np.float64).var(0) - 1).max() > 0.1  # so the data do test something


def test_classes_far_apart_do_not_cancel_either() -> None:
    labels = np.repeat(np.arange(3, dtype=np.int32), 40)
    x = (RNG.normal(size=(120, 2)) + 1e4 * labels[:, None]).astype(np.float32)
    found, expected = stream(x, labels, 3, (50, 50, 20)), direct(x, labels)
    np.testing.assert_allclose(found.var_p, expected.var_p, rtol=1e-3)
    np.testing.assert_allclose(found.var_q, expected.var_q, rtol=1e-5)


def test_float64_where_it_is_on() -> None:
    with jax.enable_x64(True):
        x, labels = maps(offset=1e4)
        found, expected = stream(x.astype(np.float64), labels, 4, (30, 30)), direct(x, labels)
        for name, left, right in zip(found._fields, found, expected, strict=True):
            assert left.dtype == jnp.float64
            np.testing.assert_allclose(left, right, rtol=1e-10, err_msg=name)


def test_order_and_batches_do_not_matter_and_padding_does_not_count() -> None:
    x, labels = maps()
    once = stream(x, labels, 4, (60,))
    order = RNG.permutation(60)
    padded = np.concatenate([x[order], 50 + x[:5]]), np.concatenate([labels[order], np.full(5, -1, np.int32)])
    for left, right in zip(once, stream(*padded, 4, (20, 45)), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)


def test_a_first_batch_that_does_not_count_sets_no_shift() -> None:
    x, labels = maps(offset=1e4)
    nothing = np.concatenate([np.zeros_like(x[:10]), x]), np.concatenate([np.full(10, -1, np.int32), labels])
    found = stream(*nothing, 4, (10, 60))
    np.testing.assert_allclose(found.var_p, direct(x, labels).var_p, rtol=1e-4)


def test_absent_classes_are_left_out() -> None:
    x, labels = maps(classes=3)
    wide = stream(x, 2 * labels + 1, 9, (60,))
    for left, right in zip(stream(x, labels, 3, (60,)), wide, strict=True):
        np.testing.assert_array_equal(left, right)


FORMULAS = {
    "absolute_snr": lambda gp, gq, vp, vq, n, m: abs(gp - gq) / (vp**0.5 + vq**0.5 + 1e-4),
    "fisher_ratio": lambda gp, gq, vp, vq, n, m: (gp - gq) ** 2 / (vp + vq + 1e-4),
    "symmetric_divergence": lambda gp, gq, vp, vq, n, m: (
        0.5 * (vp / (vq + 0.05) + vq / (vp + 0.05)) + 0.5 * (gp - gq) ** 2 / (vp + vq + 0.05) - 1
    ),
    "two_sample_t": lambda gp, gq, vp, vq, n, m: abs(gp - gq) / (vp / n + vq / m + 1e-4) ** 0.5,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_scores_are_their_formulas_class_by_class(name) -> None:
    x, labels = maps()
    wide, expected = x.astype(np.float64), np.zeros(x.shape[-1])
    for channel in range(x.shape[-1]):
        terms = []
        for c in range(4):
            p, q = wide[labels == c][..., channel], wide[labels != c][..., channel]
            terms.append(FORMULAS[name](p.mean(), q.mean(), p.var(), q.var(), len(p), len(q)))
        expected[channel] = np.mean(terms)
    found = getattr(scores, name)(stream(x, labels, 4, (25, 35)))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FORMULAS)
def test_moving_a_channel_changes_nothing_and_a_constant_one_is_last(name) -> None:
    x, labels = maps()
    x[..., 0] = 3.0
    score = getattr(scores, name)
    found = score(stream(x, labels, 4, (60,)))
    assert np.argmin(found) == 0
    np.testing.assert_allclose(found[0], -1 if name == "symmetric_divergence" else 0, atol=1e-6)
    np.testing.assert_allclose(score(stream(x + 8, labels, 4, (60,))), found, rtol=1e-3, atol=1e-5)


def test_symmetric_divergence_sees_variance_alone_and_the_fisher_ratio_does_not() -> None:
    labels = np.repeat(np.array([0, 1], np.int32), 200)
    x = RNG.normal(size=(400, 2))
    x[:, 0] *= np.where(labels, 1.0, 4.0)
    statistics = stream(x.astype(np.float32), labels, 2, (400,))
    different, equal = scores.symmetric_divergence(statistics)
    assert different > 5
    assert equal < 0.2
    assert scores.fisher_ratio(statistics).max() < 0.1


def test_bad_input(unchecked) -> None:
    start, add = scores.class_start, scores.class_add
    x, labels = jnp.ones((4, 2, 2, 3)), jnp.array([0, 1, 1, 0])
    for sizes in ((1, 3), (2, 0), (2, 3, 0)):
        with pytest.raises(ValueError, match="at least two classes, one channel and one position"):
            start(*sizes)
    for wrong in (x[..., :2], x[:, :1], x[:, 0, 0, 0], jnp.ones((4, 12))):
        with pytest.raises(ValueError, match="do not fit sums over 4 positions of 3 channels"):
            add(start(2, 3, 4), wrong, labels)
    with pytest.raises(ValueError, match=r"4 samples have labels of shape \(3,\)"):
        add(start(2, 3, 4), x, labels[:3])
    with pytest.raises(ValueError, match="Samples of 0 of 2 classes were seen"):
        scores.one_vs_rest(start(2, 3))
    with pytest.raises(ValueError, match="Samples of 1 of 2 classes were seen"):
        scores.one_vs_rest(add(start(2, 3, 4), x, jnp.zeros(4, jnp.int32)))
    for strange in (2, -2):
        with pytest.raises(ValueError, match="1 labels are not between 0 and 1"):
            scores.one_vs_rest(add(start(2, 3, 4), x, labels.at[3].set(strange)))
    for value in (jnp.nan, jnp.inf, 1e30):
        with pytest.raises(ValueError, match=r"Features of channels \[1\] are not finite"):
            scores.one_vs_rest(add(start(2, 3, 4), x.at[2, 0, 1, 1].set(value), labels))


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.uint32, jnp.int8])
def test_labels_may_have_any_kind_of_integer(dtype):
    x, labels = jnp.asarray(RNG.normal(size=(12, 2)), jnp.float32), jnp.arange(12) % 3
    wide = scores.one_vs_rest(scores.class_add(scores.class_start(300, 2), x, labels))
    found = scores.one_vs_rest(scores.class_add(scores.class_start(300, 2), x, labels.astype(dtype)))
    jax.tree.map(np.testing.assert_array_equal, found, wide)
