"""SNIP, GraSP and SynFlow: by definition, by derivative, and on networks where others fail."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import masks, scores, trees

WIDTHS = (3, 4, 2)


def make(widths=WIDTHS, seed=0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    return {
        f"fc{number}": {"kernel": jnp.asarray(rng.normal(size=pair) / pair[0] ** 0.5, dtype)}
        for number, pair in enumerate(pairwise(widths), 1)
    }


def apply(params, x):
    *hidden, last = params.values()
    for layer in hidden:
        x = jax.nn.relu(x @ layer["kernel"])
    return x @ last["kernel"]


def loss(params, x, y):
    return jnp.mean((apply(params, x) - y) ** 2)


def batch(seed=1, rows=6, widths=WIDTHS, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.normal(size=(rows, width)), dtype) for width in (widths[0], widths[-1]))


SCORES = {
    "snip": lambda params, x, y: scores.snip(loss, params, x, y),
    "grasp": lambda params, x, y: scores.grasp(loss, params, x, y),
    "synflow": lambda params, x, y: scores.synflow(apply, params, x),
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("score", SCORES)
def test_a_leaf_dictionary_like_that_of_magnitude(score, dtype):
    params = make(dtype=dtype)
    data = batch(dtype=dtype)
    found = jax.jit(SCORES[score])(params, *data)
    expected = scores.magnitude(params)
    assert {path: (s.shape, s.dtype) for path, s in found.items()} == {
        path: (s.shape, s.dtype) for path, s in expected.items()
    }
    assert all(bool(jnp.all(jnp.isfinite(s))) for s in found.values())
    masks.from_scores(found, masks.global_(found, 7))


def test_snip_is_the_slope_of_a_gate_on_every_weight():
    params, data = make(), batch()
    gates = jax.tree.map(jnp.ones_like, params)
    slopes = jax.grad(lambda c: loss(jax.tree.map(jnp.multiply, c, params), *data))(gates)
    for path, score in scores.snip(loss, params, *data).items():
        np.testing.assert_allclose(score, jnp.abs(trees.leaves(slopes)[path]), rtol=1e-5)


def test_grasp_is_half_the_slope_of_the_gradient_flow():
    params, data = make(), batch()

    def flow(gates):
        slopes = jax.grad(loss)(jax.tree.map(jnp.multiply, gates, params), *data)
        return sum(jnp.sum(slope**2) for slope in jax.tree.leaves(slopes))

    expected = trees.leaves(jax.grad(flow)(jax.tree.map(jnp.ones_like, params)))
    found = scores.grasp(loss, params, *data)
    for path, score in found.items():
        np.testing.assert_allclose(score, expected[path] / 2, rtol=1e-4, atol=1e-6)
    assert any(bool(jnp.any(score < 0)) for score in found.values())


def test_synflow_adds_over_paths_and_every_layer_carries_all_of_it():
    params = make((2, 3, 3, 2))
    params["fc2"]["kernel"] = params["fc2"]["kernel"].at[0, 1].set(0.0)
    found = scores.synflow(apply, params, jax.ShapeDtypeStruct((1, 2), jnp.float32))
    one, two, three = (np.abs(np.asarray(layer["kernel"])) for layer in params.values())
    paths = one[:, :, None, None] * two[None, :, :, None] * three[None, None]
    for path, axes in (("fc1/kernel", (2, 3)), ("fc2/kernel", (0, 3)), ("fc3/kernel", (0, 1))):
        np.testing.assert_allclose(found[path], paths.sum(axis=axes), rtol=1e-5)
        np.testing.assert_allclose(found[path].sum(), paths.sum(), rtol=1e-5)


def test_synflow_with_initial_batch_statistics_and_biases_is_that_without():
    params = make()

    def normalized(variables, x):
        kernels = variables["kernels"]
        x = x @ kernels["fc1"]["kernel"] + variables["bias"][None]
        mean, variance = jnp.zeros((1, 4)), jnp.ones((1, 4))
        x = variables["scale"][None] * (x - mean) / jnp.sqrt(variance)
        return jax.nn.relu(x) @ kernels["fc2"]["kernel"]

    variables = {"kernels": params, "scale": -jnp.ones(4), "bias": jnp.zeros(4)}
    plain = scores.synflow(apply, params, jnp.zeros((1, 3)))
    found = scores.synflow(normalized, variables, jnp.zeros((1, 3)))
    for path, score in plain.items():
        np.testing.assert_allclose(found[f"kernels/{path}"], score, rtol=1e-6)
    np.testing.assert_array_equal(found["bias"], 0.0)


def test_snip_finds_the_inputs_that_matter_and_magnitude_does_not():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(400, 80)), jnp.float32)
    truth = jnp.zeros((80, 1)).at[:16].set(3.0)
    params = {"fc1": {"kernel": jnp.asarray(rng.normal(size=(80, 1)) / 4, jnp.float32)}}

    def share(score):
        (alive,) = masks.from_scores(score, {"fc1/kernel": 24}).values()
        return float(jnp.mean(alive[:16]))

    assert share(scores.snip(loss, params, x, x @ truth)) > share(scores.magnitude(params)) + 0.3


@pytest.mark.slow
def test_grasp_keeps_more_gradient_flow_than_random_masks():
    params, data = make((6, 10, 3), seed=3), batch(rows=20, widths=(6, 10, 3))
    total = sum(leaf.size for leaf in jax.tree.leaves(params))

    def flow(alive):
        slopes = jax.grad(loss)(masks.apply(params, alive), *data)
        return float(sum(jnp.sum(slope**2) for slope in jax.tree.leaves(slopes)))

    found = scores.grasp(loss, params, *data)
    counts = {path: int(count) for path, count in masks.global_(found, total * 4 // 5).items()}
    chosen = flow(masks.from_scores(found, counts))
    chance = [flow(masks.random(jax.random.key(seed), trees.shapes(params), counts)) for seed in range(10)]
    assert chosen > max(chance)


@pytest.mark.slow
def test_iterative_synflow_keeps_every_layer_alive_where_one_shot_scores_empty_one():
    widths, keep = (5, 40, 40, 3), 30
    params = make(widths)
    flow = lambda p: scores.synflow(apply, p, jnp.zeros((1, widths[0])))  # noqa: E731

    def fewest(alive):
        return min(int(mask.sum()) for mask in alive.values())

    def passes(alive):
        positive = jax.tree.map(jnp.abs, masks.apply(params, alive))
        return float(jnp.sum(apply(positive, jnp.ones((1, widths[0])))))

    slow = masks.iterative(flow, params, keep, rounds=40)
    assert sum(int(mask.sum()) for mask in slow.values()) == keep
    assert fewest(slow) >= 2
    assert passes(slow) > 0.0
    for score in (flow(params), scores.magnitude(params)):
        once = masks.from_scores(score, masks.global_(score, keep))
        assert passes(once) == 0.0


def test_synflow_refuses_integer_inputs():
    with pytest.raises(ValueError, match="holds int32: start after the embedding"):
        scores.synflow(apply, make(), jnp.ones((1, 3), jnp.int32))
