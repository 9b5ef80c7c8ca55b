"""Trimming: the target is met, the right group is chosen, and what cannot be met is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from compressjax.channels import Group, allocate
from compressjax.search import at_cost, trim

SIZES = {"a": 16, "b": 8}
SCORES = {"a": np.arange(16.0), "b": -np.arange(8.0)}


def linear(widths):
    return 2.0 * widths["a"] + 1.0 * widths["b"]


def loss_of(price):
    return lambda params, keep: 1.0 - sum(price[name] * int((~kept).sum()) for name, kept in keep.items())


def run(latency=linear, price=None, **kwargs):
    kwargs = {"speedup": 2.0, "rounds": 5} | kwargs
    return list(
        trim(
            {"tuned": 0},
            SIZES,
            **{
                "latency": latency,
                "score": lambda params: SCORES,
                "accuracy": loss_of(price or {"a": 0.01, "b": 0.01}),
                "tune": lambda params, keep: {"tuned": params["tuned"] + 1},
            }
            | kwargs,
        )
    )


def test_target_is_met_and_every_round_is_faster():
    steps = run()
    times = [step.latency for step in steps]
    assert times[-1] <= 40.0 / 2
    assert times == sorted(set(times), reverse=True)
    assert [step.number for step in steps] == list(range(1, len(steps) + 1))
    assert steps[-1].params == {"tuned": len(steps)}
    widths = {name: int(kept.sum()) for name, kept in steps[-1].keep.items()}
    assert linear(widths) == times[-1]


def test_lowest_scores_go_first_and_the_cheaper_group_is_chosen():
    steps = run(price={"a": 0.001, "b": 1.0}, floor={"a": 2, "b": 8})
    assert {step.chosen.group for step in steps} == {"a"}
    kept = steps[-1].keep["a"]
    assert kept.tolist() == sorted(kept.tolist())  # the highest scores are the last members
    assert steps[-1].keep["b"].all()


def test_platforms_disagree():
    """A platform that runs blocks of 8 gains nothing inside a block, so its networks differ."""
    blocks = run(latency=lambda w: 2.0 * jnp.ceil(w["a"] / 8) + jnp.ceil(w["b"] / 8), floor=0.0, speedup=1.5)
    assert int(blocks[-1].keep["a"].sum()) % 8 == 0
    smooth = run(speedup=1.5)
    assert int(smooth[-1].keep["a"].sum()) != int(blocks[-1].keep["a"].sum())


def test_multiples():
    steps = run(multiple=4, floor=0.25)
    assert all(candidate.width % 4 == 0 for step in steps for candidate in step.candidates if candidate.group == "a")


def test_least_widths_are_those_of_allocate():
    groups = [Group(name, size, (), ()) for name, size in SIZES.items()]
    for multiple, floor, speedup in ((16, 0.25, None), (5, 0.25, 2.0), (3, 0.5, 1.4), (6, 0.3, 1.6), (1, 0.0, 10.0)):
        least = {
            name: int(kept.sum())
            for name, kept in allocate(groups, SCORES, 0.0, multiple=multiple, floor=floor).items()
        }
        if speedup is None:
            with pytest.raises(ValueError, match="cannot be met"):
                run(speedup=1.01, multiple=multiple, floor=floor)
            assert least == SIZES
            continue
        steps = run(speedup=linear(SIZES) / linear(least), rounds=50, multiple=multiple, floor=floor)
        assert {name: int(kept.sum()) for name, kept in steps[-1].keep.items()} == least
        for candidate in (candidate for step in steps for candidate in step.candidates):
            assert candidate.width % multiple == 0


def test_floors_by_group_are_rounded_up_to_a_multiple():
    steps = run(multiple=4, floor={"a": 3, "b": 5}, speedup=40 / 16)
    assert {name: int(kept.sum()) for name, kept in steps[-1].keep.items()} == {"a": 4, "b": 8}


def test_nan_never_wins():
    steps = list(
        trim(
            None,
            SIZES,
            latency=linear,
            score=lambda params: SCORES,
            accuracy=lambda params, keep: np.nan if not keep["b"].all() else 0.1,
            speedup=1.2,
            rounds=2,
        )
    )
    assert {step.chosen.group for step in steps} == {"a"}


def test_what_cannot_be_met_is_refused():
    with pytest.raises(ValueError, match="cannot be met"):
        run(floor=0.75, speedup=4.0)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"speedup": 1.0}, "speedup=1.0 must exceed 1"),
        ({"speedup": np.nan}, "speedup=nan must exceed 1"),
        ({"rounds": 0}, "rounds=0 must be a whole number"),
        ({"decay": 0.0}, r"decay=0.0 lie in \(0, 1\]"),
        ({"decay": np.nan}, "decay=nan lie in"),
        ({"multiple": 0}, "multiple=0 must be a whole number"),
        ({"floor": 2.0}, "floor=2.0 is a share"),
        ({"floor": np.nan}, "floor=nan is a share"),
        ({"floor": {"a": 17, "b": 1}}, r"floor of group 'a' is 17: it must lie in 1\.\.16"),
        ({"floor": {"a": 0, "b": 1}}, "floor of group 'a'=0 must be a whole number"),
        ({"floor": {"a": 1}}, "floor has nothing for group 'b'"),
        ({"floor": {"a": 1, "b": 1, "c": 1}}, "floor names 'c', which is none of the groups a, b"),
        ({"latency": lambda w: jnp.nan * w["a"]}, "latency of the untrimmed network is nan"),
        ({"latency": lambda w: 0.0 * w["a"]}, "is 0.0: it must be finite and above 0"),
        ({"latency": lambda w: jnp.ones(3) * w["a"]}, r"arrays of shape \(3,\): it must return one number"),
        (
            {"latency": lambda w: jnp.where(w["b"] == 5, jnp.nan, linear(w))},
            r"nan at widths \{'a': 16, 'b': 5\}: return inf",
        ),
        ({"score": lambda params: {"a": SCORES["a"]}}, "no scores for group 'b'"),
        ({"score": lambda params: SCORES | {"b": np.ones(5)}}, r"'b' have shape \(5,\), not \(8,\)"),
        ({"score": lambda params: SCORES | {"a": np.full(16, np.nan)}}, "'a' hold values that are not finite"),
        ({"accuracy": lambda params, keep: np.nan}, r"accuracy is nan for all candidates of round 1 \(a at \d+, b at"),
    ],
)
def test_bad_arguments(wrong, match):
    with pytest.raises(ValueError, match=match):
        run(**wrong)


def test_infinity_says_that_a_width_cannot_be_had():
    steps = run(latency=lambda w: jnp.where(w["a"] % 2 == 1, jnp.inf, linear(w)), floor=0.0, rounds=20)
    assert steps[-1].latency <= 20.0
    assert all(candidate.width % 2 == 0 for step in steps for candidate in step.candidates if candidate.group == "a")
    # Below the floor nothing is asked.
    assert run(latency=lambda w: jnp.where(w["a"] < 2, jnp.nan, linear(w)), floor=0.125)


def test_scores_are_checked_in_every_round():
    def score(params):
        return SCORES if params["tuned"] == 0 else {"a": SCORES["a"]}

    with pytest.raises(ValueError, match="no scores for group 'b'"):
        run(score=score, floor={"a": 1, "b": 8}, rounds=10)


def test_no_groups():
    with pytest.raises(ValueError, match="no group"):
        next(trim(None, {}, latency=linear, score=dict, accuracy=lambda p, k: 0.0, speedup=2.0))


def test_at_cost_bounds():
    def family(share):
        return {"a": np.arange(10) < max(1, round(10 * share))}

    def cost(widths):
        return jnp.asarray(float(widths["a"]))

    assert at_cost(family, cost, 10.0)["a"].all()
    assert int(at_cost(family, cost, 7.2)["a"].sum()) == 7
    with pytest.raises(ValueError, match="smallest"):
        at_cost(family, cost, 0.5)
    with pytest.raises(ValueError, match="target=nan must be a number"):
        at_cost(family, cost, np.nan)
    with pytest.raises(ValueError, match=r"cost is nan at widths \{'a': 1\}"):
        at_cost(family, lambda widths: jnp.nan * cost(widths), 5.0)
