"""Discriminant components against SciPy in float64, and what each distillation loss is blind to."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg

from compressjax import training


def clouds(n=90, features=12, classes=4, seed=0):
    """Classes apart in a few directions, noise of unlike size in the others."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    means = np.zeros((classes, features))
    means[:, : classes - 1] = rng.normal(size=(classes, classes - 1)) * 3
    mix = np.linalg.qr(rng.normal(size=(features, features)))[0]
    x = (means[labels] + rng.normal(size=(n, features)) * np.linspace(0.5, 2, features)) @ mix
    return x + 5.0, labels


def scatters(x, labels):
    mean, between, within = x.mean(0), 0.0, 0.0
    for c in set(labels.tolist()):
        own = x[labels == c]
        between = between + len(own) * np.outer(own.mean(0) - mean, own.mean(0) - mean)
        within = within + (own - own.mean(0)).T @ (own - own.mean(0))
    return between / len(x), within / len(x)


def reference(x, labels, k):
    between, within = scatters(x, labels)
    rho = 0.02 * np.linalg.eigvalsh(within)[-1]
    eye = np.eye(x.shape[1])
    values, vectors = scipy.linalg.eigh(between + within + 1.1 * rho * eye, within + rho * eye)
    return vectors[:, ::-1][:, :k], values[::-1][:k]


def up_to_sign(a, b):
    return np.asarray(a) * np.sign((np.asarray(a) * np.asarray(b)).sum(0))[None, :]


@pytest.mark.parametrize("k", [1, 3, 12])
def test_directions_are_those_of_the_generalised_eigenproblem(k):
    x, labels = clouds()
    vectors, values = reference(x, labels, k)
    with jax.enable_x64(True):
        found = training.discriminants(x, labels, 4, k)
        assert found.directions.dtype == jnp.float64
        np.testing.assert_allclose(found.values, values, rtol=1e-10)
        np.testing.assert_allclose(up_to_sign(found.directions, vectors), vectors, rtol=1e-7, atol=1e-9)
        _, within = scatters(x, labels)
        rho = 0.02 * np.linalg.eigvalsh(within)[-1]
        gram = found.directions.T @ (within + rho * np.eye(12)) @ found.directions
        np.testing.assert_allclose(gram, np.eye(k), atol=1e-9)


def test_the_span_of_few_samples_gives_the_same_directions():
    x, labels = clouds(n=16, features=40)
    vectors, values = reference(x, labels, 3)
    with jax.enable_x64(True):
        found = training.discriminants(x, labels, 4)
    assert found.directions.shape == (40, 3)
    np.testing.assert_allclose(found.values, values, rtol=1e-9)
    np.testing.assert_allclose(up_to_sign(found.directions, vectors), vectors, rtol=1e-6, atol=1e-8)


def test_streamed_sums_give_the_same_directions_as_features_at_hand():
    x, labels = clouds(n=100)
    sums = training.scatter_start(4, 12)
    add = jax.jit(training.scatter_add)
    for start in (0, 7, 40, 90):  # batches that lack classes, and unlike sizes
        stop = {0: 7, 7: 40, 40: 90, 90: 100}[start]
        sums = add(sums, jnp.asarray(x[start:stop], jnp.float32), jnp.asarray(labels[start:stop]))
    _, within = scatters(x, labels)
    np.testing.assert_allclose(sums.within / 100, within, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(sums.counts, 25)
    streamed = training.scatter_discriminants(sums)
    whole = training.discriminants(x, labels, 4)
    np.testing.assert_allclose(streamed.values, whole.values, rtol=1e-4)
    np.testing.assert_allclose(streamed.directions, whole.directions, rtol=1e-2, atol=1e-3)


def test_streamed_scatter_survives_a_large_mean():
    x, labels = clouds()
    sums = training.scatter_start(4, 12)
    for rows in np.array_split(np.arange(90), 3):
        sums = training.scatter_add(sums, jnp.asarray(x[rows] + 300, jnp.float32), jnp.asarray(labels[rows]))
    # A sum of squares less the square of the sum would be off by about 300^2 * 2^-24 * 90, more than 0.4.
    np.testing.assert_allclose(sums.within, 90 * scatters(x, labels)[1], rtol=2e-3, atol=0.05)


def test_rows_of_no_class_are_left_out():
    x = jnp.array([[0.0], [2.0], [50.0]])
    sums = training.scatter_add(training.scatter_start(2, 1), x, jnp.array([0, 0, -1]))
    assert sums.within.tolist() == [[2.0]]
    assert sums.counts.tolist() == [2.0, 0.0]


def test_signs_agree_between_networks_that_agree_on_classes():
    x, labels = clouds()
    mix = np.linalg.qr(np.random.default_rng(8).normal(size=(12, 12)))[0]
    first, second = training.discriminants(x, labels, 4), training.discriminants(x @ mix, labels, 4)
    # A rotated space has rotated directions, so the components are the same.
    np.testing.assert_allclose(x @ first.directions, (x @ mix) @ second.directions, rtol=1e-3, atol=1e-3)


def test_directions_separate_classes_better_than_principal_components():
    x, labels = clouds(seed=2)

    def ratio(z):
        between, within = scatters(z, labels)
        return np.trace(np.linalg.solve(within, between))

    found = training.discriminants(x, labels, 4).directions
    principal = np.linalg.svd(x - x.mean(0), full_matrices=False)[2][:3].T
    assert ratio(x @ np.asarray(found)) > 1.5 * ratio(x @ principal)


def outside(directions, shape, seed=1):
    """Noise that the directions do not see."""
    noise = np.random.default_rng(seed).normal(size=(shape[0], np.prod(shape[1:]))) * 4
    basis = np.linalg.qr(directions)[0]
    return jnp.asarray((noise - noise @ basis @ basis.T).reshape(shape), jnp.float32)


def test_the_discriminant_loss_ignores_what_tells_nothing_apart_and_the_hint_does_not():
    x, labels = clouds()
    shape = (90, 2, 2, 3)
    teacher = jnp.asarray(x.reshape(shape), jnp.float32)
    directions = training.discriminants(teacher, jnp.asarray(labels), 4).directions
    student = teacher + outside(directions, shape)
    near = training.discriminant_loss(student, teacher, directions, directions)
    far = training.hint_loss(student, teacher, jnp.eye(3))
    assert near < 1e-6
    assert far > 1.0
    # What does tell classes apart counts.
    moved = teacher + jnp.reshape(directions[:, 0] / jnp.sum(jnp.square(directions[:, 0])), (1, *shape[1:]))
    assert float(training.discriminant_loss(moved, teacher, directions[:, :1], directions[:, :1])) == pytest.approx(1.0)


def test_losses_by_hand():
    logits, teacher = jnp.array([[1.0, 0.0], [0.0, 3.0]]), jnp.array([[2.0, 1.0], [0.0, 0.0]])
    p, q = jax.nn.softmax(teacher), jax.nn.log_softmax(logits)
    np.testing.assert_allclose(training.output_loss(logits, teacher), -(p * q).sum(1).mean(), rtol=1e-6)
    p, q = jax.nn.softmax(teacher / 4), jax.nn.log_softmax(logits / 4)
    np.testing.assert_allclose(training.output_loss(logits, teacher, 4.0), -16 * (p * q).sum(1).mean(), rtol=1e-6)
    x, y, w = np.ones((2, 3, 2)), np.zeros((2, 3, 1)), np.array([[1.0], [2.0]])
    assert float(training.hint_loss(jnp.asarray(x), jnp.asarray(y), jnp.asarray(w))) == 9.0


def test_no_gradient_reaches_the_teacher():
    x = jnp.ones((2, 3))
    v = jnp.ones((3, 2))
    losses = (
        lambda t: training.output_loss(x, t),
        lambda t: training.hint_loss(x, t, jnp.eye(3)),
        lambda t: training.discriminant_loss(x, t, v, v),
    )
    for loss in losses:
        assert not jax.grad(loss)(2 * x).any()
    assert jax.grad(lambda s: training.hint_loss(s, 2 * x, jnp.eye(3)))(x).all()


def test_a_student_trained_on_the_loss_learns_the_components():
    x, labels = clouds(n=200, features=8, classes=3)
    teacher = jnp.asarray(x, jnp.float32)
    directions = training.discriminants(teacher, jnp.asarray(labels), 3).directions
    inputs = teacher[:, ::-1]  # the student sees the same, in another order
    weights = 0.01 * jax.random.normal(jax.random.key(0), (8, 8))
    optimizer = optax.adam(0.03)

    def loss(w):
        return training.discriminant_loss(inputs @ w, teacher, directions, directions)

    state = optimizer.init(weights)
    before = loss(weights)
    step = jax.jit(jax.value_and_grad(loss))
    for _ in range(400):
        _, gradient = step(weights)
        updates, state = optimizer.update(gradient, state)
        weights = optax.apply_updates(weights, updates)
    assert loss(weights) < 0.02 * before


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: training.scatter_start(1, 3), "classes=1 must be at least 2"),
        (lambda: training.scatter_start(2, 0), "features=0 at least 1"),
        (
            lambda: training.scatter_add(training.scatter_start(2, 3), jnp.ones((4, 2)), jnp.zeros(4, int)),
            "over 3 features per sample",
        ),
        (
            lambda: training.scatter_add(training.scatter_start(2, 3), jnp.ones((4, 3)), jnp.zeros(5, int)),
            r"the labels \(5,\)",
        ),
        (
            lambda: training.output_loss(jnp.ones((2, 3)), jnp.ones((2, 1))),
            r"logits have shape \(2, 3\), the teacher's",
        ),
        (lambda: training.output_loss(jnp.ones((2, 3)), jnp.ones((2, 3)), 0.0), "temperature=0.0"),
        (lambda: training.hint_loss(jnp.ones((2, 3)), jnp.ones((1, 3)), jnp.eye(3)), "positions must agree"),
        (lambda: training.hint_loss(jnp.ones((2, 3)), jnp.ones((2, 4)), jnp.ones((3, 1))), "projection lead from"),
        (lambda: training.discriminant_loss(*[jnp.ones((2, 3))] * 2, jnp.eye(3), jnp.ones((3, 1))), "as many direc"),
        (lambda: training.discriminant_loss(*[jnp.ones((2, 3))] * 2, *[jnp.ones((4, 1))] * 2), "one row per flat"),
        (lambda: training.scatter_discriminants(training.scatter_start(2, 3)), "Class 0 has no sample"),
        (lambda: training.discriminants(np.ones((3, 2)), np.array([0, 1]), 2), r"give \(n, \.\.\.\) and \(n,\)"),
        (lambda: training.discriminants(np.ones((2, 2)), np.array([0, 2]), 2), r"run from 0 to 2: .* 0\.\.1"),
        (lambda: training.discriminants(np.ones((2, 2)), np.array([0, 0]), 1), "must lie in"),
        (lambda: training.discriminants(*clouds(), 5), "Class 4 has no sample"),
        (lambda: training.discriminants(*clouds(), 4, 13), "k=13 must be a whole number from 1 to 12"),
        (lambda: training.discriminants(*clouds(), 4, 0), "k=0 must be"),
        (lambda: training.discriminants(*clouds(), 4, ridge=0.0), "ridge=0.0 must be finite and above 0"),
        (lambda: training.discriminants(np.array([[0.0], [1.0]]), np.array([0, 1]), 2), "Nothing varies within"),
        (lambda: training.discriminants(np.array([[np.nan], [1.0], [2.0]]), np.array([0, 1, 1]), 2), "not finite"),
    ],
)
def test_bad_input(unchecked, call, match):
    with pytest.raises(ValueError, match=match):
        call()
