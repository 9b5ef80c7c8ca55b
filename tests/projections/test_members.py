"""Coupled groups as plain data: selecting places, checking them, sums and layouts over them."""

from types import SimpleNamespace as Plain

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax.projections import GroupLike, matching, producers, readers, under, whole
from compressjax.projections._members import check_groups, entries, member_sums, spread


def place(path, axis, index):
    return Plain(path=path, axis=axis, index=np.asarray(index, np.int32))


def conv_then_dense():
    """Two channels that a flattening (2 positions x 2 channels, then one other feature) hands to a dense layer."""
    params = {
        "conv": {"kernel": jnp.arange(6.0).reshape(3, 2), "bias": jnp.array([10.0, 20.0])},
        "fc": {"kernel": jnp.arange(10.0).reshape(5, 2)},
    }
    places = [place("conv/kernel", 1, [0, 1]), place("conv/bias", 0, [0, 1]), place("fc/kernel", 0, [0, 1, 0, 1, -1])]
    return params, Plain(name="conv", size=2, members=places)


def paths(groups):
    return [(group.name, [(member.path, member.axis) for member in group.members]) for group in groups]


def test_plain_data_is_a_group() -> None:
    assert isinstance(conv_then_dense()[1], GroupLike)


def test_both_sides_of_a_channel() -> None:
    params, group = conv_then_dense()
    assert paths(producers([group], params)) == [("conv", [("conv/kernel", 1)])]
    assert paths(readers([group], params)) == [("conv", [("fc/kernel", 0)])]


def test_attention_kernels_have_two_output_axes() -> None:
    params = {
        "query": {"kernel": jnp.ones((6, 3, 2)), "bias": jnp.ones((3, 2))},
        "out": {"kernel": jnp.ones((3, 2, 6)), "bias": jnp.ones(6)},
    }
    members = [place("query/kernel", 1, range(3)), place("query/bias", 0, range(3)), place("out/kernel", 0, range(3))]
    heads = Plain(name="heads", size=3, members=members)
    with pytest.raises(ValueError, match=r"No kernel produces .*'heads'.*outputs="):
        producers([heads], params)
    outputs = {"query/*": 2}
    assert paths(producers([heads], params, outputs=outputs)) == [("heads", [("query/kernel", 1)])]
    assert paths(readers([heads], params, outputs=outputs)) == [("heads", [("out/kernel", 0)])]


def outputs_first():
    """``h = l2.weight @ relu(l1.weight @ x)`` and a convolution OIHW before it, all with outputs first."""
    params = {
        "conv": {"weight": jnp.ones((3, 1, 2, 2)), "bias": jnp.ones(3)},
        "l1": {"weight": jnp.ones((4, 3)), "scale": jnp.ones(())},
        "l2": {"weight": jnp.ones((2, 4))},
    }
    conv = [place("conv/weight", 0, range(3)), place("conv/bias", 0, range(3)), place("l1/weight", 1, range(3))]
    hidden = [place("l1/weight", 0, range(4)), place("l2/weight", 1, range(4))]
    return params, [Plain(name="conv", size=3, members=conv), Plain(name="l1", size=4, members=hidden)]


def test_first_axes_are_outputs_where_a_rule_is_negative() -> None:
    params, groups = outputs_first()
    rule = {"*weight": -1}
    assert paths(producers(groups, params, outputs=rule)) == [
        ("conv", [("conv/weight", 0)]),
        ("l1", [("l1/weight", 0)]),
    ]
    assert paths(readers(groups, params, outputs=rule)) == [("conv", [("l1/weight", 1)]), ("l1", [("l2/weight", 1)])]
    # A rule that takes in vectors and scalars as well says the same: they are neither.
    assert paths(producers(groups, params, outputs={"*": -1})) == paths(producers(groups, params, outputs=rule))
    two = {"kernel": jnp.ones((2, 3, 5))}
    heads = Plain(name="heads", size=3, members=[place("kernel", 1, range(3))])
    assert paths(producers([heads], two, outputs={"kernel": -2})) == [("heads", [("kernel", 1)])]
    with pytest.raises(ValueError, match="No kernel reads"):
        readers([heads], two, outputs={"kernel": -2})


@pytest.mark.parametrize("number", [0, True, 1.5])
def test_outputs_that_are_no_number_of_axes(number, unchecked) -> None:
    params, groups = outputs_first()
    with pytest.raises(ValueError, match=rf"outputs of l1/weight is {number}: give how many of its last axes"):
        producers(groups, params, outputs={"l1/weight": number})


@pytest.mark.parametrize("number", [3, -3])
def test_more_outputs_than_axes(number: int) -> None:
    params, groups = outputs_first()
    with pytest.raises(ValueError, match=rf"outputs of l1/weight is {number}, but it has 2 axes"):
        readers(groups, params, outputs={"l1/weight": number})


def test_python_numbers_are_scalars() -> None:
    params, groups = outputs_first()
    params["l1"]["scale"] = 2.0
    assert paths(producers(groups[1:], params, outputs={"*": -1})) == [("l1", [("l1/weight", 0)])]
    with pytest.raises(ValueError, match=r"l1/scale axis 0: the leaf of shape \(\)"):
        producers([Plain(name="s", size=1, members=[place("l1/scale", 0, [0])])], params)


def test_a_net_is_no_sequence_of_groups(unchecked) -> None:
    params, groups = outputs_first()
    net = Plain(groups=groups)
    for take in (lambda g: producers(g, params), lambda g: under(g, "l1"), lambda g: matching(g, "*")):
        with pytest.raises(ValueError, match=r"no sequence of groups: pass its \.groups"):
            take(net)
        with pytest.raises(ValueError, match="groups is a int, no sequence of groups: pass a list"):
            take(3)


def test_selection_by_key_and_by_glob() -> None:
    params, group = conv_then_dense()
    both = whole("all", {"params": params, "stats": {"mean": jnp.ones(2)}}, "*")
    (below,) = under([both], "params/conv")
    assert paths([below]) == [("all", [("bias", 0), ("kernel", 0)])]
    other = Plain(name="other", size=1, members=[place("x/scale", 0, [0])])
    assert paths(matching([group, other], "*/bias", "*/scale")) == [
        ("conv", [("conv/bias", 0)]),
        ("other", [("x/scale", 0)]),
    ]
    assert paths(matching([group, other], "x/*")) == [("other", [("x/scale", 0)])]


def test_sums_counts_and_layout_follow_the_index() -> None:
    params, group = conv_then_dense()
    known = {"conv/kernel": params["conv"]["kernel"], "conv/bias": params["conv"]["bias"]}
    known["fc/kernel"] = params["fc"]["kernel"]
    shapes = {path: leaf.shape for path, leaf in known.items()}
    # Member 0: kernel 0 + 2 + 4, bias 10, rows 0 and 2 of fc: 0 + 1 + 4 + 5; row 4 belongs to nobody.
    np.testing.assert_array_equal(member_sums(jnp.abs, group, known), [26.0, 9.0 + 20.0 + 18.0])
    np.testing.assert_array_equal(entries(group, shapes), [8, 8])
    np.testing.assert_array_equal(spread(jnp.array([3.0, 5.0]), group.members[2], 2), [[3], [5], [3], [5], [1]])
    assert spread(jnp.array([3.0, 5.0]), group.members[0], 2).shape == (1, 2)


def test_sums_are_wide_and_work_under_jit_and_vmap() -> None:
    _, group = conv_then_dense()
    narrow = jnp.full((256, 2), 1.0, jnp.bfloat16).at[0].set(256.0)
    alone = Plain(name="conv", size=2, members=group.members[:1])
    found = jax.jit(lambda x: member_sums(jnp.abs, alone, {"conv/kernel": x}))(narrow)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, [511.0, 511.0])
    many = jax.vmap(lambda x: member_sums(jnp.abs, alone, {"conv/kernel": x}))(jnp.stack([narrow, 2 * narrow]))
    np.testing.assert_array_equal(many, [[511.0, 511.0], [1022.0, 1022.0]])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([place("nowhere", 0, [0, 1])], r"'conv', nowhere axis 0: no leaf has this path"),
        ([place("conv/bias", 1, [0, 1])], r"conv/bias axis 1: the leaf of shape \(2,\) has no such axis"),
        ([place("conv/bias", -1, [0, 1])], "no such axis"),
        ([place("conv/bias", 0, [0, 1, 1])], "3 positions does not fit shape"),
        ([place("conv/bias", 0, [0, 2])], r"member numbers 0\.\.1"),
        ([place("conv/bias", 0, [0, -2])], r"member numbers 0\.\.1"),
        ([place("count", 0, [0, 1])], "count holds int32"),
        ([], "no places"),
    ],
)
def test_places_that_do_not_fit(bad, message: str) -> None:
    known = {"conv/bias": jnp.ones(2), "count": jnp.ones(2, jnp.int32)}
    with pytest.raises(ValueError, match=message):
        check_groups([Plain(name="conv", size=2, members=bad)], known)


def test_names_and_selections_that_do_not_exist() -> None:
    params, group = conv_then_dense()
    known = {"conv/kernel": params["conv"]["kernel"], "conv/bias": params["conv"]["bias"]}
    alone = Plain(name="conv", size=2, members=group.members[:2])
    with pytest.raises(ValueError, match="Two groups have the name 'conv'"):
        check_groups([alone, alone], known)
    with pytest.raises(ValueError, match=r"place on '\*/scale'"):
        matching([group], "*/bias", "*/scale")
    with pytest.raises(ValueError, match="below the key 'weights'"):
        under([group], "weights")
    with pytest.raises(ValueError, match="is a scalar"):
        whole("all", {"a": jnp.float32(1.0)}, "*")
    with pytest.raises(ValueError, match="matches no leaf"):
        whole("all", params, "dense/*")
