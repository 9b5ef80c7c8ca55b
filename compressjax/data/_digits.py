"""The embedded default: 1,797 real handwritten digits that ship with scikit-learn, resized to 28x28.

Resizing is bilinear with half-pixel centres: output pixel i reads source coordinate (i + 1/2) 8/28 - 1/2 = (4i - 5)/14.
All weights are multiples of 1/14, so the whole computation is in integers and every machine gets the same bytes.

Reference: E. Alpaydin, C. Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning Repository, 1998.
"""

import numpy as np
from jaxtyping import Int, UInt8

# The test split is part of the data set: it depends on this number, never on the caller's seed.
_TEST_SEED = 1797
TEST_SIZE = 360


def resize(images: Int[np.ndarray, "n 8 8"]) -> UInt8[np.ndarray, "n 28 28"]:
    """Resizes 8x8 images with values 0..16 to 28x28 images with values 0..255.

    >>> resize(np.full((1, 8, 8), 16))[0, 0, :3]
    array([255, 255, 255], dtype=uint8)
    """
    position = 4 * np.arange(28) - 5
    low = position // 14
    high_weight = position - 14 * low
    x = images.astype(np.int64)
    for axis in (1, 2):
        weight = high_weight.reshape((28, 1) if axis == 1 else (28,))
        below = x.take(np.clip(low, 0, 7), axis)
        above = x.take(np.clip(low + 1, 0, 7), axis)
        x = below * (14 - weight) + above * weight
    full = 16 * 14 * 14
    return ((x * 255 + full // 2) // full).astype(np.uint8)


def read(part: str) -> tuple[UInt8[np.ndarray, "n 28 28 1"], Int[np.ndarray, " n"]]:
    """Images and labels of the ``"train"`` (1,437) or ``"test"`` (360) part.

    Raises:
      ImportError: If scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("The data set 'digits' ships with scikit-learn: install the package scikit-learn.") from error
    bunch = load_digits()
    order = np.random.Generator(np.random.Philox(_TEST_SEED)).permutation(len(bunch.target))
    rows = order[:TEST_SIZE] if part == "test" else order[TEST_SIZE:]
    return resize(bunch.images[rows].astype(np.int64))[..., None], bunch.target[rows]
