"""encode/decode: what goes in comes out, bit for bit, and what cannot go in is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from compressjax import storage
from compressjax.storage._dtypes import DTYPES


def same(a, b):
    """Equal structure, shapes, dtypes and bits."""
    flat_a, flat_b = (jax.tree_util.tree_leaves_with_path(t) for t in (a, b))
    assert [path for path, _ in flat_a] == [path for path, _ in flat_b]
    for (path, x), (_, y) in zip(flat_a, flat_b, strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert (x.shape, x.dtype) == (y.shape, y.dtype), path
        assert x.tobytes() == y.tobytes(), path


def check(tree, meta=None, **kwargs):
    data = storage.encode(tree, meta, **kwargs)
    artifact = storage.decode(data)
    same(tree, artifact.params)
    assert artifact.meta == (meta or {})
    account = storage.account(data)
    assert account.bits == 8 * len(data) == 8 * account.size
    assert account.header_bits > 0
    assert all(min(leaf.values, leaf.positions, leaf.codebook, leaf.header) >= 0 for leaf in account.leaves)
    assert data == storage.encode(tree, meta, **kwargs)
    return account


def sparse(shape, count, levels, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    x = np.zeros(shape, dtype)
    x.reshape(-1)[rng.choice(x.size, count, replace=False)] = rng.choice(np.array(levels, dtype), count)
    return x


def test_empty_tree():
    assert check({}).leaves == ()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (7,), (4, 5), (3, 3, 2, 4)])
def test_every_dtype_and_shape(dtype, shape):
    rng = np.random.default_rng(1)
    values = (rng.normal(size=shape) * 40 * (rng.random(shape) < 0.5)).astype(np.float64)
    check({"x": np.asarray(np.abs(values) if dtype.kind in "ub" else values).astype(dtype)})


@pytest.mark.parametrize("dtype", [t for t in DTYPES if t.kind in "iu"], ids=str)
def test_extreme_integers(dtype):
    info = np.iinfo(dtype)
    check({"x": np.array([info.min, info.max, 0, 1], dtype), "y": np.array([info.max], dtype)})


@pytest.mark.parametrize("dtype", [np.int64, np.uint64], ids=str)
def test_the_lowest_integer_among_zeros(dtype):
    # As int64 it has no positive twin, so that a bound on magnitudes must not go by `abs`.
    x = np.zeros(10, dtype)
    x[[0, 3, 7]] = np.uint64(1 << 63).astype(dtype), 1, 5
    check({"x": x})


def test_extreme_floats():
    for dtype in (np.float32, np.float16, np.float64, ml_dtypes.bfloat16):
        info = ml_dtypes.finfo(dtype)
        values = [info.max, info.min, info.smallest_subnormal, -info.smallest_subnormal, info.tiny, -0.0, 0.0, 1.0]
        check({"x": np.array(values, dtype), "y": np.array(values[:1], dtype), "z": np.array(values[2:3], dtype)})


@pytest.mark.parametrize("shape", [(50,), (5, 10)])
def test_negative_zero_keeps_its_sign(shape):
    x = np.zeros(shape, np.float32)
    x.reshape(-1)[[3, 40]] = -0.0, 1.5
    account = check({"x": x, "all": -np.zeros((20, 20), np.float32)})
    assert [leaf.nonzeros for leaf in account.leaves] == [400, 2]


def test_masked_weights_without_the_signs_of_their_zeros():
    rng = np.random.default_rng(0)
    mask = rng.random((40, 50)) < 0.05
    tree = {"x": jnp.asarray(-np.abs(rng.normal(size=(40, 50)).astype(np.float32)) * mask), "n": jnp.arange(3)}
    clean = storage.positive_zeros(tree)
    assert np.array_equal(clean["x"], tree["x"])
    assert check(tree).leaves[1].nonzeros == 2000
    assert check(clean).leaves[1].nonzeros == mask.sum()
    assert clean["n"].tolist() == [0, 1, 2]
    scalar = storage.positive_zeros({"s": ml_dtypes.bfloat16(-0.0)})["s"]
    assert not np.signbit(scalar)
    assert scalar.dtype == ml_dtypes.bfloat16


def test_all_zero_leaf_costs_nothing_but_its_header():
    account = check({"x": np.zeros((1000, 100), np.float32)})
    (leaf,) = account.leaves
    assert (leaf.values, leaf.positions, leaf.codebook, leaf.codec) == (0, 0, 0, "empty")
    assert account.size < 25


def test_constant_leaf_pays_for_its_size():
    # A leaf of ones has no information; padding keeps the decoder's bound on entries per byte.
    account = check({"x": np.ones((1000, 1000), np.float32), "y": np.ones(70_000, bool)})
    assert (1_070_000 - 65_536) / 512 <= account.size < 2000


@pytest.mark.parametrize("codec", storage.POSITION_CODECS, ids=lambda codec: codec.name)
@pytest.mark.parametrize(
    ("shape", "count"), [((40, 30), 1), ((40, 30), 100), ((40, 30), 1199), ((3, 3, 8, 16), 200), ((700, 1000), 3)]
)
def test_every_position_codec(codec, shape, count):
    rng = np.random.default_rng(2)
    x = sparse(shape, count, [1.0])
    x[x != 0] = rng.normal(size=count)
    account = check({"x": x}, positions=[codec])
    assert account.leaves[0].nonzeros == count


def test_long_gaps():
    x = np.zeros((3, 1 << 23), np.int8)
    x[0, 5] = x[2, -1] = 1
    account = check({"x": x})
    assert account.leaves[0].positions < 80


def test_clustered_positions_stay_within_the_stream_budget():
    # The worst case for an iid model: half the leaf dense, then single far entries.
    x = np.zeros((1 << 10, 1 << 8), np.float32)
    x[: 1 << 9] = 1.0
    x.reshape(-1)[1 << 17 :: 23] = 1.0
    check({"x": x}, positions=storage.POSITION_CODECS[:1])


def test_blocks_of_gaps():
    check({"x": np.random.default_rng(0).random(600_000) < 0.6}, positions=storage.POSITION_CODECS[:1])


def test_structured_leaf_is_stored_as_its_block():
    x = np.zeros((5, 5, 20, 50), np.float32)
    x[:, :, :10, :24] = np.random.default_rng(0).choice(np.array([-0.5, -0.25, 0.25, 0.5], np.float32), (5, 5, 10, 24))
    (leaf,) = check({"x": x}).leaves
    assert leaf.codec == "structured + grid"
    assert leaf.positions == pytest.approx(5 + 5 + 20 + 50, abs=2)
    assert leaf.values == pytest.approx(2 * 6000, rel=0.01)


def test_removed_channels_at_the_end_of_the_file():
    # One zero bit each for the last thing in the stream: the coder drops them, and the reader must believe in them.
    rng = np.random.default_rng(4)
    for shape, kept in (((64, 2000), 1000), ((3, 3, 64, 512), 100), ((256, 8000), 10)):
        x = np.zeros(shape, np.float32)
        x[..., :kept] = rng.normal(size=(*shape[:-1], kept))
        (leaf,) = check({"x": x}).leaves
        assert leaf.codec == "structured + raw"


def test_punched_filter_shapes():
    x = np.random.default_rng(0).normal(size=(3, 3, 8, 64)).astype(np.float32)
    x.reshape(72, 64)[::2] = 0
    (leaf,) = check({"x": x}).leaves
    assert leaf.codec == "structured + raw"
    assert leaf.positions <= 72 + 64 + 1


def test_positions_cost_about_their_entropy():
    for shape, count in (((6000,), 750), ((384, 80), 520), ((500, 1000), 50_000)):
        leaf = check({"x": sparse(shape, count, [-1, 1])}).leaves[0]
        size = int(np.prod(shape))
        assert leaf.positions <= storage.bits.entropy(size, count) * 1.0001 + np.log2(size) + 8
        assert leaf.values == pytest.approx(count, rel=0.02)


def test_equal_spacing_survives_float32_rounding():
    q = np.float32(0.1234567)
    for low, high in ((-32, 32), (3, 60), (-7, -7)):
        x = q * np.arange(low, high + 1, dtype=np.float32)
        leaf = check({"x": np.tile(x, 8)}).leaves[0]
        assert leaf.codec.endswith(("grid", "levels")), (low, high)


def test_codebook_is_a_table():
    rng = np.random.default_rng(0)
    levels = rng.normal(size=16).astype(np.float32)
    x = sparse((100, 100), 3000, levels)
    leaf = check({"x": x}).leaves[0]
    assert leaf.codec == "entropy + table"
    assert 16 * 32 <= leaf.codebook <= 16 * 32 + 100
    half = check({"x": x.astype(np.float16).astype(np.float32)}).leaves[0]
    assert half.codebook <= 16 * 19 + 100


def test_skewed_values_cost_less_than_fixed_width():
    rng = np.random.default_rng(0)
    x = rng.choice(np.array([-2, -1, 1, 2], np.float32), 4000, p=[0.02, 0.48, 0.48, 0.02])
    leaf = check({"x": x}).leaves[0]
    entropy = 4000 * 2 * -(0.02 * np.log2(0.02) + 0.48 * np.log2(0.48))
    assert leaf.values + leaf.codebook < entropy * 1.02 + 80


def test_values_exact_in_fewer_bits_are_narrowed():
    x = np.random.default_rng(0).normal(size=1000).astype(ml_dtypes.bfloat16).astype(np.float32)
    assert check({"x": x}).leaves[0].values == 16 * 1000


def test_other_containers_come_back_as_nested_dictionaries():
    tree = {"block": ({"w": jnp.ones((2, 3))}, jnp.arange(2)), 3: [jnp.zeros(())]}
    params = storage.decode(storage.encode({"a": tree["block"]})).params
    assert set(params["a"]) == {"0", "1"}
    same(params["a"]["0"], {"w": np.ones((2, 3), np.float32)})


def test_non_contiguous_and_big_endian_inputs():
    x = np.asfortranarray(np.random.default_rng(0).normal(size=(6, 7)).astype(np.float32))
    check({"x": x[::2, ::-1]})
    assert storage.decode(storage.encode({"x": x.astype(">f4")})).params["x"].tobytes() == x.tobytes()


def test_decoded_arrays_are_writable_and_fresh():
    x = np.ones(4, np.float32)
    y = storage.decode(storage.encode({"x": x})).params["x"]
    y[0] = 3
    assert x[0] == 1


def test_meta_roundtrip():
    meta = {"model": "lenet5", "widths": [10, 24, 80], "rate": 0.1, "epochs": 3, "none": [], "text": 'é"\\ \n'}
    check({"x": np.ones(2)}, meta)
    data = storage.encode({}, {"widths": (1, np.int64(2))})
    assert storage.decode(data).meta == {"widths": [1, 2]}


@pytest.mark.parametrize("bad", [{"a": None}, {"a": [1.5]}, {"a": float("nan")}, {"a": {"b": 1}}, {"a": [True]}])
def test_bad_meta(bad):
    with pytest.raises(ValueError, match=r"Metadata"):
        storage.encode({}, bad)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
def test_non_finite_weights_are_refused_by_path(bad, dtype):
    with pytest.raises(ValueError, match=r"'fc1/kernel' holds NaN or infinity"):
        storage.encode({"fc1": {"kernel": np.array([[1, bad]]).astype(dtype)}})


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"x": np.ones(2, np.complex64)}, "complex64"),
        ({"x": "text"}, "dtype"),
        ({"x": jax.random.key(0)}, "'x'"),
        ({"a/b": np.ones(2)}, "'/'"),
        ({"a\n": np.ones(2)}, "printable"),
        ({"": np.ones(2)}, "printable"),
        (np.ones(2), "bare array"),
        ([np.ones(2), {"x": object()}], "1/x"),
    ],
)
def test_what_cannot_be_stored_is_refused(tree, message):
    with pytest.raises(ValueError, match=message):
        storage.encode(tree)


def test_foreign_position_codec_is_refused():
    with pytest.raises(ValueError, match="POSITION_CODECS"):
        storage.encode({}, positions=[dataclasses.replace(storage.POSITION_CODECS[0], name="mine")])


def test_no_codec_applies():
    with pytest.raises(ValueError, match="allow one more"):
        storage.encode({"x": sparse((10_000,), 10, [1.0])}, positions=storage.POSITION_CODECS[3:])


def test_save_and_load(tmp_path):
    path = tmp_path / "model.cjx"
    path.write_bytes(b"old")
    tree = {"x": np.arange(5)}
    assert storage.save(path, tree, {"a": 1}) == path.stat().st_size
    same(storage.load(str(path)).params, tree)
    assert [p.name for p in tmp_path.iterdir()] == ["model.cjx"]


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.cjx"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="NaN"):
        storage.save(path, {"x": np.array([np.nan])})

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        storage.save(path, {"x": np.ones(3)})
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["model.cjx"]


def test_load_names_the_file(tmp_path):
    path = tmp_path / "model.cjx"
    path.write_bytes(b"PK\3\4 something else")
    with pytest.raises(ValueError, match=r"model\.cjx: This is not a compressjax artefact"):
        storage.load(path)
