"""Packed trees are trees: they checkpoint, shard over a mesh, and are listed in a table."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import Mesh, PartitionSpec

import pallas_kernels as pk
from compressjax import projections, runtime
from compressjax.runtime import As
from tests.runtime.nets import params, weights


def all_forms():
    w = np.where(np.arange(24)[:, None] % 4 < 2, weights(24, 12), np.float32(0))
    few = np.sign(w)
    forms = {
        "blocks": As(block=(4, 4)),
        "ragged": As(block=(5, 7)),
        "half": As(nm=(2, 4)),
        "channels": As(channels=True),
        "int8": As(bits=8),
        "int4": As(bits=4, group=12),
        "int8 blocks": As(block=(4, 4), bits=8),
        "levels": As(levels=True),
        "blocks of levels": As(block=(6, 4), levels=True),
        "dense": As(),
    }
    tree = {name: few if "levels" in name else w for name in forms}
    return runtime.pack({**tree, "bias": jnp.ones(12)}, forms)


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def test_orbax_saves_and_restores_through_an_abstract_tree(tmp_path):
    tree = all_forms()
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "packed", tree)
        checkpointer.wait_until_finished()
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, tree)
        restored = checkpointer.restore(tmp_path / "packed", abstract)
    same(restored, tree)
    assert restored["blocks"].matrix.block == (4, 4)
    x = jnp.asarray(weights(3, 24, seed=1))
    for name in ("blocks", "half", "int4"):
        np.testing.assert_array_equal(runtime.linear(x, restored[name]), runtime.linear(x, tree[name]))


def test_trees_stack_and_map():
    tree = runtime.pack(params(), {"fc/kernel": As(nm=(2, 4))})
    doubled = jax.tree.map(lambda leaf: leaf * 2 if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)
    np.testing.assert_array_equal(runtime.unpack(doubled)["fc"]["kernel"], 2 * runtime.unpack(tree)["fc"]["kernel"])
    assert jax.tree.structure(jax.eval_shape(lambda: tree)) == jax.tree.structure(tree)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("blocks", PartitionSpec("model", None, None)),
        ("ragged", PartitionSpec("model", None, None)),
        ("half", PartitionSpec(None, None, "model")),
        ("int4", PartitionSpec(None, "model")),
        ("int8 blocks", PartitionSpec("model", None, None)),
        ("blocks of levels", PartitionSpec("model", None, None)),
        ("dense", PartitionSpec(None, "model")),
    ],
)
def test_two_devices_share_a_product(name, split):
    mesh = Mesh(np.array(jax.devices()[:2]), ("model",))
    leaf = all_forms()[name]
    placed = runtime.shard({"w": leaf}, mesh, "model")["w"]
    first = jax.tree.leaves(placed.weights)[0]
    assert first.sharding.spec == split
    assert first.addressable_shards[0].data.size == first.size // 2
    x = jnp.asarray(weights(3, 24, seed=1))

    def loss(x, w):
        return jnp.sum(jnp.sin(runtime.linear(x, w)))

    got = jax.jit(jax.value_and_grad(loss))(x, placed)
    want = jax.jit(jax.value_and_grad(loss))(x, leaf)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)
    np.testing.assert_array_equal(placed.todense(), leaf.todense())


def test_what_is_not_packed_is_replicated_and_odd_sizes_too():
    mesh = Mesh(np.array(jax.devices()[:2]), ("model",))
    tree = runtime.shard({"w": runtime.pack({"w": weights(4, 3)}, {"w": As()})["w"], "b": jnp.ones(3)}, mesh, "model")
    assert tree["b"].sharding.is_fully_replicated
    assert tree["w"].weights.values.sharding.is_fully_replicated
    with pytest.raises(ValueError, match="no axis 'data'; it has model"):
        runtime.shard(tree, mesh, "data")


def test_a_target_is_written_on_the_leaves():
    tree = all_forms()
    bound = runtime.target(tree, "cpu", "reference")
    assert bound["half"].matrix.implementation == "reference"
    assert bound["bias"] is tree["bias"]
    x = jnp.asarray(weights(2, 24))
    np.testing.assert_allclose(runtime.linear(x, bound["half"]), runtime.linear(x, tree["half"]), rtol=1e-5)
    with pytest.raises(ValueError, match="no implementation 'quick'"):
        runtime.target(tree, "cpu", "quick")
    with pytest.raises(ValueError, match=r"mosaic_tpu.*cannot compute"):
        runtime.linear(x, runtime.target(tree, "cpu", "mosaic_tpu")["half"])


def test_the_report_lists_forms_sizes_and_implementations():
    tree = all_forms()
    report = runtime.report(tree, platform="cpu")
    forms = {row.path: row.form for row in report.rows}
    assert forms == {
        "blocks": "blocks (4, 4)",
        "ragged": "blocks (5, 7)",
        "half": "2:4",
        "channels": "channels 12x12",
        "int8": "int8",
        "int4": "int4",
        "int8 blocks": "blocks (4, 4) of int8",
        "levels": "int4",
        "blocks of levels": "blocks (6, 4) of int4",
        "dense": "dense",
    }
    for row in report.rows:
        assert row.packed_bytes == tree[row.path].nbytes
        assert row.dense_bytes == 24 * 12 * 4
        assert row.implementation == "xla"
    assert {row.path: row.density for row in report.rows}["half"] == 0.5
    assert report.dense_bytes == 10 * 24 * 12 * 4
    lines = str(report).splitlines()
    assert len(lines) == 12
    assert lines[0].split()[:3] == ["path", "shape", "form"]
    assert "int8 blocks" in str(report)
    bound = runtime.report(runtime.target(tree, "tpu", "xla"))
    assert {(row.implementation, row.reason) for row in bound.rows} == {("xla", "asked for")}
    assert str(runtime.report({})).split()[:2] == ["path", "shape"]


def test_packed_leaves_know_their_size():
    leaf = runtime.pack({"w": weights(3, 3, 4, 8)}, {"w": projections.Filters()})["w"]
    assert (leaf.shape, leaf.ndim, leaf.nbytes) == ((3, 3, 4, 8), 4, 3 * 3 * 4 * 8 * 4)
    assert isinstance(leaf.weights, pk.Channels)
