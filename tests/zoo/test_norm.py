import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compressjax import trees, zoo

VGG = zoo.build("vgg16", widths=(2,) * 13)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def batch_norm_train(params, x):
    out, state = zoo.BatchNorm().apply({"params": params["norm"]}, x, mutable=["statistics"])
    return out, {f"norm/{name}": value for name, value in state["statistics"].items()}


@pytest.fixture(name="params")
def fixture_params():
    leaves = {"scale": [2.0, -1.0], "bias": [0.5, 0.0], "mean": [1.0, 3.0], "var": [4.0, 0.0]}
    return {"norm": {name: jnp.array(value) for name, value in leaves.items()}}


def test_batch_norm_by_hand(params):
    x = jnp.array([[3.0, 3.0], [1.0, 4.0]])
    got = zoo.BatchNorm(epsilon=1.0).apply({"params": params["norm"]}, x)
    root = np.sqrt(5.0)
    np.testing.assert_allclose(got, [[4 / root + 0.5, 0.0], [0.5, -1.0]], rtol=1e-6, atol=1e-6)


def test_in_training_the_batch_itself_is_the_measure(params):
    x = jnp.asarray(3.0 + 5.0 * draw(8, 4, 4, 2))
    out, statistics = batch_norm_train(params, x)
    np.testing.assert_allclose(statistics["norm/mean"], x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(statistics["norm/var"], x.var((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(out.mean((0, 1, 2)), params["norm"]["bias"], atol=1e-5)
    np.testing.assert_allclose(out.std((0, 1, 2)), abs(params["norm"]["scale"]), rtol=1e-4)


def test_stored_statistics_have_no_gradient_in_training(params):
    x, weights = jnp.asarray(draw(8, 2)), draw(8, 2, seed=1)
    gradient = jax.grad(lambda p: (batch_norm_train(p, x)[0] * weights).sum())(params)["norm"]
    assert not gradient["mean"].any()
    assert not gradient["var"].any()
    assert gradient["scale"].all()


def test_trainable_keeps_statistics_from_weight_decay(params):
    optimizer = optax.masked(optax.adamw(0.1, weight_decay=0.5), zoo.trainable(params))
    gradient = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    new = optax.apply_updates(params, updates)["norm"]
    np.testing.assert_array_equal(new["mean"], params["norm"]["mean"])
    np.testing.assert_array_equal(new["var"], params["norm"]["var"])
    assert (new["scale"] != params["norm"]["scale"]).all()


def test_a_leaf_called_mean_without_a_variance_is_trained():
    assert trees.leaves(zoo.trainable({"policy": {"mean": 0, "kernel": 0}})) == {
        "policy/kernel": True,
        "policy/mean": True,
    }


def test_running_statistics_move_towards_the_batch(params):
    new = zoo.update_statistics(params, {"norm/mean": jnp.array([2.0, 2.0])}, momentum=0.75)
    np.testing.assert_allclose(new["norm"]["mean"], [1.25, 2.75])
    np.testing.assert_array_equal(new["norm"]["var"], params["norm"]["var"])


def test_reestimated_statistics_are_those_of_everything_seen(params):
    # Far from zero, where E[x^2] - E[x]^2 in float32 would lose every digit of the variance.
    x = 1000.0 + draw(14, 3, 3, 2)
    batches = [x[:6], x[6:12], x[12:]]
    got = zoo.reestimate(batch_norm_train, params, batches)["norm"]
    exact = x.astype(np.float64)
    np.testing.assert_allclose(got["mean"], exact.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(got["var"], exact.var((0, 1, 2)), rtol=1e-3)
    np.testing.assert_array_equal(got["scale"], params["norm"]["scale"])


def test_reestimation_of_a_network_repairs_what_scaling_broke():
    model = zoo.build("resnet20", widths=(4, 4, 4, 4), blocks=(1, 1), pads=(0, 0), input_shape=(8, 8, 3))
    params = model.init(jax.random.key(0))
    x = np.random.default_rng(0).random((16, 8, 8, 3), dtype=np.float32)
    fitted = zoo.reestimate(model.apply_train, params, [x])
    want = jax.jit(model.apply_train)(params, x)[0]
    apply = jax.jit(model.apply)
    np.testing.assert_allclose(apply(fitted, x), want, rtol=1e-3, atol=1e-4)
    # Batch normalization undoes the scale of the convolution before it, once its statistics are those of the data.
    scaled = trees.update(fitted, {"conv0/kernel": 3.0 * fitted["conv0"]["kernel"]})
    assert abs(apply(scaled, x) - want).max() > 0.1
    np.testing.assert_allclose(apply(zoo.reestimate(model.apply_train, scaled, [x]), x), want, rtol=1e-3, atol=1e-3)


def test_without_batch_norm_nothing_is_reestimated():
    model = zoo.build("lenet300", widths=(2, 2))
    params = model.init(jax.random.key(0))
    again = zoo.reestimate(model.apply_train, params, [jnp.zeros((2, 28, 28, 1))])
    jax.tree.map(np.testing.assert_array_equal, params, again)


@pytest.mark.parametrize(
    "norm, reference",
    [
        (zoo.RMSNorm, lambda x, n: x / np.sqrt((x**2).sum(-1, keepdims=True) / n + 1e-6)),
        (
            zoo.LayerNorm,
            lambda x, n: (
                (x - x.sum(-1, keepdims=True) / n)
                / np.sqrt((x**2).sum(-1, keepdims=True) / n - (x.sum(-1, keepdims=True) / n) ** 2 + 1e-6)
            ),
        ),
    ],
)
def test_norms_without_some_channels_divide_as_with_them_zero(norm, reference):
    x, scale = draw(3, 6), draw(6, seed=1)
    masked = np.where(np.arange(6) < 4, x, 0)
    extra = {"bias": jnp.zeros(4)} if norm is zoo.LayerNorm else {}
    got = norm(divisor=6).apply({"params": {"scale": jnp.asarray(scale[:4]), **extra}}, jnp.asarray(x[:, :4]))
    np.testing.assert_allclose(got, (reference(masked, 6) * scale)[:, :4], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda p: zoo.reestimate(VGG.apply_train, p, []), "at least one batch"),
        (lambda p: zoo.update_statistics(p, {"norm/mean": jnp.zeros(2)}, momentum=1.5), r"momentum=1.5"),
        (lambda p: zoo.update_statistics(p, {"nrm/mean": jnp.zeros(2)}), "'nrm/mean', which is no leaf"),
    ],
)
def test_bad_input(params, call, match):
    with pytest.raises(ValueError, match=match):
        call(params)
