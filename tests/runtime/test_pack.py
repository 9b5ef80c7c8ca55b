"""Packing is exact, takes the form the rule names or the smallest one, and says what is wrong with bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pallas_kernels as pk
from compressjax import projections, runtime, storage
from compressjax.runtime import As
from tests.runtime.nets import CONSTRAINTS, FORMS, member, params, weights


def same_bits(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def one(leaf, rule):
    return runtime.pack({"w": leaf}, {"w": rule})["w"]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, jnp.float32) for name in CONSTRAINTS),
        *((name, jnp.bfloat16) for name in ("tiles", "2:4", "even levels", "codebook", "filters")),
        ("tiles", jnp.float16),
    ],
)
def test_what_is_packed_by_its_constraint_comes_back_to_the_bit(name, dtype):
    leaf = member(name, dtype)
    packed = one(leaf, CONSTRAINTS[name][0])
    assert (packed.shape, packed.dtype, packed.ndim) == (leaf.shape, leaf.dtype, leaf.ndim)
    assert same_bits(runtime.unpack({"w": packed})["w"], leaf)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("tiles", (4, 2)),
        ("punched kernel", (2, 4)),
        ("punched matrix", (1, 4)),
        ("block rows", (1, 4)),
        ("block columns", (2, 1)),
        ("tiles of levels", (8, 8)),
    ],
)
def test_blocks_are_those_of_the_constraint(name, form):
    packed = one(member(name), CONSTRAINTS[name][0]).matrix
    assert isinstance(packed, pk.BlockSparse)
    assert packed.block == form
    assert isinstance(packed.values, pk.Quantized) == (name == "tiles of levels")


def test_no_more_blocks_are_stored_than_the_constraint_keeps():
    leaf = member("punched kernel")
    kept = CONSTRAINTS["punched kernel"][0].count(leaf.shape)
    matrix = one(leaf, CONSTRAINTS["punched kernel"][0]).matrix
    empty_inputs = sum((np.asarray(leaf).reshape(-1, 2, 8) == 0).all((1, 2)))
    assert matrix.values.shape[0] <= kept + empty_inputs + 2


@pytest.mark.parametrize(("name", "kept"), [("filters", (18, 3)), ("channels", (18, 8)), ("columns", (7, 8))])
def test_channels_keep_inputs_and_outputs(name, kept):
    matrix = one(member(name), CONSTRAINTS[name][0]).matrix
    assert isinstance(matrix, pk.Channels)
    assert matrix.values.shape == kept


@pytest.mark.parametrize(("name", "nm"), [("2:4", (2, 4)), ("1:4 kernel", (1, 4))])
def test_n_of_m_inputs(name, nm):
    matrix = one(member(name), CONSTRAINTS[name][0]).matrix
    assert isinstance(matrix, pk.NM)
    assert (matrix.n, matrix.m) == nm


@pytest.mark.parametrize(
    ("name", "bits", "book"),
    [
        ("even levels", 4, False),
        ("even levels of an odd matrix", 8, False),
        ("powers of two", 4, None),
        ("codebook", 4, True),
        ("binary", 4, False),
        ("ternary", 4, None),
        ("many levels", 8, False),
    ],
)
def test_levels_become_codes(name, bits, book):
    matrix = one(member(name), CONSTRAINTS[name][0]).matrix
    assert isinstance(matrix, pk.Quantized)
    assert matrix.bits == bits
    if book is not None:
        assert (matrix.codebook is not None) == book


def test_levels_that_are_not_evenly_spaced_to_the_bit_get_a_codebook():
    leaf = jnp.array([[0.1, 0.37], [np.pi, 0.0]], jnp.float32)
    matrix = one(leaf, As(levels=True)).matrix
    assert matrix.codebook is not None
    assert same_bits(matrix.todense(), leaf)


# The builder from entries and the one from dense weights are two programs: they must agree.
@pytest.mark.parametrize("k", [24, 23])
def test_entries_give_the_formats_of_dense_weights(k):
    mask = np.random.default_rng(1).random((k, 20)) < 0.15
    mask[:, 5] = False
    mask[7] = False
    dense = np.where(mask, weights(k, 20), np.float32(0))
    dense[3, 4] = 0  # in the mask, but zero

    def equal(a, b):
        assert jax.tree.structure(a) == jax.tree.structure(b)
        assert all(same_bits(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))

    for block in [(1, 1), (4, 4), (5, 3), (30, 30)]:
        equal(one(dense, As(block=block)).matrix, pk.BlockSparse.from_dense(dense, block))
    equal(one(dense, As(channels=True)).matrix, pk.Channels.from_dense(dense))
    if k == 24:
        most = int((dense != 0).reshape(6, 4, 20).sum(1).max())
        equal(one(dense, As(nm=(most, 4))).matrix, pk.NM.from_dense(dense, most, 4))
    equal(one(dense, As(bits=8)).matrix, pk.Quantized.from_dense(dense, 8))


def test_rounding_is_the_only_form_that_changes_weights():
    leaf = weights(8, 6)
    for form in (As(bits=8), As(bits=4, group=4), As(block=(4, 3), bits=8)):
        back = np.asarray(one(leaf, form).todense())
        bound = np.abs(leaf).max() / (254 if form.bits == 8 else 14) * 1.001
        assert 0 < np.abs(back - leaf).max() <= bound
    leaf = np.where(np.arange(24)[:, None] % 4 < 2, weights(24, 10), np.float32(0))
    for form in FORMS.values():
        assert same_bits(one(leaf, form).todense(), leaf)


def structured(block, density, shape=(256, 256), seed=0):
    exists = np.random.default_rng(seed).random((shape[0] // block[0], shape[1] // block[1])) < density
    return np.kron(exists, np.ones(block, bool))


@pytest.mark.parametrize(
    ("mask", "form"),
    [
        (structured((32, 32), 0.4), "blocks (32, 32)"),
        (structured((16, 1), 0.2), "blocks (16, 1)"),
        (structured((1, 1), 0.02), "blocks (1, 1)"),
        (structured((1, 1), 0.9), "dense"),
        (structured((256, 1), 0.3), "channels"),
        (np.tile(np.arange(256)[:, None] % 4 < 2, (1, 256)) ^ structured((4, 1), 0.5), "2:4"),
    ],
)
def test_a_mask_takes_the_smallest_form(mask, form):
    leaf = np.where(mask, weights(256, 256), np.float32(0))
    packed = one(leaf, mask)
    matrix = packed.matrix
    found = {
        pk.BlockSparse: lambda: f"blocks {matrix.block}",
        pk.Dense: lambda: "dense",
        pk.Channels: lambda: "channels",
        pk.NM: lambda: f"{matrix.n}:{matrix.m}",
    }[type(matrix)]()
    assert found == form
    assert same_bits(packed.todense(), leaf)
    sizes = [one(leaf, As(block=b)).nbytes for b in ((64, 64), (16, 16), (4, 4))] + [leaf.nbytes]
    assert packed.nbytes <= min(sizes)


def test_weights_of_a_mask_exist_even_where_they_are_zero():
    mask = structured((4, 4), 0.3, (16, 16))
    packed = one(np.zeros((16, 16), np.float32), mask).matrix
    assert packed.values.size == one(np.where(mask, np.float32(1), 0), mask).matrix.values.size


def test_masks_of_a_network_are_rules():
    tree = params()
    shapes = {"conv/kernel": tree["conv"]["kernel"], "fc/kernel": tree["fc"]["kernel"]}
    kept = {path: jnp.asarray(leaf != 0) for path, leaf in shapes.items()}
    packed = runtime.pack(tree, kept)
    assert isinstance(packed["fc"]["kernel"], runtime.Packed)
    assert packed["fc"]["bias"] is tree["fc"]["bias"]
    back = runtime.unpack(packed)
    assert all(same_bits(a, b) for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(tree), strict=True))


# From an artefact ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["conv/kernel", "fc/kernel"])
@pytest.mark.parametrize("form", ["dense", "blocks", "single weights", "channels", "half"])
def test_an_artefact_packs_like_its_decoded_tree(name, form):
    tree = params()
    rules = {name: As(levels=True) if form == "levels" else FORMS[form]}
    if name == "conv/kernel" and form == "half":
        rules = {name: projections.BlockPunched((2, 4), 1.0)}
    packed = runtime.from_artifact(storage.encode(tree), rules)
    wanted = runtime.pack(tree, rules)
    assert jax.tree.structure(packed) == jax.tree.structure(wanted)
    assert all(same_bits(a, b) for a, b in zip(jax.tree.leaves(packed), jax.tree.leaves(wanted), strict=True))


def test_an_artefact_with_masks(tmp_path):
    tree = params()
    mask = np.asarray(tree["fc"]["kernel"] != 0)
    tree["fc"]["kernel"][0, 0] = 0  # alive, but zero
    storage.save(tmp_path / "net.cjx", tree)
    packed = runtime.from_artifact(tmp_path / "net.cjx", {"fc/kernel": mask, "conv/kernel": None})
    wanted = runtime.pack(tree, {"fc/kernel": mask})
    assert all(same_bits(a, b) for a, b in zip(jax.tree.leaves(packed), jax.tree.leaves(wanted), strict=True))
    with pytest.raises(ValueError, match=r"fc/kernel: weights outside of the mask"):
        runtime.from_artifact(storage.encode(tree), {"fc/kernel": ~mask})


def test_an_artefact_is_never_unfolded_where_the_form_is_sparse(monkeypatch):
    leaf = np.zeros((400, 300), np.float32)
    leaf[::20, ::30] = 1.5
    data = storage.encode({"w": leaf})
    biggest = []
    for name in ("zeros", "full", "empty"):
        make = getattr(np, name)

        def counted(shape, *rest, make=make, **kwargs):
            out = make(shape, *rest, **kwargs)
            if out.dtype.kind == "f":
                biggest.append(out.size)
            return out

        monkeypatch.setattr(np, name, counted)
    packed = runtime.from_artifact(data, {"w": As(block=(1, 1))})["w"]
    assert max(biggest) < leaf.size / 10
    monkeypatch.undo()
    assert same_bits(packed.todense(), leaf)


# Bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "rules", "message"),
    [
        (
            {"fc": np.eye(4, dtype=np.float32)},
            {"*/kernel": As()},
            r"Rule '\*/kernel' has no effect: it matches no",
        ),
        (
            {"b": np.ones(4, np.float32)},
            {"b": As()},
            r"^b: a leaf of shape \(4,\) .*exempt it with None",
        ),
        ({"w": np.ones((2, 2, 2), np.float32)}, {"w": As()}, r"^w: a leaf of shape \(2, 2, 2\)"),
        ({"w": np.ones((0, 3), np.float32)}, {"w": As()}, r"^w: a leaf of shape \(0, 3\) has nothing to multiply with"),
        ({"w": np.full((4, 4), np.nan, np.float32)}, {"w": As()}, r"^w: the weights hold nan or inf"),
        ({"w": np.full((4, 4), np.inf, np.float32)}, {"w": As(block=(2, 2))}, r"^w: the weights hold nan or inf"),
        ({"w": np.ones((4, 4), np.int32)}, {"w": As()}, r"^w: weights of int32 cannot be packed"),
        ({"w": np.ones((4, 4))}, {"w": As()}, r"^w: JAX would round weights of float64"),
        (
            {"w": np.ones((4, 4), np.float32)},
            {"w": projections.Block((2, 2), 1)},
            r"^w: the weights do not lie in Block\(block=\(2, 2\), keep=1\): project them first",
        ),
        (
            {"w": np.ones((4, 4), np.float32)},
            {"w": projections.Block((3, 2), 1)},
            r"^w: Block: a block of 3 inputs does not divide",
        ),
        (
            {"w": np.ones((4, 4), np.float32)},
            {"w": As(nm=(2, 4))},
            r"^w: .*nm=\(2, 4\).*a group of 4 inputs has 4",
        ),
        ({"w": np.ones((6, 4), np.float32)}, {"w": As(nm=(2, 4))}, r"^w: .*groups of 4 do not divide its 6 inputs"),
        ({"w": np.ones((5, 4), np.float32)}, {"w": As(bits=4)}, r"^w: .*bits=4.*number of inputs"),
        ({"w": weights(20, 20)}, {"w": As(levels=True)}, r"^w: .*levels=True.*more than 256 values"),
        ({"w": np.ones((4, 4), np.float32)}, {"w": np.ones((4, 5), bool)}, r"^w: a mask of bool \(4, 5\) does not fit"),
        ({"w": np.ones((4, 4), np.float32)}, {"w": np.ones((4, 4), int)}, r"^w: a mask of int64 \(4, 4\) does not fit"),
        ({"w": np.ones((4, 4), np.float32)}, {"w": np.zeros((4, 4), bool)}, r"^w: weights outside of the mask"),
        ({"w": np.ones((4, 4), np.float32)}, {"w": "blocks"}, r"^w: 'blocks' is no constraint"),
        ({"w": np.ones((4, 4), np.float32)}, {"w": projections.LowRank(1)}, r"^w: LowRank\(.*has no packed form"),
    ],
)
def test_bad_input_is_refused_by_path_and_rule(tree, rules, message):
    with pytest.raises(ValueError, match=message):
        runtime.pack(tree, rules)


def test_the_same_words_for_an_artefact():
    tree = {"w": np.ones((4, 4), np.float32), "b": np.ones(4, np.float32)}
    for rules, message in [
        ({"b": As()}, r"^b: a leaf of shape \(4,\)"),
        ({"x": As()}, r"Rule 'x' has no effect"),
        ({"w": As(nm=(2, 4))}, r"^w: .*a group of 4 inputs has 4 weights"),
    ]:
        with pytest.raises(ValueError, match=message):
            runtime.from_artifact(storage.encode(tree), rules)
    with pytest.raises(ValueError, match="does not start with"):
        runtime.from_artifact(b"zip", {})


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "net.cjx"
    path.write_bytes(storage.encode({"w": np.eye(3)})[:-1])
    with pytest.raises(ValueError, match=r"net\.cjx: The artefact's checksum"):
        runtime.from_artifact(path, {})


def test_packing_twice_and_packing_under_jit_are_refused():
    packed = runtime.pack(params(), {"fc/kernel": As()})
    with pytest.raises(ValueError, match=r"^fc/kernel: the leaf is packed already: unpack"):
        runtime.pack(packed, {"conv/kernel": As()})
    with pytest.raises(ValueError, match=r"^w: packing needs concrete weights"):
        jax.jit(lambda w: runtime.pack({"w": w}, {"w": As()}))(jnp.eye(3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"block": (2, 2), "channels": True}, "one structure"),
        ({"block": (0, 2)}, "at least 1"),
        ({"nm": (5, 4)}, "1 <= n <= m"),
        ({"nm": (2, 4), "bits": 8}, "codes are stored dense or in blocks"),
        ({"bits": 3}, "bits is 4 or 8"),
        ({"bits": 8, "levels": True}, "either round"),
        ({"group": 4}, "needs bits"),
    ],
)
def test_forms_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        As(**settings)


def test_an_all_zero_leaf_packs_and_unpacks():
    leaf = np.zeros((8, 6), np.float32)
    for rule in (*FORMS.values(), As(levels=True), projections.Cardinality(3), projections.Filters(2)):
        assert same_bits(one(leaf, rule).todense(), leaf)


# Laid out for a machine ---------------------------------------------------------------------------------------------


def test_a_batch_lays_leaves_out_and_loses_nothing():
    tree = params()
    rules = {"conv/kernel": projections.BlockPunched((2, 8), 1.0), "fc/kernel": As(nm=(2, 4))}
    packed = runtime.pack(tree, rules, batch={"conv/*": 32, "*": 2}, platform="cpu")
    for path in (("conv", "kernel"), ("fc", "kernel")):
        leaf = packed[path[0]][path[1]]
        assert isinstance(leaf.matrix, pk.Prepared)
        assert same_bits(leaf.todense(), tree[path[0]][path[1]])
    reasons = [row.reason for row in runtime.report(packed).rows]
    assert "32 rows" in reasons[0]
    assert reasons[1].startswith("dense: ")
    some = runtime.pack(tree, rules, batch={"conv/*": 32}, platform="cpu")
    assert isinstance(some["fc"]["kernel"].matrix, pk.NM)
    again = runtime.from_artifact(storage.encode(tree), rules, batch=2, platform="cpu")
    assert isinstance(again["fc"]["kernel"].matrix, pk.Prepared)
    with pytest.raises(ValueError, match=r"^fc/kernel: .*at least one row"):
        runtime.pack(tree, {"fc/kernel": As()}, batch=0)
    with pytest.raises(ValueError, match="Rule 'dense' has no effect"):
        runtime.pack(tree, rules, batch={"dense": 3})
