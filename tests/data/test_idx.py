import gzip

import numpy as np
import pytest

from compressjax.data._idx import read_idx
from tests.data.files import idx_bytes


@pytest.mark.parametrize("shape", [(3,), (2, 4, 5), (0,), (0, 28, 28)])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_reads_back_what_was_written(tmp_path, shape, suffix):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    path = tmp_path / f"file{suffix}"
    path.write_bytes(gzip.compress(idx_bytes(array)) if suffix else idx_bytes(array))
    np.testing.assert_array_equal(read_idx(path), array)


@pytest.mark.parametrize("length", range(31))
def test_every_truncation_is_a_value_error(tmp_path, length):
    data = idx_bytes(np.zeros((3, 5, 1), np.uint8))
    assert len(data) == 31
    path = tmp_path / "short"
    path.write_bytes(data[:length])
    with pytest.raises(ValueError, match=r"truncated|not an IDX"):
        read_idx(path)


def test_trailing_bytes_are_a_value_error(tmp_path):
    path = tmp_path / "long"
    path.write_bytes(idx_bytes(np.zeros(3, np.uint8)) + b"x")
    with pytest.raises(ValueError, match="needs 3 bytes after the header, the file has 4"):
        read_idx(path)


def test_other_element_types_are_refused(tmp_path):
    path = tmp_path / "float"
    path.write_bytes(bytes([0, 0, 13, 1, 0, 0, 0, 0]))
    with pytest.raises(ValueError, match="not an IDX file of bytes"):
        read_idx(path)


@pytest.mark.parametrize("damage", [lambda d: d[:-5], lambda d: b"zz" + d[2:], lambda d: d[:12] + b"\xff" * 8 + d[20:]])
def test_damaged_gzip_is_a_value_error(tmp_path, damage):
    path = tmp_path / "file.gz"
    path.write_bytes(damage(gzip.compress(idx_bytes(np.arange(200, dtype=np.uint8)))))
    with pytest.raises(ValueError, match="fetch it again"):
        read_idx(path)
