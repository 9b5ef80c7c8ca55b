import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.core import FrozenDict, freeze

from compressjax import trees


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Affine:
    kernel: jax.Array
    bias: jax.Array
    name: str = dataclasses.field(default="affine", metadata={"static": True})


class Pair(NamedTuple):
    kernel: jax.Array
    bias: jax.Array


class TwoLayers(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 2, (3, 3), rngs=rngs)
        self.layers = nnx.List([nnx.Linear(2, 3, rngs=rngs), nnx.Linear(3, 1, rngs=rngs)])


def nested():
    return {
        "conv": {"bias": jnp.zeros(2), "kernel": jnp.ones((3, 3, 1, 2))},
        "fc": {"bias": jnp.zeros(3), "kernel": jnp.ones((2, 3))},
    }


NESTED_PATHS = ["conv/bias", "conv/kernel", "fc/bias", "fc/kernel"]

# One row per kind of tree: how to make it, and its paths.
KINDS = {
    "dict": (nested, NESTED_PATHS),
    "FrozenDict": (lambda: freeze(nested()), NESTED_PATHS),
    "nnx.State": (
        lambda: nnx.state(TwoLayers(nnx.Rngs(0))),
        [f"{layer}/{leaf}" for layer in ("conv", "layers/0", "layers/1") for leaf in ("bias", "kernel")],
    ),
    "nnx.Module": (
        lambda: nnx.state(TwoLayers(nnx.Rngs(0)), nnx.Param),
        [f"{layer}/{leaf}" for layer in ("conv", "layers/0", "layers/1") for leaf in ("bias", "kernel")],
    ),
    "tuple": (lambda: ((jnp.ones(2), [jnp.zeros(3)]), jnp.ones(1)), ["0/0", "0/1/0", "1"]),
    "NamedTuple": (lambda: {"fc": Pair(jnp.ones((2, 2)), jnp.zeros(2))}, ["fc/kernel", "fc/bias"]),
    "dataclass": (lambda: [Affine(jnp.ones((2, 2)), jnp.zeros(2))], ["0/kernel", "0/bias"]),
    "leaf dictionary": (lambda: trees.leaves(nested()), NESTED_PATHS),
}


@pytest.fixture(params=KINDS)
def kind(request):
    make, paths = KINDS[request.param]
    return make(), paths


def test_paths_of_every_kind_of_tree(kind):
    tree, paths = kind
    assert sorted(trees.leaves(tree)) == sorted(paths)
    for value, leaf in zip(trees.leaves(tree).values(), jax.tree.leaves(tree), strict=True):
        assert value is leaf


def test_update_changes_the_named_leaf_and_keeps_kind_and_original(kind):
    tree, paths = kind
    before = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    new = trees.update(tree, {paths[0]: jnp.full((7,), 5.0)})
    assert type(new) is type(tree)
    assert jax.tree.structure(new) == jax.tree.structure(tree)
    for path, leaf in trees.leaves(new).items():
        if path == paths[0]:
            assert leaf.tolist() == [5.0] * 7
        else:
            assert leaf is trees.leaves(tree)[path]
    for old, leaf in zip(before, jax.tree.leaves(tree), strict=True):
        np.testing.assert_array_equal(old, leaf)


def test_update_with_all_its_leaves_is_the_identity(kind):
    tree, _ = kind
    assert trees.leaves(trees.update(tree, trees.leaves(tree))) == trees.leaves(tree)
    assert trees.leaves(trees.update(tree, {})) == trees.leaves(tree)


def test_assign_sees_every_kind_of_tree(kind):
    tree, paths = kind
    assert trees.assign({"*": 1}, tree) == dict.fromkeys(paths, 1)


def test_the_same_rules_serve_linen_and_nnx_inside_jit():
    rules = {"conv/*": None, "*/kernel": 3.0}

    @jax.jit
    def scale(tree):
        return trees.map_leaves(lambda w, factor: w * factor, tree, trees.assign(rules, tree))

    for make in (nested, lambda: nnx.state(TwoLayers(nnx.Rngs(0)))):
        before, after = trees.leaves(make()), trees.leaves(scale(make()))
        for path in before:
            factor = 3.0 if path.endswith("kernel") and not path.startswith("conv") else 1.0
            np.testing.assert_allclose(after[path], before[path] * factor, rtol=1e-6)


def test_update_with_an_unknown_path_names_it():
    with pytest.raises(ValueError, match=r"No leaf has the path 'fc/kernels'\. Leaves: conv/bias, "):
        trees.update(nested(), {"fc/kernels": 1})


def test_map_leaves_with_an_unknown_path_names_it():
    with pytest.raises(ValueError, match="No leaf has the path 'fd/kernel'"):
        trees.map_leaves(lambda w, m: w, nested(), {"fd/kernel": 1})


def test_map_leaves_without_dictionaries_touches_all_leaves():
    assert trees.map_leaves(lambda w: w + 1, {"a": 1, "b": (2,)}) == {"a": 2, "b": (3,)}


def test_map_leaves_touches_only_what_all_dictionaries_name():
    tree = {"a": 1, "b": 2, "c": 3}
    got = trees.map_leaves(lambda w, x, y: w + x + y, tree, {"a": 10, "b": 20}, {"b": 200, "c": 300})
    assert got == {"a": 1, "b": 222, "c": 3}


def test_two_leaves_with_one_path_are_refused():
    with pytest.raises(ValueError, match="share the path 'a/b'"):
        trees.leaves({"a": {"b": 1}, "a/b": 2})


@pytest.mark.parametrize(
    "rules, expected",
    [
        ({"*": 1}, {"conv/bias": 1, "conv/kernel": 1, "fc/bias": 1, "fc/kernel": 1}),
        ({"*/kernel": 1}, {"conv/kernel": 1, "fc/kernel": 1}),
        ({"conv/*": 1, "*/kernel": 2}, {"conv/bias": 1, "conv/kernel": 1, "fc/kernel": 2}),
        ({"*/kernel": 2, "conv/*": 1}, {"conv/bias": 1, "conv/kernel": 2, "fc/kernel": 2}),
        ({"*/bias": None, "*": 1}, {"conv/kernel": 1, "fc/kernel": 1}),
        ({"[cf]*/kerne?": 1}, {"conv/kernel": 1, "fc/kernel": 1}),
        ({"*": None}, {}),
        ({}, {}),
    ],
)
def test_first_matching_rule_decides(rules, expected):
    assert trees.assign(rules, nested()) == expected


@pytest.mark.parametrize(
    "rules, match",
    [
        ({"conv2/kernel": 1}, r"'conv2/kernel' has no effect: it matches no leaf\. Leaves: conv/bias"),
        ({"*/kernel": 1, "conv3/*": None}, r"'conv3/\*' has no effect: it matches no leaf"),
        ({"*/kernel": 1, "conv/kernel": 2}, r"'conv/kernel' has no effect: earlier rules already decide"),
        ({"*": None, "*/bias": 2}, r"'\*/bias' has no effect: earlier rules already decide"),
        ({"Conv/*": 1}, r"'Conv/\*' has no effect: it matches no leaf"),
    ],
)
def test_rules_without_effect_are_refused(rules, match):
    with pytest.raises(ValueError, match=match):
        trees.assign(rules, nested())


def test_falsy_values_are_values():
    assert trees.assign({"conv/*": 0, "fc/kernel": False}, nested()) == {
        "conv/bias": 0,
        "conv/kernel": 0,
        "fc/kernel": False,
    }


def test_a_trailing_value_is_dropped_only_where_it_is_an_attribute():
    assert trees.leaves({"value": 1, "fc": {"value": 2}}) == {"fc/value": 2, "value": 1}
    key = jax.tree_util.GetAttrKey("value")
    assert trees.path_string((jax.tree_util.DictKey("a"), key)) == "a"
    assert trees.path_string((key,)) == "value"


def test_a_frozen_dict_is_a_mapping_of_rules_too():
    assert trees.assign(FrozenDict({"*/kernel": 1}), nested()) == {"conv/kernel": 1, "fc/kernel": 1}


@pytest.mark.parametrize("chunk", [None, 1, 2, 4, 5, 9])
def test_a_population_is_mapped_member_by_member(chunk) -> None:
    members = {"a": jnp.arange(10.0).reshape(5, 2), "b": (jnp.arange(5),)}
    found = trees.in_chunks(chunk)(lambda one: (one["a"].sum(), one["b"][0] + 1))(members)
    np.testing.assert_array_equal(found[0], [1, 5, 9, 13, 17])
    np.testing.assert_array_equal(found[1], [1, 2, 3, 4, 5])


@pytest.mark.parametrize("chunk", [0, -1, True])
def test_a_chunk_is_a_whole_number_from_1(chunk) -> None:
    with pytest.raises(ValueError, match="must be a whole number, at least 1"):
        trees.in_chunks(chunk)
