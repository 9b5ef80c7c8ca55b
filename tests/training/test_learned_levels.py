"""Training of learned levels: values, gradients, and what it is better than."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from compressjax import trees
from compressjax.quantizers import Binary, DoReFaWeights, LearnedCodebook, LearnedStep, PowerOfTwo
from compressjax.training import WithLevels, learned_levels, masked, quantized, straight_through, with_levels

RULES = {
    "LSQ": LearnedStep(2),
    "LSQ per channel": LearnedStep(2, axis=-1),
    "DoReFa": DoReFaWeights(2),
    "power of two, straight through": PowerOfTwo(3),
}


def problem():
    """Least squares with correlated features; two outputs of unlike size."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 12)) @ (np.eye(12) + 0.5)
    w = rng.normal(size=(12, 2)) * np.array([0.5, 0.1])
    return jnp.asarray(x, jnp.float32), jnp.asarray(x @ w, jnp.float32), jnp.asarray(w, jnp.float32)


def train(loss, start, steps=150, wrap=lambda inner: inner):
    optimizer = wrap(optax.adam(optax.cosine_decay_schedule(0.02, steps)))
    state = optimizer.init(start)

    @jax.jit
    def step(now, state):
        value, gradient = jax.value_and_grad(loss)(now)
        updates, state = optimizer.update(gradient, state, now)
        return optax.apply_updates(now, updates), state, value

    best = np.inf
    for _ in range(steps):
        start, state, value = step(start, state)
        best = min(best, float(value))
    return start, best


@pytest.mark.parametrize("name", RULES)
def test_training_beats_rounding(name):
    x, y, w = problem()
    rules = {"w": RULES[name]}
    loss = learned_levels(lambda params: jnp.mean((x @ params["w"] - y) ** 2), rules)
    start = with_levels({"w": w}, rules)
    rounded = float(loss(start))
    _, best = train(loss, start)
    assert best < 0.7 * rounded


def test_a_learned_step_beats_the_step_it_starts_with():
    x, y, w = problem()
    rules = {"w": LearnedStep(2, axis=-1)}
    loss = learned_levels(lambda params: jnp.mean((x @ params["w"] - y) ** 2), rules)
    start = with_levels({"w": w}, rules)
    _, learned = train(loss, start)
    fixed = lambda params: loss(WithLevels(params, start.levels))  # noqa: E731
    _, kept = train(fixed, start.params)
    assert learned < kept


def test_a_codebook_reaches_the_best_levels_for_its_assignment():
    x, y, w = problem()
    rules = {"w": LearnedCodebook(2)}
    start = with_levels({"w": w}, rules)
    done, best = train(learned_levels(lambda params: jnp.mean((x @ params["w"] - y) ** 2), rules), start)
    # With the assignment fixed, outputs are linear in the levels: the optimum is that of least squares.
    member = np.asarray(quantized(start, rules)["w"])[..., None] == np.asarray(start.levels["w"])
    design = np.einsum("ni,iol->nol", np.asarray(x), member).reshape(-1, 4)
    levels, *_ = np.linalg.lstsq(design, np.asarray(y).reshape(-1), rcond=None)
    np.testing.assert_allclose(done.levels["w"], levels, atol=1e-3)
    np.testing.assert_array_equal(done.params["w"], w)
    assert best < float(jnp.mean((x @ quantized(start, rules)["w"] - y) ** 2))


def test_pruned_weights_stay_zero_and_are_seen_as_zero():
    x, y, w = problem()
    mask = jnp.abs(w) > 0.1
    rules = {"w": LearnedStep(3)}
    loss = learned_levels(lambda params: jnp.mean((x @ params["w"] - y) ** 2), rules)
    start = with_levels({"w": jnp.where(mask, w, 0.0)}, rules)
    done, _ = train(loss, start, 5, lambda inner: masked(inner, {"params/w": mask}))
    assert np.all(np.asarray(done.params["w"])[~np.asarray(mask)] == 0.0)
    assert np.all(np.asarray(quantized(done, rules)["w"])[~np.asarray(mask)] == 0.0)


def test_sets_without_levels_train_as_straight_through():
    x, y, w = problem()
    rules = {"w": Binary()}
    plain = lambda params: jnp.mean((x @ params["w"] - y) ** 2)  # noqa: E731
    start = with_levels({"w": w}, rules)
    assert start.levels == {}
    ours = jax.grad(learned_levels(plain, rules))(start)
    np.testing.assert_array_equal(ours.params["w"], jax.grad(straight_through(plain, rules))({"w": w})["w"])


def test_guests_are_quantized_like_a_plain_dict():
    w = problem()[2]
    rules = {"*kernel": LearnedStep(2)}
    state = nnx.State({"fc": {"kernel": nnx.Param(w), "bias": nnx.Param(jnp.ones(2))}})
    plain = {"fc": {"kernel": w, "bias": jnp.ones(2)}}
    ours, theirs = (quantized(with_levels(tree, rules), rules) for tree in (state, plain))
    assert jax.tree.structure(ours) == jax.tree.structure(state)
    for path, leaf in trees.leaves(ours).items():
        np.testing.assert_array_equal(leaf, trees.leaves(theirs)[path])


def test_missing_levels_and_rules_without_a_leaf_are_refused():
    params = {"w": jnp.ones(3)}
    with pytest.raises(ValueError, match="w has no levels; start with with_levels"):
        quantized(WithLevels(params, {}), {"w": LearnedStep(2)})
    with pytest.raises(ValueError, match="matches no leaf"):
        with_levels(params, {"v": LearnedStep(2)})
