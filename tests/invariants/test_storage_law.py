"""Law 4, encoded equals decoded: every bit comes back, and the accounted bits are the file's length."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compressjax import storage

_FLOATS = (np.float32, np.float16, np.float64)
_INTEGERS = (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)


def _elements(dtype):
    """Mostly zeros, then levels, then anything finite."""
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        anything = hnp.from_dtype(dtype, allow_nan=False, allow_infinity=False)
        return st.one_of(st.just(0.0), st.sampled_from([0.25, -0.25, 0.5, -0.0]), anything)
    return st.one_of(st.just(0), st.just(1), hnp.from_dtype(dtype))


def _arrays():
    shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6)
    plain = st.sampled_from((*_FLOATS, *_INTEGERS, np.bool_)).flatmap(
        lambda dtype: hnp.arrays(dtype, shapes, elements=None if dtype is np.bool_ else _elements(dtype))
    )
    brain = hnp.arrays(np.float32, shapes, elements=st.floats(-1e4, 1e4, width=16)).map(
        lambda x: x.astype(ml_dtypes.bfloat16)
    )
    return st.one_of(plain, brain)


_KEYS = st.text(st.characters(blacklist_characters="/\n\0", blacklist_categories=("Cs",)), min_size=1, max_size=4)
_TREES = st.dictionaries(
    _KEYS, st.one_of(_arrays(), st.dictionaries(_KEYS, _arrays(), min_size=1, max_size=2)), max_size=3
)


def _leaves(tree, prefix=()):
    for key in sorted(tree):
        if isinstance(tree[key], dict):
            yield from _leaves(tree[key], (*prefix, key))
        else:
            yield (*prefix, key), tree[key]


def assert_law(tree, **kwargs):
    data = storage.encode(tree, {"widths": [1, 2]}, **kwargs)
    artifact = storage.decode(data)
    assert artifact.meta == {"widths": [1, 2]}
    expected, found = dict(_leaves(tree)), dict(_leaves(artifact.params))
    assert expected.keys() == found.keys()
    for path, x in expected.items():
        assert (x.shape, x.dtype, x.tobytes()) == (found[path].shape, found[path].dtype, found[path].tobytes()), path
    account = storage.account(data)
    assert account.bits == account.values + account.positions + account.codebook + account.header_bits == 8 * len(data)
    assert {leaf.path: leaf.nonzeros for leaf in account.leaves} == {
        "/".join(path): int(np.count_nonzero(x.reshape(-1).view(f"u{x.itemsize}"))) for path, x in expected.items()
    }


@settings(max_examples=60)
@given(_TREES)
def test_any_tree(tree):
    assert_law(tree)


_MASKS = {
    "random": lambda rng: rng.random((24, 32)) < 0.1,
    "dense": lambda rng: rng.random((24, 32)) < 0.97,
    "rows": lambda rng: np.repeat(rng.random((24, 1)) < 0.4, 32, axis=1),
    "columns": lambda rng: np.repeat(rng.random((1, 32)) < 0.4, 24, axis=0),
    "both": lambda rng: (rng.random((24, 1)) < 0.5) & (rng.random((1, 32)) < 0.5) & (rng.random((24, 32)) < 0.3),
    "one": lambda rng: np.arange(768).reshape(24, 32) == 700,
}
_VALUES = {
    "two bits": lambda rng, shape: np.float32(0.1) * rng.choice(np.array([-2, -1, 1, 2], np.float32), shape),
    "binary": lambda rng, shape: np.float32(0.3) * rng.choice(np.array([-1, 1], np.float32), shape),
    "powers": lambda rng, shape: np.float32(0.7) * 2.0 ** rng.integers(-6, 0, shape).astype(np.float32),
    "codebook": lambda rng, shape: rng.choice(rng.normal(size=32).astype(np.float32), shape),
    "raw": lambda rng, shape: rng.normal(size=shape).astype(np.float32),
}


@pytest.mark.parametrize("mask", _MASKS)
@pytest.mark.parametrize("values", _VALUES)
@pytest.mark.parametrize("codec", storage.POSITION_CODECS, ids=lambda codec: codec.name)
def test_every_structure_value_and_codec(mask, values, codec):
    rng = np.random.default_rng(0)
    x = np.where(_MASKS[mask](rng), _VALUES[values](rng, (24, 32)), np.float32(0))
    assert_law({"fc": {"kernel": x}, "conv": {"kernel": x.reshape(2, 2, 6, 32)}}, positions=[codec])
