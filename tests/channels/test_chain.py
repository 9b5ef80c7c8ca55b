import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import channels, trees


def dense(*widths, bias=True):
    rng = np.random.default_rng(0)
    layers = [f"l{i}" for i in range(len(widths) - 1)]
    params = {}
    for name, inputs, outputs in zip(layers, widths, widths[1:], strict=False):
        params[name] = {"kernel": jnp.asarray(rng.standard_normal((inputs, outputs)), jnp.float32)}
        if bias:
            params[name]["bias"] = jnp.asarray(rng.standard_normal(outputs), jnp.float32)
    return params, tuple(layers)


def conv_net(c1=2, c2=3, hidden=4, positions=4, kernel=2):
    rng = np.random.default_rng(1)

    def layer(*shape):
        return {"kernel": jnp.asarray(rng.standard_normal(shape), jnp.float32), "bias": jnp.zeros(shape[-1])}

    params = {
        "a": layer(kernel, kernel, 1, c1),
        "b": layer(kernel, kernel, c1, c2),
        "c": layer(positions * c2, hidden),
        "d": layer(hidden, 2),
    }
    return params, ("a", "b", "c", "d")


def test_importance_by_hand_through_all_kinds_of_connection():
    params = {
        "a": {"kernel": jnp.array([3.0, 0.0, 4.0, 2.0]).reshape(2, 1, 1, 2)},  # unit norms 5, 2
        "b": {"kernel": jnp.array([2.0, 1.0]).reshape(1, 1, 2, 1)},  # reads them with 2, 1; unit norm sqrt(5)
        "c": {"kernel": jnp.array([[6.0, 0.0], [8.0, 1.0]])},  # two positions of one channel; norm sqrt(101)
        "d": {"kernel": jnp.array([[1.0], [3.0]])},  # c's units have norms 10, 1
    }
    got = channels.importance(params, ("a", "b", "c", "d"))
    np.testing.assert_allclose(got["a"], [10, 2])
    np.testing.assert_allclose(got["b"], [np.sqrt(505)])
    np.testing.assert_allclose(got["c"], [10, 3])


def test_importance_survives_rescaling_of_a_unit():
    params, chain = dense(5, 4, 3)
    scale = jnp.array([0.1, 1.0, 3.0, 10.0])
    scaled = {
        "l0": {"kernel": params["l0"]["kernel"] * scale[None], "bias": params["l0"]["bias"] * scale},
        "l1": {"kernel": params["l1"]["kernel"] / scale[:, None], "bias": params["l1"]["bias"]},
    }
    np.testing.assert_allclose(
        channels.importance(params, chain)["l0"], channels.importance(scaled, chain)["l0"], rtol=1e-5
    )


def test_take_removes_the_right_rows_after_a_flattening():
    params, chain = conv_net(c2=3, positions=4)
    kernel = params["c"]["kernel"]
    small = channels.take(params, chain, {"b": np.array([0, 2])})
    rows = [3 * position + channel for position in range(4) for channel in (0, 2)]
    np.testing.assert_array_equal(small["c"]["kernel"], kernel[jnp.array(rows)])
    np.testing.assert_array_equal(small["b"]["kernel"], params["b"]["kernel"][..., jnp.array([0, 2])])
    np.testing.assert_array_equal(small["a"]["kernel"], params["a"]["kernel"])


def test_take_of_everything_is_the_identity():
    params, chain = conv_net()
    same = channels.take(params, chain, {layer: np.arange(params[layer]["bias"].size) for layer in chain[:-1]})
    for path, leaf in trees.leaves(same).items():
        np.testing.assert_array_equal(leaf, trees.leaves(params)[path])


def test_take_follows_masks_as_a_leaf_dictionary():
    params, chain = conv_net()
    masks = {p: leaf > 0 for p, leaf in trees.leaves(params).items() if p.endswith("kernel")}
    keep = {"a": np.array([1]), "b": np.array([0, 1]), "c": np.array([3])}
    small, small_masks = channels.take(params, chain, keep), channels.take(masks, chain, keep)
    for path, mask in small_masks.items():
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, trees.leaves(small)[path] > 0)


def test_cut_keeps_the_most_important_in_order_and_breaks_ties_by_index():
    params = {"a": {"kernel": jnp.array([[1.0, 4.0, 2.0, 4.0, 2.0]])}, "b": {"kernel": jnp.ones((5, 1))}}
    kept = [channels.cut(params, ("a", "b"), (k,))["a"]["kernel"][0].tolist() for k in (1, 2, 3, 5)]
    assert kept == [[4.0], [4.0, 4.0], [4.0, 2.0, 4.0], [1.0, 4.0, 2.0, 4.0, 2.0]]


def test_mask_units_does_not_depend_on_memory_order():
    params, chain = conv_net()
    keep = {"b": np.array([1])}
    want = trees.leaves(channels.mask_units(params, chain, keep))
    fortran = trees.update(params, {p: np.asfortranarray(leaf) for p, leaf in trees.leaves(params).items()})
    for path, leaf in trees.leaves(channels.mask_units(fortran, chain, keep)).items():
        np.testing.assert_array_equal(leaf, want[path])


def test_cut_leaves_its_input_alone():
    params, chain = conv_net()
    before = {p: np.array(leaf) for p, leaf in trees.leaves(params).items()}
    channels.cut(params, chain, (1, 1, 1))
    channels.mask_units(params, chain, {"b": np.array([1])})
    channels.remove_dead(params, chain)
    for path, leaf in trees.leaves(params).items():
        np.testing.assert_array_equal(leaf, before[path])


def test_dead_units_cascade():
    # b's only input dies, so b is constant; c then reads only a constant; all of it ends in d's bias.
    params = {
        "a": {"kernel": jnp.array([[0.0, 1.0]]), "bias": jnp.array([2.0, 0.0])},
        "b": {"kernel": jnp.array([[3.0, 0.0], [0.0, 1.0]]), "bias": jnp.array([1.0, 0.0])},
        "c": {"kernel": jnp.array([[1.0, 0.0], [0.0, 1.0]]), "bias": jnp.array([-2.0, 0.0])},
        "d": {"kernel": jnp.array([[10.0], [1.0]]), "bias": jnp.array([0.5])},
    }
    small, kept = channels.remove_dead(params, ("a", "b", "c", "d"))
    assert {layer: k.tolist() for layer, k in kept.items()} == {"a": [1], "b": [1], "c": [1]}
    # a0 = 2, b0 = relu(3 * 2 + 1) = 7, c0 = relu(7 - 2) = 5, d += 10 * 5
    assert small["d"]["bias"].tolist() == [50.5]


def test_unread_units_die_backwards():
    params, chain = dense(3, 4, 4, 2)
    params["l2"]["kernel"] = params["l2"]["kernel"].at[1].set(0)
    params["l1"]["kernel"] = params["l1"]["kernel"].at[2].set(0).at[2, 1].set(5.0)
    small, kept = channels.remove_dead(params, chain)
    assert {layer: k.tolist() for layer, k in kept.items()} == {"l0": [0, 1, 3], "l1": [0, 2, 3]}
    assert small["l0"]["kernel"].shape == (3, 3)


def test_a_negative_bias_makes_a_dead_unit_zero():
    params, chain = dense(2, 2, 1)
    params["l0"] = {"kernel": params["l0"]["kernel"].at[:, 0].set(0), "bias": jnp.array([-3.0, 1.0])}
    small, _ = channels.remove_dead(params, chain)
    np.testing.assert_array_equal(small["l1"]["bias"], params["l1"]["bias"])


def test_one_unit_per_layer_stays():
    params, chain = dense(2, 3, 3, 1)
    zeros = {layer: {"kernel": 0 * p["kernel"], "bias": p["bias"]} for layer, p in params.items()}
    small, kept = channels.remove_dead(zeros, chain)
    assert [len(k) for k in kept.values()] == [1, 1]
    assert small["l2"]["kernel"].shape == (1, 1)


def test_without_a_bias_to_fold_into_a_constant_unit_stays():
    params, chain = dense(2, 3, 2)
    params["l0"] = {"kernel": params["l0"]["kernel"].at[:, :2].set(0), "bias": jnp.array([1.0, -1.0, 0.0])}
    del params["l1"]["bias"]
    _, kept = channels.remove_dead(params, chain)
    assert kept["l0"].tolist() == [0, 2]


def test_masks_decide_what_is_dead():
    params, chain = dense(2, 3, 2)
    masks = {"l0/kernel": np.array([[True, False, True], [True, False, True]])}
    small, kept = channels.remove_dead(params, chain, masks)
    assert kept["l0"].tolist() == [0, 2]
    assert small["l1"]["kernel"].shape == (2, 2)


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda p, c: channels.cut(p, c, (1, 1)), "has 3 hidden layers, not widths"),
        (lambda p, c: channels.cut(p, c, (1, 1, 0)), "Cannot keep 0 of the 4 units of 'c'"),
        (lambda p, c: channels.cut(p, c, (3, 1, 1)), "Cannot keep 3 of the 2 units of 'a'"),
        (lambda p, c: channels.importance(p, ("a", "e")), "names the layer 'e', but no leaf has the path 'e/kernel'"),
        (lambda p, c: channels.importance(p, ("b", "d")), "skips a layer"),
        (lambda p, c: channels.importance(p, ("a",)), "two or more different layers"),
        (lambda p, c: channels.importance(p, ("a", "a")), "two or more different layers"),
        (lambda p, c: channels.take(p, c, {"d": np.array([0])}), "'d', which is no hidden layer"),
        (lambda p, c: channels.take(p, c, {"c": np.array([], int)}), "non-empty vector"),
        (lambda p, c: channels.take(p, c, {"c": np.array([1, 0])}), "increasing unit numbers"),
        (lambda p, c: channels.take(p, c, {"c": np.array([1, 1])}), "increasing unit numbers"),
        (lambda p, c: channels.take(p, c, {"c": np.array([1, 0], np.uint8)}), "increasing unit numbers"),
        (lambda p, c: channels.take(p, c, {"c": np.array([0, 4])}), r"in 0\.\.3"),
        (lambda p, c: channels.mask_units(p, c, {"c": np.array([-1, 2])}), r"in 0\.\.3"),
        (lambda p, c: channels.importance({"a": {"kernel": jnp.ones(3)}}, ("a", "b")), "two or more axes"),
    ],
)
def test_bad_input(call, match):
    params, chain = conv_net()
    with pytest.raises(ValueError, match=match):
        call(params, chain)
