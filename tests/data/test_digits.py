import hashlib

import numpy as np
import pytest

from compressjax import data
from compressjax.data import _digits


def reference_bilinear(image):
    """Bilinear interpolation with half-pixel centres and clamped edges, in exact rationals of 1/14."""
    out = np.zeros((28, 28))
    for i in range(28):
        for j in range(28):
            y, x = (i + 0.5) * 8 / 28 - 0.5, (j + 0.5) * 8 / 28 - 0.5
            y0, x0 = int(np.floor(y)), int(np.floor(x))
            for dy, wy in ((0, 1 - (y - y0)), (1, y - y0)):
                for dx, wx in ((0, 1 - (x - x0)), (1, x - x0)):
                    out[i, j] += wy * wx * image[np.clip(y0 + dy, 0, 7), np.clip(x0 + dx, 0, 7)]
    return out * 255 / 16


def test_resize_is_bilinear():
    image = np.random.default_rng(0).integers(0, 17, (1, 8, 8))
    got = _digits.resize(image)
    assert got.dtype == np.uint8
    assert np.abs(got[0] - reference_bilinear(image[0])).max() <= 0.5 + 1e-9


def test_resize_keeps_constants_and_symmetry():
    assert (_digits.resize(np.full((1, 8, 8), 8)) == 128).all()
    image = np.random.default_rng(1).integers(0, 17, (1, 8, 8))
    np.testing.assert_array_equal(_digits.resize(image)[:, ::-1], _digits.resize(image[:, ::-1]))
    np.testing.assert_array_equal(_digits.resize(image).swapaxes(1, 2), _digits.resize(image.swapaxes(1, 2)))


def test_the_test_split_does_not_depend_on_the_seed_and_shares_no_image_with_the_others():
    first, second = data.load("digits", seed=0), data.load("digits", seed=1)
    np.testing.assert_array_equal(first.test().images, second.test().images)
    assert (first.validation.labels != second.validation.labels).any()
    train, test = _digits.read("train"), _digits.read("test")
    assert len(train[1]) + len(test[1]) == 1797
    # Two of the 1,797 images are alike only if the writer was: count rather than forbid.
    alike = {i.tobytes() for i in train[0]} & {i.tobytes() for i in test[0]}
    assert len(alike) == 0


def test_the_bytes_are_the_same_everywhere():
    digest = hashlib.sha256(_digits.read("test")[0].tobytes()).hexdigest()
    assert digest == "1680138d8f0feaae0eab6902415358aa48cd61fb1013d38a28f183a306cd93dd"


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_all_classes_are_in_every_split(split):
    dataset = data.load("digits")
    labels = dataset.test().labels if split == "test" else getattr(dataset, split).labels
    assert set(labels.tolist()) == set(range(dataset.classes))
