"""Sensitivity rounds on a fake network: amounts by cost, choice by masked accuracy, and the target met."""

import jax.numpy as jnp
import numpy as np
import pytest

from compressjax.search import sensitivity

SIZES = {"a": 8, "b": 40, "c": 20}
PRICE = {"a": 12.0, "b": 1.0, "c": 5.0}
SCORES = {name: np.arange(float(size)) for name, size in SIZES.items()}
LOSS = {"a": 0.01, "b": 0.001, "c": 0.02}


def cost(widths):
    return sum(PRICE[name] * widths[name] for name in PRICE)


def accuracy_of(loss):
    return lambda params, keep: 1.0 - sum(loss[name] * int((~kept).sum()) for name, kept in keep.items())


def run(loss=None, **kwargs):
    given = {
        "cost": cost,
        "score": lambda params: SCORES,
        "accuracy": accuracy_of(loss or LOSS),
        "tune": lambda params, keep: {"tuned": params["tuned"] + 1},
        "speedup": 2.0,
    }
    return list(sensitivity({"tuned": 0}, SIZES, **given | kwargs))


def test_amounts_cost_about_the_same():
    first = run()[0]
    assert [(t.group, t.removed) for t in first.trials] == [("a", 1), ("b", 12), ("c", 2)]  # 12 / 12, 12 / 1, 12 / 5
    assert [t.cost for t in first.trials] == [cost(SIZES) - 12, cost(SIZES) - 12, cost(SIZES) - 10]
    double = run(amount=2.0)[0]
    assert [(t.group, t.removed) for t in double.trials] == [("a", 2), ("b", 24), ("c", 4)]
    # Less than one member of the dearest group is still one.
    assert [t.removed for t in run(amount=0.5)[0].trials] == [1, 6, 1]


def test_amounts_follow_the_widths_that_are_left():
    """A product: a member of one group costs what the other still has."""
    rounds = run(cost=lambda w: 1.0 * w["a"] * w["b"] + 0.5 * w["c"], loss={"a": 1.0, "b": 0.001, "c": 1.0})
    previous = SIZES
    for found in rounds:
        widths = {name: int(kept.sum()) for name, kept in found.keep.items()}
        dear = max(previous["a"], previous["b"])
        for trial in found.trials:
            if trial.group == "b" and previous["b"] - dear // previous["a"] >= 5:
                assert trial.removed == dear // previous["a"]
        previous = widths


def test_the_target_is_met_and_every_round_is_cheaper():
    rounds = run()
    costs = [found.cost for found in rounds]
    assert costs[-1] <= cost(SIZES) / 2 < costs[-2]
    assert costs == sorted(set(costs), reverse=True)
    assert [found.number for found in rounds] == list(range(1, len(rounds) + 1))
    assert rounds[-1].params == {"tuned": len(rounds)}
    assert cost({name: int(kept.sum()) for name, kept in rounds[-1].keep.items()}) == costs[-1]


def test_the_groups_that_bear_it_best_are_pruned_lowest_scores_first():
    found = run(layers=2)[0]
    by_accuracy = sorted(found.trials, key=lambda t: -t.accuracy)
    assert [t.group for t in found.chosen] == [t.group for t in by_accuracy[:2]] == ["a", "b"]
    assert found.keep["c"].all()
    assert np.flatnonzero(~found.keep["b"]).tolist() == list(range(12))
    assert np.flatnonzero(~found.keep["a"]).tolist() == [0]


def test_masked_accuracy_is_of_one_group_alone_and_of_the_tuned_parameters():
    seen = []

    def accuracy(params, keep):
        seen.append((params["tuned"], {name: int((~kept).sum()) for name, kept in keep.items()}))
        return accuracy_of(LOSS)(params, keep)

    rounds = run(accuracy=accuracy, layers=3)
    assert seen[:3] == [(0, {"a": 1, "b": 0, "c": 0}), (0, {"a": 0, "b": 12, "c": 0}), (0, {"a": 0, "b": 0, "c": 2})]
    assert seen[3][0] == 1
    assert seen[3][1] == {"a": 2, "b": 12, "c": 2}
    assert len(seen) == sum(len(found.trials) for found in rounds)


def test_the_last_round_stops_at_the_target():
    rounds = run(layers=3, speedup=cost(SIZES) / (cost(SIZES) - 11))
    assert len(rounds) == 1
    assert [t.group for t in rounds[0].chosen] == ["a"]  # a alone saves 12


def test_it_loses_less_than_equal_shares():
    """What it claims to beat: the same cost with every group cut by the same share."""
    rounds = run(loss={"a": 0.02, "b": 0.001, "c": 0.002})
    shares = np.linspace(1, 0, 101)
    uniform = next(
        keep
        for keep in ({name: np.arange(n) >= round(n * (1 - s)) for name, n in SIZES.items()} for s in shares)
        if cost({name: int(kept.sum()) for name, kept in keep.items()}) <= cost(SIZES) / 2
    )
    judge = accuracy_of({"a": 0.02, "b": 0.001, "c": 0.002})
    assert judge(None, rounds[-1].keep) > judge(None, uniform) + 0.02


def test_floors_and_multiples():
    rounds = run(multiple=4, floor={"a": 3, "b": 5, "c": 20}, speedup=cost(SIZES) / (12 * 4 + 8 + 100))
    widths = {name: int(kept.sum()) for name, kept in rounds[-1].keep.items()}
    assert widths == {"a": 4, "b": 8, "c": 20}
    assert all(t.width % 4 == 0 for found in rounds for t in found.trials)
    assert {t.group for found in rounds for t in found.trials} == {"a", "b"}
    assert run(multiple=16, floor=0.0, speedup=1.05)[-1].keep["a"].all()  # 8 members are no multiple of 16


def test_nan_never_wins_and_ties_go_to_the_cheaper():
    def accuracy(params, keep):
        return np.nan if not keep["a"].all() else 0.5

    rounds = run(accuracy=accuracy, speedup=1.1)
    assert all(t.group != "a" for found in rounds for t in found.chosen)
    assert rounds[0].chosen[0].group == "b"  # 12 saved, c saves 10


def test_what_cannot_be_met_is_refused():
    with pytest.raises(ValueError, match=r"cannot be met: with every group at its floor it is 1\.333"):
        run(floor=0.75, speedup=4.0)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"speedup": 1.0}, "speedup=1.0 must exceed 1"),
        ({"speedup": np.nan}, "speedup=nan must exceed 1"),
        ({"amount": 0.0}, "amount=0.0 be finite and above 0"),
        ({"amount": np.inf}, "amount=inf be finite"),
        ({"layers": 0}, "layers=0 must be a whole number"),
        ({"multiple": 0}, "multiple=0 must be a whole number"),
        ({"floor": 2.0}, "floor=2.0 is a share"),
        ({"floor": {"a": 1}}, "floor has nothing for group 'b'"),
        ({"cost": lambda w: jnp.nan * w["a"]}, "cost is nan at widths {'a': 8, 'b': 40, 'c': 20}"),
        ({"cost": lambda w: 0.0 * w["a"]}, "cost of the whole network is 0.0"),
        ({"cost": lambda w: jnp.ones(3) * w["a"]}, r"arrays of shape \(3,\): it must return one number"),
        ({"cost": lambda w: 1.0 * w["a"] + w["c"]}, "One member less of 'b' saves 0: the cost must rise"),
        ({"score": lambda params: {"a": SCORES["a"]}}, "no scores for group 'b'"),
        ({"score": lambda params: SCORES | {"a": np.full(8, np.nan)}}, "'a' hold values that are not finite"),
        ({"accuracy": lambda params, keep: np.nan}, r"accuracy is nan for all groups tried in round 1 \(a at 7, b at"),
    ],
)
def test_bad_arguments(wrong, match):
    with pytest.raises(ValueError, match=match):
        run(**wrong)


def test_no_groups():
    with pytest.raises(ValueError, match="no group"):
        next(sensitivity(None, {}, cost=cost, score=dict, accuracy=lambda p, k: 0.0, speedup=2.0))
