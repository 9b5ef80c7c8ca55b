"""The training loop: augmentation, distillation tables, and the two ways of looping."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compressjax import zoo
from compressjax.data import Sampler, Split
from experiments.fitting import (
    Carry,
    Trainer,
    accuracy,
    check_finite,
    logits_of,
    make_loss,
    make_step,
    make_update,
    scale,
    teach,
    translate,
)

MODEL = zoo.build("lenet300", widths=(16, 8))
IMAGES = np.random.default_rng(0).integers(0, 256, (48, 28, 28, 1)).astype(np.uint8)
LABELS = (np.arange(48) % 10).astype(np.int32)
DATA = Split(IMAGES, LABELS)


def test_translate_moves_content_and_fills_with_zeros():
    image = jnp.zeros((1, 4, 4, 1)).at[0, 1, 1, 0].set(1.0)
    moved = translate(image, jnp.array([[2, -1]]), 2)
    assert moved[0, 3, 0, 0] == 1.0
    assert float(moved.sum()) == 1.0
    gone = translate(image, jnp.array([[-2, 0]]), 2)
    assert float(gone.sum()) == 0.0


def test_teacher_table_equals_the_forward_pass_on_translated_images():
    params = MODEL.init(jax.random.key(0))
    teacher = teach(MODEL, params, IMAGES, shift=1, weight=0.5, temperature=2.0)
    assert teacher.logits.shape == (9, 48, 10)
    offsets = jnp.broadcast_to(jnp.array([1, -1]), (48, 2))
    direct = MODEL.apply(params, translate(scale(IMAGES), offsets, 1))
    np.testing.assert_allclose(teacher.logits[2 * 3 + 0], direct, atol=1e-5)


def test_distillation_has_its_minimum_at_the_teacher():
    params = MODEL.init(jax.random.key(0))
    teacher = teach(MODEL, params, IMAGES, shift=0, weight=1.0, temperature=2.0)
    gradient = jax.grad(make_loss(MODEL, teacher), has_aux=True)(params, scale(IMAGES), LABELS, teacher.logits[0])[0]
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient)) < 1e-6


@pytest.mark.parametrize("shift", [0, 1])
def test_scanned_steps_equal_single_steps(shift):
    params = MODEL.init(jax.random.key(0))
    ends = []
    for loop in ("step", "scan"):
        optimizer = optax.with_extra_args_support(optax.adam(1e-3))
        trainer = Trainer(
            make_update(MODEL, optimizer, shift=shift), optimizer, DATA, Sampler(48, 16, seed=3), seed=3, loop=loop
        )
        carry = trainer.run(trainer.init(params), 0, 4)
        ends.append(trainer.run(carry, 4, 7))
    for a, b in zip(jax.tree.leaves(ends[0].params), jax.tree.leaves(ends[1].params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_training_fits_the_data():
    params = MODEL.init(jax.random.key(0))
    easy = np.zeros_like(IMAGES)
    easy[np.arange(48), LABELS] = 255  # the label is the number of the bright row
    data = Split(easy, LABELS)
    optimizer = optax.with_extra_args_support(optax.adam(3e-3))
    trainer = Trainer(make_update(MODEL, optimizer), optimizer, data, Sampler(48, 16, seed=0), seed=0)
    carry = trainer.run(trainer.init(params), 0, 150)
    assert accuracy(MODEL, carry.params, data) > 0.9 > accuracy(MODEL, params, data)


def test_non_finite_gradients_name_the_first_step_and_leaf():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    carry = Carry(params, (), jnp.array([-1, 7], jnp.int32), jnp.zeros(()))
    with pytest.raises(ValueError, match="gradient of b is not finite at step 7"):
        check_finite(carry, 10)
    broken = carry._replace(params={"a": jnp.array([1.0, jnp.nan]), "b": jnp.ones(2)}, bad=jnp.array([-1, -1]))
    with pytest.raises(ValueError, match="weights of a are not finite at step 10"):
        check_finite(broken, 10)


def test_logits_do_not_depend_on_batching(monkeypatch):
    params = MODEL.init(jax.random.key(0))
    whole = logits_of(MODEL, params, IMAGES)
    monkeypatch.setattr("experiments.fitting.EVALUATION_BATCH", 20)
    np.testing.assert_allclose(logits_of(MODEL, params, IMAGES), whole, atol=1e-6)


class Normalizing:
    """A model with running statistics: logits are the images' mean pixel beside a bias."""

    def apply_train(self, params, x):
        mean = x.mean((1, 2, 3))
        return mean[:, None] * params["scale"] + params["bias"], {"mean": mean.mean()[None]}


def test_a_step_moves_running_statistics_towards_those_of_the_batch():
    params = {"scale": jnp.ones((1, 10)), "bias": jnp.zeros((1, 10)), "mean": jnp.ones(1)}
    step = make_step(make_update(Normalizing(), optax.sgd(0.0)))
    carry = Carry(params, optax.sgd(0.0).init(params), jnp.full(3, -1, jnp.int32), jnp.zeros(()))
    images = jnp.full((4, 2, 2, 1), 51, jnp.uint8)
    after = step(carry, images, jnp.zeros(4, jnp.int32), jnp.arange(4), jax.random.key(0), jnp.zeros(0), 0)
    assert after.params["mean"] == pytest.approx(0.9 * 1.0 + 0.1 * 0.2)


def test_flips_mirror_about_half_of_the_images():
    class Seen(Normalizing):
        def apply_train(self, params, x):
            # The left column is bright in an image as it is, and dark in a mirrored one.
            return jnp.zeros((x.shape[0], 10)) * params["mean"][None], {"mean": x[:, :, 0].mean()[None]}

    images = jnp.zeros((200, 2, 2, 1), jnp.uint8).at[:, :, 0].set(255)
    params = {"mean": jnp.zeros(1)}
    found = []
    for flip in (False, True):
        step = make_step(make_update(Seen(), optax.sgd(0.0), flip=flip))
        carry = Carry(params, optax.sgd(0.0).init(params), jnp.full(1, -1, jnp.int32), jnp.zeros(()))
        labels, index = jnp.zeros(200, jnp.int32), jnp.arange(200)
        after = step(carry, images, labels, index, jax.random.key(3), jnp.zeros(0), 0)
        found.append(10 * float(after.params["mean"][0]))
    assert found[0] == pytest.approx(1.0)
    assert 0.35 < found[1] < 0.65
