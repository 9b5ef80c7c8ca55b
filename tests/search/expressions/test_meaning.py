"""Equal rankings are equal designs: normal forms, keys of what is kept, distances of rankings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax.search import expressions as ex
from tests.search.expressions.test_values import layer


@pytest.mark.parametrize(
    "formula, plain",
    [
        ("ridge(eps(gP * gQ))", "gP * gQ"),
        ("2 * (0.5 + gP * gQ) / 0.05", "gP * gQ"),
        ("mean(sum(mX))", "mX"),
        ("abs(gP) - nP / nQ", "abs(gP)"),
        ("nP + gP", "gP"),
        ("nP - gP", "nP - gP"),  # turns the ranking round
        ("-2 * gP", "-2.0 * gP"),
        ("nP * gP", "nP * gP"),  # weighs the classes
        ("2 / gP", "2.0 / gP"),
        ("sqrt(gP)", "sqrt(gP)"),  # a sum of roots does not rank as the sum
        ("square(abs(gP))", "square(abs(gP))"),
        ("nP + 1", "nP + 1.0"),
        ("ridge(2)", "ridge(2.0)"),
    ],
)
def test_the_root_loses_what_changes_no_ranking(formula, plain):
    assert ex.unparse(ex.normalized(ex.parse(formula))) == plain


def test_normal_forms_rank_alike():
    *_, t = layer()
    changed = 0
    for seed in range(4):
        programs = ex.random_programs(jax.random.key(seed), 60, 15, least=1, most=3)
        plain = ex.stacked([ex.normalized(ex.single(programs, i)) for i in range(60)], 15)
        changed += int((ex.lengths(plain.tokens) < ex.lengths(programs.tokens)).sum())
        before, after = (ex.shared(some, t).astype(np.float64) for some in (programs, plain))
        for one, two in zip(before, after, strict=True):
            span, range_ = np.ptp(one), np.ptp(two)
            if max(np.abs(one).max(), np.abs(two).max()) > 1e4 or min(span, range_) <= 1e-3 * np.abs(one).max():
                continue  # cut, or equal up to rounding
            np.testing.assert_allclose((one - one.min()) / span, (two - two.min()) / range_, atol=2e-2)
    assert changed > 20


def test_a_root_of_each_class_does_not_rank_as_the_sum():
    """Why square roots stay: two classes, two channels, and the order turns round."""
    language = ex.PAPER.only(["gP"])
    t = {"gP": jnp.array([[[9.0], [0.0]], [[4.0], [4.0]]])}
    plain, root = ex.shared(ex.stacked([ex.parse(f, language) for f in ("gP", "sqrt(gP)")], 4), t, language)
    assert plain[0] > plain[1]
    assert root[0] < root[1]


def test_keys_are_equal_exactly_if_the_same_channels_stay():
    rng = np.random.default_rng(0)
    scores = {"a": rng.integers(0, 3, (40, 5)).astype(float), "b": rng.normal(size=(40, 4))}
    keep = {"a": 2, "b": 3}
    keys = ex.induced(scores, keep)
    sets = [
        tuple(tuple(sorted(np.argsort(-scores[name][i], kind="stable")[: keep[name]])) for name in "ab")
        for i in range(40)
    ]
    assert len(set(keys)) < 40
    for i in range(40):
        for j in range(40):
            assert (keys[i] == keys[j]) == (sets[i] == sets[j])
    assert ex.induced(dict(reversed(scores.items())), keep) == keys
    monotone = {name: np.exp(array) for name, array in scores.items()}
    assert ex.induced(monotone, keep) == keys


def test_bad_cuts_are_refused():
    with pytest.raises(ValueError, match=r"keep=3 must lie in 0\.\.2"):
        ex.induced({"a": np.ones((1, 2))}, {"a": 3})
    with pytest.raises(ValueError, match="must be the same"):
        ex.induced({"a": np.ones((1, 2))}, {"b": 1})
    with pytest.raises(ValueError, match="different numbers"):
        ex.induced({"a": np.ones((1, 2)), "b": np.ones((2, 2))}, {"a": 1, "b": 1})
    with pytest.raises(ValueError, match="no pairs"):
        ex.distances(np.ones((2, 1)))


def test_distances_count_pairs_in_another_order():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (6, 7)).astype(np.float32)
    scores[0, :2] = -np.inf

    def by_definition(a, b):
        pairs = [(i, j) for i in range(7) for j in range(i)]
        apart = 0.0
        for i, j in pairs:
            one, two = (int(x[i] > x[j]) - int(x[i] < x[j]) for x in (a, b))
            apart += abs(one - two) / 2
        return apart / len(pairs)

    wanted = [[by_definition(a, b) for b in scores] for a in scores]
    found = np.asarray(ex.distances(scores))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert np.all(np.diag(found) == 0)
