"""Evaluating an artefact needs the file and the data, and nothing else."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from compressjax import data, storage, zoo
from experiments.evaluate import Evaluation, evaluate

ROOT = Path(__file__).parent.parent.parent
META = {"model": "lenet300", "widths": [5, 4]}


@pytest.fixture(scope="module")
def params() -> Any:
    return jax.tree.map(np.asarray, zoo.build("lenet300", widths=(5, 4)).init(jax.random.key(0)))


def write(path: Path, params: Any, meta: dict[str, Any]) -> Path:
    storage.save(path, params, meta)
    return path


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments.evaluate", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def by_hand(params: Any, split: data.Split) -> float:
    x = split.images.reshape(len(split.labels), -1).astype(np.float32) / np.float32(255)
    for name in ("fc1", "fc2", "fc3"):
        x = np.maximum(x, 0) @ params[name]["kernel"] + params[name]["bias"][None, :]
    return float((x.argmax(-1) == split.labels).mean())


@pytest.mark.parametrize("split", ["test", "validation"])
def test_accuracy_is_that_of_the_stored_network(tmp_path: Path, params: Any, split: str) -> None:
    path = write(tmp_path / "model.cjx", params, META)
    found = evaluate(path, "digits", split)
    loaded = data.load("digits")
    images = loaded.test() if split == "test" else loaded.validation
    assert found.accuracy == pytest.approx(by_hand(params, images), abs=1.5 / len(images.labels))
    assert found.images == len(images.labels)
    assert found.bytes == path.stat().st_size
    assert found.parameters == 784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10
    assert found.nonzeros == 784 * 5 + 5 * 4 + 4 * 10
    assert found.ratio == 4 * found.parameters / found.bytes


def test_the_file_may_name_the_data_and_leave_the_widths_to_its_shapes(tmp_path: Path, params: Any) -> None:
    path = write(tmp_path / "model.cjx", params, {"model": "lenet300", "dataset": "digits"})
    assert evaluate(path).dataset == "digits"


@pytest.mark.parametrize(
    ("meta", "dataset", "match"),
    [
        ({}, "digits", "does not say which network"),
        ({"model": 3}, "digits", "does not say which network"),
        ({"model": "resnet"}, "digits", "no network 'resnet'"),
        (META, "", "does not name a data set"),
        (META, "letters", "no data set 'letters'"),
        ({**META, "widths": [6, 4]}, "digits", r"leaf 'fc1/\w+' has shape .* where .* is needed"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    tmp_path: Path, params: Any, meta: dict[str, Any], dataset: str, match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        evaluate(write(tmp_path / "model.cjx", params, meta), dataset)


def test_a_leaf_too_many_is_refused(tmp_path: Path, params: Any) -> None:
    path = write(tmp_path / "model.cjx", {**params, "fc4": {"kernel": np.ones((2, 2), np.float32)}}, META)
    with pytest.raises(ValueError, match=r"'fc4/kernel' has shape .* where nothing is needed"):
        evaluate(path, "digits")


def test_an_unknown_split_is_refused(tmp_path: Path, params: Any) -> None:
    with pytest.raises(ValueError, match="no split 'tset'"):
        evaluate(write(tmp_path / "model.cjx", params, META), "digits", "tset")


def test_the_text_holds_accuracy_bytes_and_ratio() -> None:
    text = str(Evaluation("lenet5", "mnist", "test", 10_000, 0.9912, 1_000, 431_080, 1_700))
    assert text.splitlines()[0] == "lenet5 on mnist, test split: 99.12 % of 10,000 images"
    assert "1,000 bytes, 1,724.3 times smaller" in text


def test_the_program_prints_the_evaluation(tmp_path: Path, params: Any) -> None:
    path = write(tmp_path / "model.cjx", params, META)
    done = program(f"--artifact={path}", "--dataset=digits")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{evaluate(path, 'digits')}\n"


@pytest.mark.faults
@pytest.mark.parametrize("damage", ["empty", "truncated", "foreign"])
def test_a_damaged_file_is_refused(tmp_path: Path, params: Any, damage: str) -> None:
    whole = storage.encode(params, META)
    content = {"empty": b"", "truncated": whole[:-7], "foreign": b"\x89PNG\r\n\x1a\n" * 9}
    path = tmp_path / "model.cjx"
    path.write_bytes(content[damage])
    with pytest.raises(ValueError, match=r"\w"):
        evaluate(path, "digits")


@pytest.mark.faults
@pytest.mark.parametrize("content", [None, b"CJX"])
def test_a_bad_file_ends_the_program_with_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.cjx"
    if content is not None:
        path.write_bytes(content)
    done = program(f"--artifact={path}", "--dataset=digits")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


def test_help_loads_nothing_heavy() -> None:
    code = "import sys, experiments.evaluate; assert not {'jax', 'numpy', 'flax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
