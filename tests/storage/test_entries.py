"""An artefact as entries: filled in, they are the decoded leaves, whatever codec stored them."""

import numpy as np
import pytest

from compressjax import storage, trees


def trees_of_all_kinds():
    random = np.random.default_rng(0)
    dense = random.normal(size=(6, 5)).astype(np.float32)
    rows = np.zeros((3, 3, 4, 8), np.float32)
    rows[:, :, 1:3, ::2] = random.normal(size=(3, 3, 2, 4))
    patchy = rows.copy()
    patchy[0, 1, 2, 4] = 0
    scattered = np.where(random.random((40, 50)) < 0.05, random.normal(size=(40, 50)), 0).astype(np.float16)
    return {
        "dense": dense,
        "channels": rows,
        "channels with holes": patchy,
        "scattered": scattered,
        "zero": np.zeros((7, 3), np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "number": np.float32(2.5),
        "negative zero": np.array([0.0, -0.0, 1.0]),
        "integers": np.arange(5),
    }


@pytest.mark.parametrize("codec", range(len(storage.POSITION_CODECS)))
def test_filled_in_they_are_the_decoded_leaves(codec):
    tree = trees_of_all_kinds()
    allowed = storage.POSITION_CODECS if codec == 0 else storage.POSITION_CODECS[codec : codec + 1]
    tree = {name: leaf for name, leaf in tree.items() if codec == 0 or np.ndim(leaf) == 2}
    data = storage.encode(tree, {"model": "x"}, positions=allowed)
    read = storage.entries(data)
    decoded = trees.leaves(storage.decode(data).params)
    assert read.meta == {"model": "x"}
    assert list(read.leaves) == list(decoded)
    for path, leaf in read.leaves.items():
        assert leaf.array().dtype == decoded[path].dtype
        assert leaf.array().tobytes() == decoded[path].tobytes() == np.asarray(tree[path]).tobytes()


def test_positions_ascend_and_zeros_are_left_out():
    leaves = storage.entries(storage.encode(trees_of_all_kinds())).leaves
    scattered = trees_of_all_kinds()["scattered"]
    assert leaves["scattered"].positions.tolist() == np.flatnonzero(scattered).tolist()
    assert leaves["scattered"].values.tolist() == scattered[scattered != 0].tolist()
    assert leaves["zero"].positions.size == leaves["zero"].values.size == 0
    assert leaves["dense"].positions is None
    cropped = leaves["channels"].positions
    assert (np.diff(cropped) > 0).all()
    assert cropped.size == 3 * 3 * 2 * 4


def test_a_damaged_file_is_refused():
    data = bytearray(storage.encode(trees_of_all_kinds()))
    data[-3] ^= 1
    with pytest.raises(ValueError, match="checksum"):
        storage.entries(bytes(data))
    with pytest.raises(ValueError, match="max_elements"):
        storage.entries(storage.encode({"w": np.ones(9)}), max_elements=8)
