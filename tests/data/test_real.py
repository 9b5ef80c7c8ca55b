"""The real data sets, where there are any."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from compressjax import data
from compressjax.data import _load

pytestmark = pytest.mark.skipif("COMPRESSJAX_DATA" not in os.environ, reason="needs COMPRESSJAX_DATA")


def test_real_mnist():
    if not (Path(os.environ["COMPRESSJAX_DATA"]) / "mnist").is_dir():
        pytest.skip("COMPRESSJAX_DATA holds no MNIST")
    dataset = data.load("mnist", validation=0)
    assert np.bincount(dataset.train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(dataset.test().labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert abs(dataset.train.images.mean() / 255 - 0.13066) < 1e-5
    assert data.load("mnist").train.images.shape == (55000, 28, 28, 1)


def test_real_cifar10():
    if not (Path(os.environ["COMPRESSJAX_DATA"]) / "cifar10").is_dir():
        pytest.skip("COMPRESSJAX_DATA holds no CIFAR-10")
    test = _load._read("cifar10", "test", None)
    assert np.bincount(test.labels).tolist() == [1000] * 10
    digest = hashlib.sha256(test.images.tobytes()).hexdigest()
    if (Path(os.environ["COMPRESSJAX_DATA"]) / "cifar10" / "test_exact.npy").is_file():
        assert digest == "1249626010949d8f448e0faf792debbc3da0c50ed31bfff3678c99c37fbc7e48"
