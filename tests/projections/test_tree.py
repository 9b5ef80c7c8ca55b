"""Projection of trees by rules, and budgets that leaves share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax.projections import Cardinality, Filters, Joint, project, supports
from compressjax.quantizers import Codebook

PARAMS = {
    "a": {"kernel": jnp.array([[5.0, 1.0], [0.5, -4.0]]), "bias": jnp.array([9.0])},
    "b": {"kernel": jnp.array([3.0, 2.0, -6.0])},
}


def test_rules_project_their_leaves_only() -> None:
    z = project({"a/kernel": Cardinality(1), "b/*": None}, PARAMS)
    np.testing.assert_array_equal(z["a"]["kernel"], [[5, 0], [0, 0]])
    np.testing.assert_array_equal(z["a"]["bias"], [9])
    np.testing.assert_array_equal(z["b"]["kernel"], [3, 2, -6])


def test_a_joint_budget_is_shared() -> None:
    z = project({"*/kernel": Joint(Cardinality(3))}, PARAMS)
    np.testing.assert_array_equal(z["a"]["kernel"], [[5, 0], [0, -4]])
    np.testing.assert_array_equal(z["b"]["kernel"], [0, 0, -6])
    masks = supports({"*/kernel": Joint(Cardinality(3))}, PARAMS)
    assert {path: int(mask.sum()) for path, mask in masks.items()} == {"a/kernel": 2, "b/kernel": 1}


def test_equal_joints_are_two_budgets_and_one_object_is_one() -> None:
    two = supports({"a/kernel": Joint(Cardinality(1)), "b/kernel": Joint(Cardinality(1))}, PARAMS)
    assert [int(mask.sum()) for mask in two.values()] == [1, 1]
    shared = Joint(Cardinality(1))
    one = supports({"a/kernel": shared, "b/kernel": shared}, PARAMS)
    assert [int(mask.sum()) for mask in one.values()] == [0, 1]


def test_a_joint_fraction_is_of_all_leaves() -> None:
    masks = supports({"*/kernel": Joint(Cardinality(0.5))}, PARAMS)
    assert sum(int(mask.sum()) for mask in masks.values()) == 3


def test_ties_of_a_joint_budget_go_to_the_earlier_leaf() -> None:
    masks = supports({"*": Joint(Cardinality(3))}, {"a": jnp.ones(2), "b": jnp.ones(2)})
    np.testing.assert_array_equal(masks["a"], [True, True])
    np.testing.assert_array_equal(masks["b"], [True, False])


def test_a_joint_codebook_is_shared() -> None:
    z = project({"*": Joint(Codebook(1))}, {"a": jnp.array([1.0, 1.2]), "b": jnp.array([5.0, 1.1, 0.0])})
    np.testing.assert_allclose(z["a"], [1.1, 1.1], rtol=1e-6)
    np.testing.assert_allclose(z["b"], [5.0, 1.1, 0.0], rtol=1e-6)


def test_mixed_dtypes_keep_theirs() -> None:
    tree = {"a": jnp.array([1.5, 2.5], jnp.bfloat16), "b": jnp.array([2.0, 1.0])}
    z = project({"*": Joint(Cardinality(2))}, tree)
    assert z["a"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(z["a"].astype(jnp.float32), [0, 2.5])
    np.testing.assert_array_equal(z["b"], [2, 0])


def test_trees_under_jit_and_as_leaf_dictionaries() -> None:
    joint = Joint(Cardinality(3))
    rules = {"a/kernel": joint, "b/kernel": joint}
    flat = {"a/kernel": PARAMS["a"]["kernel"], "b/kernel": PARAMS["b"]["kernel"]}
    jitted = jax.jit(lambda tree: project(rules, tree))
    np.testing.assert_array_equal(jitted(flat)["a/kernel"], project(rules, PARAMS)["a"]["kernel"])


@pytest.mark.parametrize(
    ("rules", "tree", "message"),
    [
        ({"c/*": Cardinality(1)}, PARAMS, "matches no leaf"),
        ({"b/kernel": Cardinality(4)}, PARAMS, "b/kernel: keep=4 entries"),
        ({"*/kernel": Joint(Cardinality(8))}, PARAMS, "a/kernel, b/kernel: keep=8 entries"),
        ({"*/kernel": Joint(Filters(1))}, PARAMS, "a/kernel, b/kernel: Filters needs at least 2"),
        ({"n": Cardinality(1)}, {"n": jnp.array([1, 2])}, "n: only floating-point leaves"),
    ],
)
def test_bad_input_names_the_leaf(rules, tree, message: str) -> None:
    for function in (project, supports):
        with pytest.raises(ValueError, match=message):
            function(rules, tree)


def test_a_joint_of_a_joint() -> None:
    with pytest.raises(ValueError, match="Joint of a Joint"):
        Joint(Joint(Cardinality(1)))
