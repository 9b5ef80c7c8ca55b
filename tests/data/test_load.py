import gzip
import os
import sys
from pathlib import Path

import numpy as np
import pooch
import pytest

from compressjax import data
from compressjax.data import _load
from tests.data.files import archive, idx_bytes, records

IDX_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """No data on this machine and no network, unless the test brings its own."""

    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.delenv("COMPRESSJAX_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache")
    monkeypatch.setattr(pooch, "retrieve", refuse)


def write_mnist(folder, train=20, test=6, seed=0):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    written = {}
    for part, n in (("train", train), ("test", test)):
        images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = np.sort(rng.integers(0, 10, n, dtype=np.uint8))  # class-sorted, as some copies are
        for name, array in zip(IDX_FILES[part], (images, labels), strict=True):
            (folder / name).write_bytes(gzip.compress(idx_bytes(array)))
        written[part] = images, labels
    return written


def rows(split):
    return sorted((image.tobytes(), int(label)) for image, label in zip(split.images, split.labels, strict=True))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_splits_cover_the_training_images_once(tmp_path, name):
    images, labels = write_mnist(tmp_path / name)["train"]
    dataset = data.load(name, root=tmp_path, validation=5, seed=3)
    assert (dataset.name, dataset.classes) == (name, 10)
    assert dataset.train.images.shape == (15, 28, 28, 1)
    assert dataset.train.images.dtype == np.uint8
    assert dataset.train.labels.dtype == np.int32
    both = rows(dataset.train) + rows(dataset.validation)
    assert sorted(both) == rows(data.Split(images[..., None], labels.astype(np.int32)))
    assert (np.diff(dataset.train.labels) < 0).any(), "class-sorted files must be shuffled before they are split"


def test_validation_by_number_share_and_seed(tmp_path):
    write_mnist(tmp_path / "mnist")

    def held(**kwargs):
        return data.load("mnist", root=tmp_path, **kwargs).validation

    assert [len(held(validation=v).labels) for v in (0, 7, 0.0, 0.25)] == [0, 7, 0, 5]
    assert rows(held(validation=5, seed=1)) == rows(held(validation=5, seed=1))
    assert rows(held(validation=5, seed=1)) != rows(held(validation=5, seed=2))


@pytest.mark.parametrize("validation", [20, -1, 1.0, -0.1, float("nan"), True])
def test_bad_validation_is_a_value_error(tmp_path, validation):
    write_mnist(tmp_path / "mnist")
    with pytest.raises(ValueError, match="validation="):
        data.load("mnist", root=tmp_path, validation=validation)


def test_the_test_split_is_read_on_demand_and_once(tmp_path):
    written = write_mnist(tmp_path / "mnist")
    dataset = data.load("mnist", root=tmp_path, validation=5)
    for name in IDX_FILES["test"]:
        os.rename(tmp_path / "mnist" / name, tmp_path / name)
    with pytest.raises(FileNotFoundError):
        dataset.test()
    for name in IDX_FILES["test"]:
        os.rename(tmp_path / name, tmp_path / "mnist" / name)
    test = dataset.test()
    np.testing.assert_array_equal(test.images[..., 0], written["test"][0])
    assert dataset.test() is test


def test_uncompressed_files_are_found(tmp_path):
    folder = tmp_path / "mnist"
    write_mnist(folder)
    before = rows(data.load("mnist", root=tmp_path, validation=5).train)
    for path in list(folder.iterdir()):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert rows(data.load("mnist", root=tmp_path, validation=5).train) == before


def test_search_order_is_root_environment_cache(tmp_path, monkeypatch):
    folders = [tmp_path / name for name in ("root", "environment", "cache")]
    wanted = [write_mnist(folder / "mnist", seed=i)["test"][0] for i, folder in enumerate(folders)]
    monkeypatch.setenv("COMPRESSJAX_DATA", str(folders[1]))
    for i, kwargs in enumerate([{"root": folders[0]}, {}, {}]):
        if i == 2:
            monkeypatch.delenv("COMPRESSJAX_DATA")
        got = data.load("mnist", validation=5, **kwargs).test().images[..., 0]
        np.testing.assert_array_equal(got, wanted[i])


def test_offline_error_names_the_file_the_folders_and_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESSJAX_DATA", str(tmp_path / "environment"))
    with pytest.raises(FileNotFoundError) as caught:
        data.load("mnist")
    message = str(caught.value)
    for part in ("train-images-idx3-ubyte.gz", str(tmp_path / "environment"), str(tmp_path / "cache"), "OSError"):
        assert part in message
    assert "COMPRESSJAX_DATA" in message


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        data.load("mnist", root=tmp_path / "nowhere")


def test_download_tries_mirrors_and_passes_the_checksum(tmp_path, monkeypatch):
    source = tmp_path / "source"
    write_mnist(source)
    calls = []

    def retrieve(url, known_hash, fname, path):
        calls.append((url, known_hash))
        if "googleapis" in url:
            raise ValueError("checksum differs")
        Path(path).mkdir(parents=True, exist_ok=True)
        (Path(path) / fname).write_bytes((source / fname).read_bytes())

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    dataset = data.load("mnist", validation=5)
    assert dataset.train.images.shape == (15, 28, 28, 1)
    assert [url.rsplit("/", 1)[-1] for url, _ in calls] == [f for f in IDX_FILES["train"] for _ in range(2)]
    assert {known for _, known in calls} == {f"md5:{md5}" for md5 in _load._IDX_MD5["mnist"][:2]}


def test_without_pooch_files_at_hand_are_read_and_others_are_explained(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    write_mnist(tmp_path / "mnist")
    assert data.load("mnist", root=tmp_path, validation=5).train.images.shape == (15, 28, 28, 1)
    with pytest.raises(ImportError, match="needs the package pooch"):
        data.load("fashion_mnist", root=tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_read_from_archive_or_unpacked(tmp_path, name):
    rng = np.random.default_rng(0)
    label_bytes = 1 if name == "cifar10" else 2
    if name == "cifar10":
        members, inner = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"], "cifar-10-batches-bin"
    else:
        members, inner = ["train.bin", "test.bin"], "cifar-100-binary"
    files = {member: records(rng, 2, label_bytes)[2] for member in members}
    packed, unpacked = tmp_path / "packed", tmp_path / "unpacked"
    (packed / name).mkdir(parents=True)
    (unpacked / name / inner).mkdir(parents=True)
    archive(packed / name / f"{inner.replace('-batches-bin', '-binary')}.tar.gz", files)
    for member, content in files.items():
        (unpacked / name / inner / member).write_bytes(content)
    left, right = (data.load(name, root=root, validation=1) for root in (packed, unpacked))
    assert left.classes == (10 if name == "cifar10" else 100)
    assert len(left.train.labels) == 2 * (len(members) - 1) - 1
    for a, b in zip(
        (left.train, left.validation, left.test()), (right.train, right.validation, right.test()), strict=True
    ):
        assert rows(a) == rows(b)


@pytest.mark.parametrize(
    "images, labels, match",
    [
        (np.zeros((5, 28, 28), np.uint8), np.zeros(4, np.uint8), "5 images but 4 labels"),
        (np.zeros((5, 28, 28), np.uint8), np.full(5, 10, np.uint8), r"outside 0\.\.9"),
        (np.zeros((5, 28), np.uint8), np.zeros(5, np.uint8), r"want \(N, H, W\)"),
    ],
)
def test_files_that_do_not_fit_together_are_value_errors(tmp_path, images, labels, match):
    (tmp_path / "mnist").mkdir()
    for name, array in zip(IDX_FILES["train"], (images, labels), strict=True):
        (tmp_path / "mnist" / name).write_bytes(gzip.compress(idx_bytes(array)))
    with pytest.raises(ValueError, match=match):
        data.load("mnist", root=tmp_path, validation=1)


def test_unknown_name():
    with pytest.raises(ValueError, match=r"no data set 'minst'.*mnist"):
        data.load("minst")
