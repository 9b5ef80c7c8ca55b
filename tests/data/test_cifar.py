import numpy as np
import pytest
from PIL import Image

from compressjax.data._cifar import parse_records, read_archive, read_binary, read_sheets
from tests.data.files import archive, records


@pytest.mark.parametrize("label_bytes", [1, 2])
def test_records_are_channel_first_and_the_last_label_byte_counts(label_bytes):
    images, labels, data = records(np.random.default_rng(0), 3, label_bytes)
    got_images, got_labels = parse_records(data, label_bytes, "here")
    np.testing.assert_array_equal(got_images, images)
    np.testing.assert_array_equal(got_labels, labels)


@pytest.mark.parametrize("data", [b"", bytes(3072), bytes(3074)])
def test_partial_records_are_refused(data):
    with pytest.raises(ValueError, match="no multiple of the record length 3073"):
        parse_records(data, 1, "here")


def test_archive_and_unpacked_files_agree_in_the_order_of_members(tmp_path):
    rng = np.random.default_rng(1)
    files = {name: records(rng, n, 1)[2] for name, n in (("b.bin", 1), ("a.bin", 2), ("readme", 1))}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    archive(tmp_path / "all.tar.gz", files)
    packed = read_archive(tmp_path / "all.tar.gz", ["a.bin", "b.bin"], 1)
    unpacked = read_binary(tmp_path, ["a.bin", "b.bin"], 1)
    assert len(packed[1]) == 3
    for left, right in zip(packed, unpacked, strict=True):
        np.testing.assert_array_equal(left, right)


def test_damaged_or_foreign_archives_are_value_errors(tmp_path):
    path = tmp_path / "all.tar.gz"
    archive(path, {"a.bin": records(np.random.default_rng(2), 4, 1)[2]})
    whole = path.read_bytes()
    with pytest.raises(ValueError, match=r"holds no file 'test\.bin'"):
        read_archive(path, ["a.bin", "test.bin"], 1)
    for broken in (whole[: len(whole) // 2], whole[:40] + bytes(40) + whole[80:], b"not an archive", b""):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="fetch it again"):
            read_archive(path, ["a.bin"], 1)


def write_sheet(path, images):
    sheet = images.reshape(25, 40, 32, 32, 3).swapaxes(1, 2).reshape(800, 1280, 3)
    Image.fromarray(sheet).save(path, lossless=True, quality=0, method=0)


def test_sheets_are_tiles_row_by_row(tmp_path):
    # One grey level per image and channel: small files, and any exchange of tiles or axes shows.
    levels = np.random.default_rng(3).integers(0, 256, (2000, 1, 1, 3), dtype=np.uint8)
    images = np.broadcast_to(levels, (2000, 32, 32, 3)).copy()
    images[:, 0, 5] = 255 - images[:, 0, 5]
    write_sheet(tmp_path / "train_00.webp", images[:1000])
    write_sheet(tmp_path / "train_01.webp", images[1000:])
    labels = np.arange(2000).astype(np.uint8) % 10
    np.save(tmp_path / "train_labels.npy", labels)
    got_images, got_labels = read_sheets(tmp_path, "train")
    np.testing.assert_array_equal(got_images, images)
    np.testing.assert_array_equal(got_labels, labels)

    (tmp_path / "train_01.webp").unlink()
    with pytest.raises(ValueError, match="a sheet or label is missing"):
        read_sheets(tmp_path, "train")


@pytest.mark.parametrize("content", ["text", "small"])
def test_broken_sheets_are_value_errors(tmp_path, content):
    path = tmp_path / "test_00.webp"
    if content == "text":
        path.write_bytes(b"no image")
    else:
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(path, lossless=True)
    np.save(tmp_path / "test_labels.npy", np.zeros(1000, np.uint8))
    with pytest.raises(ValueError, match="replace it"):
        read_sheets(tmp_path, "test")
