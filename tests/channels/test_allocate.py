"""Allocation: shares, the global competition, rounding, floors, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest

from compressjax.channels import Group, allocate

GROUPS = (Group("a", 8, (), ()), Group("b", 4, (), ()))
SCORES = {"a": np.arange(8.0), "b": 100 * np.arange(4.0)}


def widths(share, **kwargs):
    return {name: int(kept.sum()) for name, kept in allocate(GROUPS, SCORES, share, **kwargs).items()}


def test_same_share_everywhere():
    kept = allocate(GROUPS, SCORES, 0.5)
    assert kept["a"].tolist() == [False] * 4 + [True] * 4
    assert kept["b"].tolist() == [False] * 2 + [True] * 2


def test_ties_go_to_the_lower_number():
    kept = allocate(GROUPS[:1], {"a": np.ones(8)}, 0.25)
    assert kept["a"].tolist() == [True, True] + [False] * 6


def test_global_without_normalization_is_ruled_by_scale():
    assert widths(0.25, ranking="global", normalize=False) == {"a": 1, "b": 3}
    assert widths(0.5, ranking="global") == {"a": 4, "b": 2}


def test_per_group_shares_are_outside_the_competition():
    assert widths(0.25, per_group={"b": 1.0}) == {"a": 2, "b": 4}
    assert widths(0.25, ranking="global", per_group={"b": 1.0}) == {"a": 2, "b": 4}


def test_multiples_and_floors():
    assert widths(0.3, multiple=4) == {"a": 4, "b": 4}
    assert widths(0.55, multiple=4) == {"a": 4, "b": 4}
    assert widths(0.95, multiple=4) == {"a": 8, "b": 4}
    assert widths(0.0) == {"a": 1, "b": 1}
    assert widths(0.0, floor=0.5) == {"a": 4, "b": 2}
    # A floor is rounded up to a multiple; where a group has not so many members, it stays whole.
    assert widths(0.0, floor=0.5, multiple=3) == {"a": 6, "b": 3}
    assert widths(0.0, floor=0.8, multiple=3) == {"a": 8, "b": 4}
    assert widths(0.0, multiple=5) == {"a": 5, "b": 4}
    assert widths(0.0, multiple=16) == {"a": 8, "b": 4}


@pytest.mark.parametrize("ranking", ["group", "global"])
def test_a_larger_share_never_keeps_less(ranking):
    rng = np.random.default_rng(0)
    scores = {"a": rng.random(8), "b": rng.random(4)}
    before = {"a": np.zeros(8, bool), "b": np.zeros(4, bool)}
    for share in np.linspace(0, 1, 25):
        kept = allocate(GROUPS, scores, float(share), ranking=ranking, multiple=2)
        assert all((kept[name] >= before[name]).all() for name in kept)
        before = kept
    assert all(kept.all() for kept in before.values())


@pytest.mark.parametrize(
    ("scores", "kwargs", "match"),
    [
        ({"a": np.ones(8)}, {}, "no scores for group 'b'"),
        ({"a": np.ones(7), "b": np.ones(4)}, {}, r"'a' have shape \(7,\)"),
        ({"a": np.full(8, np.nan), "b": np.ones(4)}, {}, "not finite"),
        (SCORES, {"share": 1.5}, "must lie in"),
        (SCORES, {"floor": -1.0}, "must lie in"),
        (SCORES, {"multiple": 0}, "at least 1"),
        (SCORES, {"ranking": "local"}, "no ranking"),
        (SCORES, {"per_group": {"c": 0.5}}, "none of the groups"),
    ],
)
def test_bad_input(scores, kwargs, match):
    with pytest.raises(ValueError, match=match):
        allocate(GROUPS, scores, **{"share": 0.5, **kwargs})


def test_wrong_types(unchecked):
    for wrong in (2.5, float("nan"), True, "4"):
        with pytest.raises(ValueError, match=r"multiple=.* must be a whole number, at least 1"):
            allocate(GROUPS, SCORES, 0.5, multiple=wrong)
    with pytest.raises(ValueError, match=r"groups is a SimpleNamespace, no sequence of groups: pass its \.groups"):
        allocate(SimpleNamespace(groups=GROUPS), SCORES, 0.5)
