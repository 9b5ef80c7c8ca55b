"""Random masks and pruning in rounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import masks, scores, trees

SHAPES = {"conv": (3, 3, 2), "fc": (5, 4), "fc2": (5, 4)}


def test_random_masks_have_the_counts_and_depend_on_key_and_leaf() -> None:
    counts = masks.erk(SHAPES, 0.5)
    one, again, other = (masks.random(jax.random.key(seed), SHAPES, counts) for seed in (0, 0, 1))
    assert {path: int(mask.sum()) for path, mask in one.items()} == counts
    for path, shape in SHAPES.items():
        assert one[path].shape == shape
        np.testing.assert_array_equal(one[path], again[path])
        assert not np.array_equal(one[path], other[path])
    assert not np.array_equal(one["fc"], one["fc2"])


def test_every_entry_is_equally_likely_over_a_population() -> None:
    draw = jax.jit(jax.vmap(lambda key: masks.random(key, {"w": (8,)}, {"w": 2})["w"]))
    frequency = jnp.mean(draw(jax.random.split(jax.random.key(0), 4000)), axis=0)
    # Four standard deviations of a mean of 4000 draws at 1/4.
    np.testing.assert_allclose(frequency, 0.25, atol=4 * (0.25 * 0.75 / 4000) ** 0.5)


def test_random_masks_refuse_what_does_not_match() -> None:
    with pytest.raises(ValueError, match="'fc' is only in scores"):
        masks.random(jax.random.key(0), {"fc": (3,)}, {})
    with pytest.raises(ValueError, match="fc: count=4"):
        masks.random(jax.random.key(0), {"fc": (3,)}, {"fc": 4})


def random_tree():
    rng = np.random.default_rng(0)
    return {path: jnp.asarray(rng.normal(size=shape), jnp.float32) for path, shape in SHAPES.items()}


@pytest.mark.parametrize("rounds", [pytest.param(1, marks=pytest.mark.slow), 7])
def test_a_score_of_single_weights_gives_the_one_shot_masks(rounds) -> None:
    tree = random_tree()
    once = scores.magnitude(tree)
    expected = masks.from_scores(once, masks.global_(once, 9))
    found = masks.iterative(scores.magnitude, tree, 9, rounds=rounds)
    assert list(found) == list(expected)
    for path, mask in found.items():
        np.testing.assert_array_equal(mask, expected[path])


def test_the_same_share_goes_in_every_round() -> None:
    seen = []

    def score(tree):
        jax.debug.callback(lambda w: seen.append(int(np.sum(w != 0))), tree["w"], ordered=True)
        return {"w": jnp.abs(tree["w"])}

    masks.iterative(score, {"w": jnp.arange(1.0, 65.0)}, 4, rounds=4)
    jax.effects_barrier()
    assert seen == [64, 32, 16, 8]


def test_only_leaves_with_a_score_are_pruned_and_signed_scores_count() -> None:
    tree = {"w": jnp.array([-1.0, 2.0, -3.0]), "bias": jnp.ones(2)}
    found = masks.iterative(lambda t: {"w": t["w"]}, tree, 2, rounds=3)
    assert set(found) == {"w"}
    np.testing.assert_array_equal(found["w"], [True, True, False])


def test_bad_input() -> None:
    tree = random_tree()
    total = sum(leaf.size for leaf in trees.leaves(tree).values())
    for keep in (0, total + 1):
        with pytest.raises(ValueError, match=f"keep={keep} must lie between 1 and the {total}"):
            masks.iterative(scores.magnitude, tree, keep)
    with pytest.raises(ValueError, match="rounds=0"):
        masks.iterative(scores.magnitude, tree, 3, rounds=0)
    with pytest.raises(ValueError, match="scores of 'fc' are not all finite"):
        masks.iterative(scores.magnitude, tree | {"fc": tree["fc"].at[0, 0].set(jnp.inf)}, 3, rounds=2)
