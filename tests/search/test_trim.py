"""Trimming: the target is met, the right group is chosen, and what cannot be met is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

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
            latency=latency,
            score=lambda params: SCORES,
            accuracy=loss_of(price or {"a": 0.01, "b": 0.01}),
            tune=lambda params, keep: {"tuned": params["tuned"] + 1},
            **kwargs,
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
    "wrong", [{"speedup": 1.0}, {"rounds": 0}, {"decay": 0.0}, {"multiple": 0}, {"floor": 2.0}, {"floor": {"a": 17}}]
)
def test_bad_arguments(wrong):
    with pytest.raises(ValueError, match=r"must|exceed"):
        run(**wrong)


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
