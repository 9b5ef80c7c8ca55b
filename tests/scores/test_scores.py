"""Scores of channels: by hand, under transformations, and against each other on a small trained network."""

from types import SimpleNamespace as Plain

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compressjax import channels, scores
from compressjax.channels import importance as chain_importance
from compressjax.data import load
from compressjax.projections import producers


def place(path, axis, index):
    return Plain(path=path, axis=axis, index=np.asarray(index, np.int32))


def mlp(widths=(3, 4, 2), seed=0):
    rng = np.random.default_rng(seed)
    make = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    return {
        "fc1": {"kernel": make(widths[0], widths[1]), "bias": 0.1 * make(widths[1])},
        "fc2": {"kernel": make(widths[1], widths[2]), "bias": 0.1 * make(widths[2])},
    }


def hidden(params):
    units = range(params["fc1"]["kernel"].shape[1])
    members = [place("fc1/kernel", 1, units), place("fc1/bias", 0, units), place("fc2/kernel", 0, units)]
    return [Plain(name="fc1", size=len(units), members=members)]


def apply(params, x):
    bias = lambda layer: params[layer]["bias"][None]  # noqa: E731
    return jax.nn.relu(x @ params["fc1"]["kernel"] + bias("fc1")) @ params["fc2"]["kernel"] + bias("fc2")


@jax.jit
def loss(params, x, labels):
    return optax.softmax_cross_entropy_with_integer_labels(apply(params, x), labels).mean()


slope = jax.jit(jax.grad(loss))


def test_norms_add_over_all_places_given() -> None:
    params = mlp()
    groups = hidden(params)
    kernel, bias, reader = (
        np.asarray(params[a][b]) for a, b in (("fc1", "kernel"), ("fc1", "bias"), ("fc2", "kernel"))
    )
    every = np.concatenate([kernel, bias[None], reader.T])
    np.testing.assert_allclose(scores.l1(params, groups)["fc1"], np.abs(every).sum(0), rtol=1e-6)
    np.testing.assert_allclose(scores.l2(params, groups)["fc1"], np.linalg.norm(every, axis=0), rtol=1e-6)
    own = producers(groups, params)
    np.testing.assert_allclose(scores.l2(params, own)["fc1"], np.linalg.norm(kernel, axis=0), rtol=1e-6)


def test_importance_is_that_of_the_chain() -> None:
    params = mlp()
    expected = chain_importance(params, ("fc1", "fc2"))["fc1"]
    found = scores.importance(params, hidden(params))["fc1"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    factors = jnp.array([[2.0, 0.5, 4.0, 8.0]])
    params["fc1"]["kernel"] *= factors
    params["fc2"]["kernel"] /= factors.T
    np.testing.assert_allclose(scores.importance(params, hidden(params))["fc1"], expected, rtol=1e-6)


def test_kernels_with_outputs_first() -> None:
    rng = np.random.default_rng(0)
    params = {
        "l1": {"weight": jnp.asarray(rng.normal(size=(5, 3)), jnp.float32).at[2].set(0.0), "bias": jnp.ones(5)},
        "l2": {"weight": jnp.asarray(rng.normal(size=(2, 5)), jnp.float32), "temperature": 2.0},
    }

    def forward(p, x):
        return p["l2"]["weight"] @ jax.nn.relu(p["l1"]["weight"] @ x + p["l1"]["bias"]) / p["l2"]["temperature"]

    groups = channels.trace(forward, params, jnp.ones(3)).groups
    (name,) = [group.name for group in groups]
    rule = {"*weight": -1}
    kernel, reader = (np.asarray(params[layer]["weight"]) for layer in ("l1", "l2"))
    own = producers(groups, params, outputs=rule)
    np.testing.assert_allclose(scores.l1(params, own)[name], np.abs(kernel).sum(1), rtol=1e-6)
    for found in (scores.l1(params, own), scores.importance(params, groups, outputs=rule)):
        assert int(found[name].argmin()) == 2
    expected = np.linalg.norm(kernel, axis=1) * np.linalg.norm(reader, axis=0)
    np.testing.assert_allclose(scores.importance(params, groups, outputs=rule)[name], expected, rtol=1e-6)


def test_python_numbers_may_stand_among_the_parameters() -> None:
    params = mlp() | {"temperature": 2.0}
    groups = hidden(params)
    gradient = jax.tree.map(jnp.ones_like, params)
    for score in (scores.l1, scores.l2, scores.importance, scores.geometric_median):
        np.testing.assert_array_equal(score(params, groups)["fc1"], score(mlp(), groups)["fc1"])
    expected = sum(np.asarray(params["fc1"][leaf]).reshape(-1, 4).sum(0) for leaf in ("kernel", "bias"))
    expected = (expected + np.asarray(params["fc2"]["kernel"]).sum(1)) ** 2
    np.testing.assert_allclose(scores.taylor(params, [gradient], groups)["fc1"], expected, rtol=1e-5)


def test_geometric_median_picks_the_redundant_filter_and_l2_does_not() -> None:
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 2, 6))
    kernel[..., :4] += 5.0  # so that small means far away
    kernel[..., 4] = kernel[..., :4].mean(-1)  # amid the others
    kernel[..., 5] *= 0.05  # the smallest, but unlike the others
    params = {"kernel": jnp.asarray(kernel, jnp.float32)}
    groups = [Plain(name="conv", size=6, members=[place("kernel", 3, range(6))])]
    assert int(scores.geometric_median(params, groups)["conv"].argmin()) == 4
    assert int(scores.l2(params, groups)["conv"].argmin()) == 5


def test_geometric_median_by_hand_over_several_places() -> None:
    params = {"a": jnp.array([[0.0, 3.0, 0.0]]), "b": jnp.array([0.0, 4.0, 1.0, 9.0, 0.0, 4.0, 1.0])}
    members = [place("a", 1, range(3)), place("b", 0, [0, 1, 2, -1, 0, 1, 2])]
    found = scores.geometric_median(params, [Plain(name="g", size=3, members=members)])["g"]
    first, second, third = np.array([0, 0, 0]), np.array([3, 4, 4]), np.array([0, 1, 1])
    d01, d02, d12 = (np.linalg.norm(x - y) for x, y in ((first, second), (first, third), (second, third)))
    np.testing.assert_allclose(found, [d01 + d02, d01 + d12, d02 + d12], rtol=1e-6)


def test_geometric_median_refuses_members_of_unlike_size() -> None:
    group = Plain(name="g", size=2, members=[place("a", 0, [0, 0, 1])])
    with pytest.raises(ValueError, match="hold 1 to 2 positions"):
        scores.geometric_median({"a": jnp.ones(3)}, [group])


def test_taylor_is_the_squared_first_order_change_averaged_over_batches() -> None:
    params = mlp()
    groups = hidden(params)
    rng = np.random.default_rng(1)
    batches = [(jnp.asarray(rng.normal(size=(8, 3)), jnp.float32), jnp.arange(8) % 2) for _ in range(3)]
    gradients = [slope(params, *batch) for batch in batches]
    own = producers(groups, params)
    expected = np.mean([np.square(np.sum(params["fc1"]["kernel"] * g["fc1"]["kernel"], axis=0)) for g in gradients], 0)
    np.testing.assert_allclose(scores.taylor(params, iter(gradients), own)["fc1"], expected, rtol=1e-5)

    @jax.jit
    def add(sums, x, labels):
        return scores.taylor_add(sums, params, slope(params, x, labels), own)

    sums = scores.taylor_start(own)
    for batch in batches:
        sums = add(sums, *batch)
    assert int(sums.batches) == 3
    np.testing.assert_allclose(scores.taylor_mean(sums)["fc1"], expected, rtol=1e-5)
    # What goes into a ReLU unit matters as much as what comes out of it.
    into = [Plain(name="in", size=4, members=groups[0].members[:2])]
    out = [Plain(name="out", size=4, members=groups[0].members[2:])]
    np.testing.assert_allclose(
        scores.taylor(params, gradients, into)["in"], scores.taylor(params, gradients, out)["out"], rtol=1e-4
    )


def test_taylor_needs_a_batch() -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        scores.taylor(mlp(), [], hidden(mlp()))


def test_taylor_of_a_single_tree_is_refused(unchecked) -> None:
    params = mlp()
    groups = hidden(params)
    for single in (params, dict(params), {"other": params}, 3):
        with pytest.raises(ValueError, match=r"one gradient tree per batch: for a single one, pass \[gradients\]"):
            scores.taylor(params, single, groups)
    plain = [params["fc1"]["kernel"]]  # parameters that are a list themselves, and one gradient like them
    place_of = [Plain(name="g", size=4, members=[place("0", 1, range(4))])]
    with pytest.raises(ValueError, match="for a single one"):
        scores.taylor(plain, plain, place_of)
    assert scores.taylor(plain, [plain, plain], place_of)["g"].shape == (4,)


def test_taylor_says_which_gradient_does_not_fit() -> None:
    params = mlp()
    groups = hidden(params)
    with pytest.raises(ValueError, match=r"have nothing at 'fc1/bias', where the parameters have the shape \(4,\)"):
        scores.taylor(params, [{"fc1": {"kernel": params["fc1"]["kernel"]}}], groups)
    wrong = params | {"fc2": {"kernel": jnp.ones((4, 1)), "bias": jnp.ones(2)}}
    with pytest.raises(ValueError, match=r"have the shape \(4, 1\) at 'fc2/kernel'"):
        scores.taylor(params, [wrong], groups)


def test_every_score_refuses_a_net(unchecked) -> None:
    params = mlp()
    net = Plain(groups=hidden(params))
    every = (scores.l1, scores.l2, scores.importance, scores.geometric_median, scores.norm_scale)
    calls = [lambda score=score: score(params, net) for score in every]
    calls += [lambda: scores.taylor(params, [params], net), lambda: scores.random(jax.random.key(0), net)]
    for call in calls:
        with pytest.raises(ValueError, match=r"pass its \.groups"):
            call()


def test_norm_scale_takes_only_groups_with_a_scale() -> None:
    params = mlp() | {"norm": {"scale": jnp.array([0.0, -2.0, 1.0, 0.5])}}
    groups = hidden(params)
    other = Plain(name="other", size=3, members=[place("fc1/kernel", 0, range(3))])
    with_norm = Plain(name="fc1", size=4, members=[*groups[0].members, place("norm/scale", 0, range(4))])
    found = scores.norm_scale(params, [with_norm, other])
    assert list(found) == ["fc1"]
    np.testing.assert_array_equal(found["fc1"], [0.0, 2.0, 1.0, 0.5])


def test_random_scores_are_repeatable_and_differ_by_group() -> None:
    groups = [Plain(name="a", size=5, members=[]), Plain(name="b", size=5, members=[])]
    first, again = scores.random(jax.random.key(3), groups), scores.random(jax.random.key(3), groups)
    np.testing.assert_array_equal(first["a"], again["a"])
    assert not np.array_equal(first["a"], first["b"])


@pytest.mark.parametrize(
    "score",
    [scores.l1, scores.l2, scores.importance, scores.geometric_median, lambda p, g: scores.taylor(p, [p], g)],
    ids=["l1", "l2", "importance", "geometric_median", "taylor"],
)
def test_every_score_says_which_place_does_not_fit(score) -> None:
    params = mlp()
    groups = hidden(params)
    groups[0].members[0] = place("fc9/kernel", 1, range(4))
    with pytest.raises(ValueError, match=r"'fc1', fc9/kernel axis 1: no leaf"):
        score(params, groups)


def trained_digits(units=32, steps=100):
    data = load("digits")
    images = data.train.images[:640]
    x, labels = jnp.asarray(images.reshape(640, -1), jnp.float32) / 255.0, jnp.asarray(data.train.labels[:640])
    optimizer = optax.adam(1e-2)
    params = mlp((x.shape[1], units, 10))
    params = jax.tree.map(lambda w: 0.1 * w, params)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(slope(params, x, labels), state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params, x, labels


def test_scores_beat_random_on_a_trained_network() -> None:
    params, x, labels = trained_digits()
    groups = hidden(params)
    own = producers(groups, params)
    gradients = [slope(params, x[i::8], labels[i::8]) for i in range(8)]

    def after(score):
        """Loss without the half of the units that scores lowest."""
        kept = (score >= jnp.sort(score)[len(score) // 2]).astype(jnp.float32)
        assert int(kept.sum()) == len(score) // 2
        kernel = params["fc2"]["kernel"] * kept[:, None]
        return float(loss(params | {"fc2": params["fc2"] | {"kernel": kernel}}, x, labels))

    chance = [after(scores.random(jax.random.key(seed), groups)["fc1"]) for seed in range(5)]
    assert after(scores.taylor(params, gradients, own)["fc1"]) < min(chance)
    assert after(scores.importance(params, groups)["fc1"]) < min(chance)
    # Scores that see labelled activations instead of weights; those of one pass also beat the size of the weights.
    net = channels.trace(apply, params, x[:128])
    batches = [(x[i : i + 128], labels[i : i + 128]) for i in range(0, 640, 128)]
    statistics = scores.class_statistics(net.taps(), params, batches, 10)
    for score in (scores.absolute_snr, scores.fisher_ratio, scores.symmetric_divergence, scores.two_sample_t):
        (found,) = scores.discriminative(statistics, score).values()
        assert after(found) < min(chance)
        assert after(found) < after(scores.l1(params, own)["fc1"])
    for score in (scores.discriminant_information, scores.information_loss, scores.mmd):
        (found,) = scores.feature_scores(net.taps(), params, batches, score).values()
        assert after(found) < min(chance)
