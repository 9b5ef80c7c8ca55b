"""Formats: exact layouts, round trips, and what cannot be packed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pallas_kernels as pk
from tests.pallas_kernels.cases import FORMATS, block_mask, blocks, weights


@pytest.mark.parametrize("block", [(1, 1), (4, 4), (1, 5), (6, 1), (5, 3), (24, 20), (32, 32)])
@pytest.mark.parametrize("density", [0.0, 0.3, 2.0])
def test_block_sparse_round_trip(block, density):
    mask = block_mask(24, 20, block, density)
    dense = weights() * mask
    w = pk.BlockSparse.from_dense(dense, block)
    assert np.array_equal(w.todense(), dense)
    assert np.array_equal(w.with_values(w.gather(jnp.asarray(dense))).todense(), dense)


def test_block_lists_are_sorted_and_complete():
    w = blocks(density=0.2)
    rows, columns = np.asarray(w.rows), np.asarray(w.columns)
    assert sorted(zip(columns, rows, strict=True)) == list(zip(columns, rows, strict=True))
    assert set(rows) == set(range(6))
    assert set(columns) == set(range(5))
    for j in range(5):
        assert (columns[w.starts[j] : w.starts[j + 1]] == j).all()
    by_row = rows[np.asarray(w.order)]
    assert (np.diff(by_row) >= 0).all()
    for i in range(6):
        assert (by_row[w.order_starts[i] : w.order_starts[i + 1]] == i).all()


def test_longer_lists_hold_the_same_matrix():
    w = blocks(density=0.3)
    longer = pk.BlockSparse.from_dense(np.asarray(w.todense()), (4, 4), length=len(w.rows) + 3)
    assert len(longer.rows) == len(w.rows) + 3
    assert np.array_equal(longer.todense(), w.todense())
    with pytest.raises(ValueError, match="do not fit a list of 1"):
        pk.BlockSparse.from_dense(np.asarray(w.todense()), (4, 4), length=1)


def test_a_mask_keeps_blocks_that_are_zero_now():
    mask = np.ones((8, 8), bool)
    w = pk.BlockSparse.from_dense(np.zeros((8, 8), np.float32), (4, 4), mask)
    assert w.density == 1.0


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_trees(name):
    w = FORMATS[name]()
    leaves, structure = jax.tree.flatten(w)
    again = structure.unflatten(leaves)
    assert again.shape == w.shape
    assert np.array_equal(again.todense(), w.todense())
    assert hash(structure) == hash(jax.tree.structure(FORMATS[name]()))
    assert w.nbytes == sum(leaf.nbytes for leaf in leaves)
    assert jax.tree.map(lambda leaf: leaf.dtype, w) is not None  # leaves that are no arrays are let through


def test_int4_nibbles_keep_their_sign():
    codes = np.arange(-8, 8).reshape(16, 1)
    w = pk.Quantized.from_codes(codes, np.ones((1, 1), np.float32), bits=4)
    assert w.codes.shape == (8, 1)
    assert np.array_equal(w.integers(), codes)
    assert np.array_equal(w.todense(), codes)
    # Low nibbles: the first half.
    assert int(w.codes[0, 0]) == np.uint8((-8 & 15) | (0 << 4)).view(np.int8)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group", [None, 6])
def test_quantization_is_within_half_a_step(bits, group):
    dense = weights()
    w = pk.Quantized.from_dense(dense, bits, group)
    step = np.repeat(np.asarray(w.scale), w.group, 0)
    assert (np.abs(np.asarray(w.todense()) - dense) <= step * 0.5001).all()
    assert w.codes.nbytes == dense.size * bits // 8


def test_codebook_values_are_exact():
    codes = np.array([[0, 15], [255, 1]])
    levels = np.linspace(-1, 1, 256, dtype=np.float32)
    w = pk.Quantized.from_codes(codes, np.ones((1, 2), np.float32), levels, bits=8)
    assert np.array_equal(w.todense(), levels[codes])


def test_two_of_four():
    dense = np.array([[0, 1], [2, 0], [0, 0], [3, 0.0]], np.float32)
    w = pk.NM.from_dense(dense, 2, 4)
    assert w.values[:, 0].tolist() == [[2.0, 1.0], [3.0, 0.0]]
    assert np.array_equal(w.todense(), dense)
    assert w.density == 0.5


def test_channels_of_zeros_keep_one():
    w = pk.Channels.from_dense(np.zeros((4, 3), np.float32))
    assert w.values.shape == (1, 1)
    assert not np.asarray(w.todense()).any()


BAD = {
    "vector": (lambda: pk.BlockSparse.from_dense(np.ones(3), (1, 1)), "shape .3,."),
    "empty": (lambda: pk.Channels.from_dense(np.ones((0, 3))), "nothing to multiply"),
    "integers": (lambda: pk.NM.from_dense(np.ones((4, 3), int), 2, 4), "int64"),
    "nan": (lambda: pk.BlockSparse.from_dense(np.full((2, 2), np.nan), (1, 1)), "nan or inf"),
    "infinite": (lambda: pk.Quantized.from_dense(np.full((2, 2), np.inf)), "nan or inf"),
    "mask shape": (
        lambda: pk.BlockSparse.from_dense(np.ones((4, 4)), (2, 2), np.ones((2, 2))),
        r"mask has shape \(2, 2\)",
    ),
    "mask lies": (lambda: pk.BlockSparse.from_dense(np.ones((4, 4)), (2, 2), np.zeros((4, 4))), "not zero"),
    "block": (lambda: pk.BlockSparse.from_dense(np.ones((4, 4)), (0, 2)), r"not \(0, 2\)"),
    "pattern": (lambda: pk.NM.from_dense(np.ones((4, 4)), 2, 4), "has 4 weights"),
    "no pattern": (lambda: pk.NM.from_dense(np.ones((4, 4)), 5, 4), "5:4 is no pattern"),
    "groups": (lambda: pk.NM.from_dense(np.ones((6, 4)), 2, 4), "6 is no multiple of 4"),
    "bits": (lambda: pk.Quantized.from_dense(np.ones((4, 4)), 3), "bits is 3"),
    "group": (lambda: pk.Quantized.from_dense(np.ones((4, 4)), 8, 3), "4 is no multiple of 3"),
    "odd": (lambda: pk.Quantized.from_dense(np.ones((3, 4)), 4), "3 is no multiple of 2"),
    "codes": (lambda: pk.Quantized.from_codes(np.full((2, 2), 8), np.ones((1, 2)), bits=4), "-8 to 7"),
    "scale": (lambda: pk.Quantized.from_codes(np.ones((2, 2), int), np.ones(2), bits=8), r"scale has shape \(2,\)"),
    "long codebook": (
        lambda: pk.Quantized.from_codes(np.ones((2, 2), int), np.ones((1, 2)), np.ones(17), bits=4),
        "17 levels",
    ),
    "half": (lambda: pk.Quantized.from_dense(np.full((2, 2), 1e-6, np.float16)), "do not fit float16"),
    "wrapped": (
        lambda: pk.BlockSparse.from_blocks(jnp.ones((1, 1, 1)), np.array([2**32]), [0], (1, 1)),
        "row is out of range",
    ),
    "unsorted": (
        lambda: pk.BlockSparse.from_blocks(jnp.ones((2, 1, 1)), [0, 1], [1, 0], (2, 2)),
        "not sorted",
    ),
    "out of range": (
        lambda: pk.BlockSparse.from_blocks(jnp.ones((2, 1, 1)), [0, 2], [0, 1], (2, 2)),
        "row is out of range: 0 to 2, of 2",
    ),
    "empty output": (
        lambda: pk.BlockSparse.from_blocks(jnp.ones((2, 1, 1)), [0, 1], [0, 0], (2, 2)),
        "column 1 has no block",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_packed(case, unchecked):
    build, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        build()


def test_packing_under_jit_says_why(unchecked):
    with pytest.raises(ValueError, match="pack outside of jit"):
        jax.jit(lambda w: pk.BlockSparse.from_dense(w, (2, 2)).values)(jnp.ones((4, 4)))
