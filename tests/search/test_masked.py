"""Populations of masked networks: the accuracies are those of the members masked one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import channels, search

RNG = np.random.default_rng(0)
PARAMS = {
    name: RNG.normal(size=shape).astype(np.float32) for name, shape in {"a": (8, 10), "b": (10, 6), "c": (6, 3)}.items()
}
X = RNG.normal(size=(40, 8)).astype(np.float32)


def network(p, x):
    return jax.nn.relu(jax.nn.relu(x @ p["a"]) @ p["b"]) @ p["c"]


LABELS = np.asarray(network(PARAMS, X)).argmax(1)
NET = channels.trace(network, PARAMS, X)
KEEPS = [{"g0": RNG.random(10) < 0.7, "g1": RNG.random(6) < 0.7} for _ in range(7)]
MASKS = search.stack_keeps(NET, KEEPS)


def one_by_one():
    return [np.mean(np.asarray(network(NET.mask(PARAMS, keep), X)).argmax(1) == LABELS) for keep in KEEPS]


@pytest.mark.parametrize("chunk", [None, 1, 3, 7, 100])
def test_accuracies_are_those_of_masked_parameters(chunk):
    evaluate = jax.jit(search.population_accuracy(NET, chunk=chunk))
    found = evaluate(PARAMS, MASKS, X, LABELS)
    np.testing.assert_allclose(found, one_by_one(), atol=1e-6)
    assert len(set(found.tolist())) > 3  # the masks matter


@pytest.mark.parametrize("chunk", [None, 1, 3, 7])
def test_slots_change_nothing(chunk):
    slots = search.stack_slots(NET, KEEPS)
    found = jax.jit(search.population_accuracy(NET, chunk=chunk))(PARAMS, slots, X, LABELS)
    np.testing.assert_allclose(found, one_by_one(), atol=1e-6)


def test_slots_are_as_many_as_the_largest_member_needs():
    net = channels.trace(lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"], {"a": np.ones((2, 64)), "b": np.ones((64, 2))},
                         np.ones((1, 2)))  # fmt: skip
    keeps = [{"g0": np.arange(64) < count} for count in (3, 9)]
    slots = search.stack_slots(net, keeps)
    assert slots.members["g0"].shape == (2, 16)  # a multiple of an eighth of 64
    assert slots.filled["g0"].sum(1).tolist() == [3, 9]
    assert search.stack_slots(net, keeps, parts=64).members["g0"].shape == (2, 12)  # of four
    whole = search.stack_slots(net, [*keeps, {}])
    assert not whole.members
    np.testing.assert_array_equal(whole.filled["g0"], search.stack_keeps(net, [*keeps, {}])["g0"])
    for parts in (0, True):
        with pytest.raises(ValueError, match=f"parts={parts}"):
            search.stack_slots(net, keeps, parts=parts)
    with pytest.raises(ValueError, match="no keep set"):
        search.stack_slots(net, [])


@pytest.mark.parametrize("chunk", [None, 1, 3, 7])
def test_a_function_that_takes_masks_will_do(chunk):
    def apply(p, masks, x):
        h = jax.nn.relu(x @ p["a"]) * masks["g0"][None]
        return (jax.nn.relu(h @ p["b"]) * masks["g1"][None]) @ p["c"]

    evaluate = search.population_accuracy(apply, chunk=chunk)
    np.testing.assert_allclose(jax.jit(evaluate)(PARAMS, MASKS, X, LABELS), one_by_one(), atol=1e-6)
    with pytest.raises(ValueError, match="need a traced net"):
        evaluate(PARAMS, *shared_of("g0"))
    with pytest.raises(ValueError, match="Slots need a traced net"):
        evaluate(PARAMS, search.stack_slots(NET, KEEPS), X, LABELS)


def shared_of(*names):
    rest, shared = search.share(MASKS, names)
    return rest, X, LABELS, shared


@pytest.mark.parametrize("names", [("g0",), ("g1",), ("g0", "g1")])
def test_sharing_changes_nothing(names):
    found = jax.jit(search.population_accuracy(NET))(PARAMS, *shared_of(*names))
    np.testing.assert_allclose(found, one_by_one(), atol=1e-6)


def test_shared_masks_are_the_different_ones_filled_up_to_a_power_of_two():
    rows = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 1], [1, 0, 0]], np.float32)
    masks = {"g0": rows, "g1": np.arange(10, dtype=np.float32).reshape(5, 2)}
    rest, shared = search.share(masks, ["g0"])
    assert list(rest) == ["g1"]
    assert shared.masks["g0"].shape == (4, 3)
    np.testing.assert_array_equal(shared.masks["g0"][shared.which], rows)
    rest, shared = search.share(masks, ["g1", "g0"])
    assert not rest
    assert shared.masks["g1"].shape == (8, 2)
    for name, mask in masks.items():
        np.testing.assert_array_equal(shared.masks[name][shared.which], mask)


def test_any_metric_will_do():
    def metric(logits, labels):
        return {"hits": jnp.sum(logits.argmax(-1) == labels), "size": jnp.square(logits).mean()}

    found = search.population_accuracy(NET, metric=metric)(PARAMS, MASKS, X, LABELS)
    np.testing.assert_allclose(found["hits"], 40 * np.asarray(one_by_one()), atol=1e-4)
    assert found["size"].shape == (7,)


def test_a_new_population_compiles_nothing():
    traced = []

    def metric(logits, labels):
        traced.append(None)
        return search.accuracy(logits, labels)

    evaluate = jax.jit(search.population_accuracy(NET, metric=metric))
    first = evaluate(PARAMS, MASKS, X, LABELS)
    second = evaluate(PARAMS, {name: mask[::-1] for name, mask in MASKS.items()}, X, LABELS)
    np.testing.assert_array_equal(first, second[::-1])
    assert len(traced) == 1


def test_missing_groups_stay_whole():
    np.testing.assert_array_equal(search.stack_keeps(NET, [{}, KEEPS[0]])["g1"][0], np.ones(6))
    found = search.population_accuracy(NET)(PARAMS, {"g1": MASKS["g1"]}, X, LABELS)
    keeps = [{"g1": keep["g1"]} for keep in KEEPS]
    expected = search.population_accuracy(NET)(PARAMS, search.stack_keeps(NET, keeps), X, LABELS)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: search.population_accuracy(NET, chunk=0), "chunk=0 must be a whole number"),
        (lambda: search.population_accuracy(NET, chunk=True), "chunk=True must be"),
        (lambda: search.population_accuracy(NET)(PARAMS, {}, X, LABELS), "no common population"),
        (lambda: search.population_accuracy(NET)(PARAMS, {"g9": MASKS["g0"]}, X, LABELS), "'g9', which is no group"),
        (lambda: search.population_accuracy(NET)(PARAMS, MASKS, X[:9], LABELS), "trace it with the batch"),
        (
            lambda: search.population_accuracy(NET)(PARAMS, {**MASKS, "g1": MASKS["g1"][:3]}, X, LABELS),
            "no common population",
        ),
        (lambda: search.stack_keeps(NET, []), "There is no keep set"),
        (lambda: search.stack_keeps(NET, [{"g0": np.zeros(10, bool)}]), "keeps nothing"),
        (lambda: search.share(MASKS, []), "at least one group name"),
        (lambda: search.share(MASKS, "g0"), "at least one group name"),
        (lambda: search.share(MASKS, ["g9"]), "'g9', which has no masks; there are masks for g0, g1"),
    ],
)
def test_bad_input(unchecked, call, match):
    with pytest.raises(ValueError, match=match):
        call()
