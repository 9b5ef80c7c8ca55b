"""Learned quantizers: forward values and gradients by hand, and what each is for."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax.quantizers import (
    Codebook,
    Codes,
    DoReFaActivations,
    DoReFaWeights,
    Learnable,
    LearnedClip,
    LearnedCodebook,
    LearnedStep,
    dorefa_gradients,
    lookup,
    lsq,
    pact,
)

EVERY = {
    "LSQ": LearnedStep(3),
    "LSQ per channel": LearnedStep(2, axis=-1),
    "LSQ unsigned": LearnedStep(2, signed=False, batched=True),
    "PACT": LearnedClip(3),
    "DoReFa weights": DoReFaWeights(2),
    "DoReFa one bit": DoReFaWeights(1),
    "DoReFa activations": DoReFaActivations(2),
    "codebook": LearnedCodebook(2),
}
every_quantizer = pytest.mark.parametrize("quantizer", EVERY.values(), ids=EVERY)


def sample(seed=0, shape=(6, 4)):
    x = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(np.where(np.arange(x.size).reshape(shape) % 5 == 0, 0.0, x), jnp.float32)


@cache
def first(quantizer):
    """The first levels for `sample()`."""
    return jax.jit(quantizer.start)(sample())


@every_quantizer
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_few_values_and_zeros_stay(quantizer, dtype):
    assert isinstance(quantizer, Learnable)
    x = jnp.asarray(sample(), dtype)
    y = jax.jit(quantizer)(x, first(quantizer))
    assert (y.shape, y.dtype) == (x.shape, dtype)
    assert np.all(np.asarray(y)[np.asarray(x) == 0] == 0)
    for channel in np.asarray(y, np.float32).T:
        assert len(np.unique(channel)) <= 2 ** getattr(quantizer, "bits", 8) + 1


@every_quantizer
def test_vmap_and_gradients(quantizer):
    batch, levels = [np.asarray(sample(seed)) for seed in range(2)], first(quantizer)

    def one(x):
        return jax.value_and_grad(lambda x: jnp.sum(quantizer(x, levels) * jnp.cos(x)))(x)

    @jax.jit
    def both(batch):
        return jax.vmap(one)(batch), jax.lax.map(one, batch)

    together, alone = both(jnp.asarray(np.stack(batch)))
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@every_quantizer
def test_nan_stays_visible(quantizer):
    x = np.array(sample())
    x[1, 1] = np.nan
    assert not np.isfinite(jax.jit(quantizer)(jnp.asarray(x), first(quantizer))).all()


def test_lsq_by_hand():
    x, step = jnp.array([0.3, -0.9, 9.0, -9.0]), jnp.float32(0.5)
    y, pull = jax.vjp(lambda x, step: lsq(x, step, Codes(3)), x, step)
    np.testing.assert_array_equal(y, [0.5, -1.0, 1.5, -2.0])
    to_x, to_step = pull(jnp.array([1.0, 10.0, 100.0, 1000.0]))
    np.testing.assert_array_equal(to_x, [1.0, 10.0, 0.0, 0.0])
    # round(v) - v inside, the outermost code outside, over the root of N Qp.
    expected = (1 - 0.6) + 10 * (-2 + 1.8) + 100 * 3 - 1000 * 4
    np.testing.assert_allclose(to_step, expected / np.sqrt(4 * 3), rtol=1e-5)


def test_lsq_steps_per_channel_are_those_of_the_channels_alone():
    x = sample(1, (5, 3))

    def learn(quantizer):
        @jax.jit
        def run(x):
            step = quantizer.start(x)
            return step, jax.grad(lambda step: jnp.sum(jnp.sin(quantizer(x, step))))(step)

        return run

    step, gradient = learn(LearnedStep(3, axis=-1))(x)
    assert step.shape == gradient.shape == (1, 3)
    single = learn(LearnedStep(3))
    for i, column in enumerate(np.asarray(x).T):
        alone, its_gradient = single(jnp.asarray(column))
        np.testing.assert_allclose(step[0, i], alone, rtol=1e-6)
        np.testing.assert_allclose(gradient[0, i], its_gradient, rtol=1e-5)


def test_lsq_of_activations_counts_the_features_of_one_example():
    x, step = jnp.abs(sample(2, (8, 4))), jnp.float32(0.2)

    def gradient(quantizer):
        return jax.grad(lambda step: jnp.sum(quantizer(x, step)))(step)

    weights, activations = LearnedStep(2, signed=False), LearnedStep(2, signed=False, batched=True)
    np.testing.assert_allclose(gradient(activations), gradient(weights) * np.sqrt(8), rtol=1e-5)


@pytest.mark.parametrize("step", [0.0, -0.5])
def test_lsq_survives_steps_that_are_not_positive(step):
    x = sample(3)
    value, gradient = jax.value_and_grad(lambda s: jnp.sum(lsq(x, s, Codes(4)) ** 2))(jnp.float32(step))
    assert np.isfinite([value, gradient]).all()
    np.testing.assert_array_equal(lsq(x, jnp.float32(-0.5), Codes(4)), lsq(x, jnp.float32(0.5), Codes(4)))


def test_lsq_learns_a_better_step_than_it_starts_with():
    x = sample(4, (64, 8))
    quantizer = LearnedStep(2)

    @jax.jit
    def error(step):
        return jnp.mean((quantizer(x, step) - x) ** 2)

    step = start = quantizer.start(x) * 3
    descend = jax.jit(lambda step: step - 2.0 * jax.grad(error)(step))
    for _ in range(200):
        step = descend(step)
    # Not the step of least error: the gradient weighs what is rounded against what is clipped.
    assert float(error(step)) < 0.7 * float(error(start))


def test_pact_by_hand():
    x, clip = jnp.array([-1.0, 0.6, 2.9, 3.0, 9.0]), jnp.float32(3.0)
    y, pull = jax.vjp(lambda x, clip: pact(x, clip, 2), x, clip)
    np.testing.assert_array_equal(y, [0.0, 1.0, 3.0, 3.0, 3.0])
    to_x, to_clip = pull(jnp.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    np.testing.assert_array_equal(to_x, [0.0, 2.0, 3.0, 0.0, 0.0])
    assert float(to_clip) == 9.0


def test_pact_moves_its_clip_to_where_the_error_is_least():
    x = jnp.abs(sample(5, (500,)))
    error = jax.jit(lambda clip: jnp.mean((pact(x, clip, 4) - x) ** 2))
    clip = jnp.float32(0.3)
    for _ in range(100):
        clip = clip - 1.0 * jax.grad(error)(clip)
    # Its gradient sees what is clipped, not what rounding costs: it stops only when nothing is clipped much.
    assert float(error(clip)) < 0.05 * float(error(jnp.float32(0.3)))


def test_dorefa_weights_by_hand():
    w = jnp.array([0.5, -2.0, 0.0, 2.0])
    top = np.tanh(2.0)
    code = 2 * np.round(3 * (np.tanh(0.5) / (2 * top) + 0.5)) - 3
    np.testing.assert_allclose(DoReFaWeights(2)(w), [code / 3, -1.0, 0.0, 1.0], rtol=1e-6)
    np.testing.assert_array_equal(DoReFaWeights(1)(w), [1.5, -1.5, 0.0, 1.5])
    to_w = jax.grad(lambda w: DoReFaWeights(1)(w)[0])(w)
    np.testing.assert_array_equal(to_w, [1.0, 0.0, 0.0, 0.0])
    # The rounding is skipped: what remains is the derivative of tanh(w) / max.
    to_w = jax.grad(lambda w: DoReFaWeights(2)(w)[0])(w)
    np.testing.assert_allclose(to_w[0], (1 - np.tanh(0.5) ** 2) / top, rtol=1e-5)


def test_dorefa_activations_by_hand():
    x = jnp.array([-1.0, 0.4, 0.9, 2.0])
    y, pull = jax.vjp(DoReFaActivations(1), x, None)
    np.testing.assert_array_equal(y, [0, 0, 1, 1])
    np.testing.assert_array_equal(pull(jnp.ones(4))[0], [0, 1, 1, 0])


def test_dorefa_gradients_are_few_and_unbiased():
    pull = jnp.array([[1.0, 0.3, -0.2, 0.0], [0.01, -0.02, 0.005, 0.0]])

    @jax.jit
    @jax.vmap
    def pulled(key):
        return jax.vjp(lambda x: dorefa_gradients(x, key, 2), jnp.zeros((2, 4)))[1](pull)[0]

    draws = np.asarray(pulled(jax.random.split(jax.random.key(0), 4000)))
    most = np.abs(pull).max(axis=1)[None, :, None]
    assert len(np.unique(np.round(draws / most, 4))) <= 4
    # One step is 2/3 of the largest; the standard error of a mean of 4,000 draws is below 1/3 of it over 63.
    assert np.all(np.abs(draws.mean(0) - pull) / most[0] < 6 * (1 / 3) / np.sqrt(4000))


def test_codebook_gradients_are_sums_over_members():
    x, levels = jnp.array([0.9, 1.2, 0.0, -2.2, -1.9]), jnp.array([1.0, -2.0])
    y, pull = jax.vjp(lookup, x, levels)
    np.testing.assert_array_equal(y, [1.0, 1.0, 0.0, -2.0, -2.0])
    to_x, to_levels = pull(jnp.array([1.0, 2.0, 4.0, 8.0, 16.0]))
    np.testing.assert_array_equal(to_x, [1, 2, 4, 8, 16])
    np.testing.assert_array_equal(to_levels, [3.0, 24.0])


def test_a_learned_codebook_finds_the_best_one():
    x = sample(6, (200,))
    best = jax.jit(Codebook(2).fit)(x)
    error = jax.jit(jax.value_and_grad(lambda levels: jnp.mean((lookup(x, levels) - x) ** 2)))
    levels = np.asarray(best) + np.array([-0.3, 0.2, -0.2, 0.3], np.float32)
    for _ in range(100):
        levels = levels - np.asarray(error(levels)[1])
    assert float(error(levels)[0]) <= 1.02 * float(error(np.asarray(best))[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LearnedStep(1), "bits=1 must be an int between 2 and 8"),
        (lambda: LearnedStep(9, signed=False), "bits=9"),
        (lambda: LearnedClip(0), "bits=0"),
        (lambda: DoReFaWeights(8), "bits=8 must be an int between 1 and 7"),
        (lambda: DoReFaActivations(17), "bits=17"),
        (lambda: LearnedCodebook(0), "bits=0"),
    ],
)
def test_bits_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("axis", [2, -3])
def test_an_axis_that_is_not_there_is_refused(axis):
    with pytest.raises(ValueError, match=rf"shape \(3, 4\) has no axis {axis}"):
        LearnedStep(4, axis=axis).start(jnp.ones((3, 4)))
