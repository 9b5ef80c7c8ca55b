"""Files of earlier versions of the format decode to what was put in; this version reads its own."""

import base64

import jax
import numpy as np
import pytest

from compressjax import storage
from experiments.inspect import table


def tree():
    kernel = np.zeros((3, 3, 2, 8), np.float32)
    kernel.reshape(-1)[np.arange(0, 144, 7)] = np.resize(np.float32([0.25, -0.5, 0.75]), 21)
    codebook = np.zeros((16, 10), np.float32)
    codebook.reshape(-1)[::5] = np.resize(np.float32([0.3, -0.7, 0.11, -0.13]), 32)
    return {
        "conv": {"bias": np.arange(8, dtype=np.float32), "kernel": kernel},
        "fc": {"bias": np.zeros(10, np.float32), "kernel": codebook},
        "half": np.float16([0.1, -2.5]),
        "steps": np.arange(5),
    }


# Written by version 1: relative indices, dropped slices, a table, raw half precision; then gaps for the same tree.
VERSION_1 = (
    "Y2p4ARqvlwAiA1mBsAxhLsxYmEhGYk4aFyhBFwMtgBlXkplXiWyYRWwtAAwbbbbbbbbbbGYuAMEPvqF5pw8C364/Fyxm+PFyo6r8plVkda0heTASES1Q"
    "jyZDhIDsJ5D8Z0KinMTzpfqKicnJycnLFP7kpwYR+g==",
    "Y2p4AXz2mJ0iA1mBsAxhLsxYmEhGYk4aFyhBFwMtgBlXkplXiWyYRWwtAARmLgDBD76heacPAt+uPq2z6KGK5QNLddzNYpoyhDxTaPUgzPFn3eOdpv9x"
    "PW6a/XLbfF72sqUccmbFI8DyemYMyHPz8/cm6n7iZ1lk",
)
# Written by version 2, whose checksum did not cover the version.
VERSION_2 = (
    "Y2p4AucZRuIhA9mEsBNhPMx0mEhGYk4aF6j8KAbaAzO1JDOvEsXM2FoADBtttttttttsZi4AwTWyVq8qk9lbaqALrYgQ5hpKkqHKO520mdQxn9"
    "RgReiAwmbmj9BOqmIXAv6IjEJl/kjdXV1dXV8ZGYBcmhIp"
)
ROWS_1 = (
    "Y2p4AYZsbPsGq2CorgUAAD/rcjpLRlz7DEXCoFykBAZaXW7IiN8XkhVcW6iM+W/gjyGAFhJ767fxyGlTzaYtcJweQHfMlyxVe2WKtJahPrXbq1QLrEtD"
    "6ZO7"
)


@pytest.mark.parametrize("text", [*VERSION_1, VERSION_2])
def test_earlier_versions(text):
    data = base64.b64decode(text)
    artifact = storage.decode(data)
    assert artifact.meta == {"model": "tiny", "widths": [8]}
    for found, expected in zip(jax.tree.leaves(artifact.params), jax.tree.leaves(tree()), strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype
    account = storage.account(data)
    assert account.bits == 8 * len(data)
    assert "conv/kernel" in table(account)


def test_version_1_by_rows():
    found = storage.decode(base64.b64decode(ROWS_1)).params["x"]
    np.testing.assert_array_equal(found, (np.arange(1200).reshape(30, 40) % 11 == 0).astype(np.float32))


def test_this_version_writes_less():
    data = storage.encode(tree(), {"model": "tiny", "widths": [8]})
    assert data[3] == 3
    assert len(data) == len(base64.b64decode(VERSION_2)) < len(base64.b64decode(VERSION_1[0]))
