"""The printer of artefacts: every byte is in the table, and bad files end it with one sentence."""

import subprocess
import sys

import numpy as np
import pytest

from compressjax import storage
from experiments import inspect


@pytest.fixture
def artifact(tmp_path):
    kernel = np.zeros((20, 10), np.float32)
    kernel[::3, ::2] = 0.5
    kernel[4, 4] = -1
    tree = {"fc": {"kernel": kernel, "bias": np.arange(10, dtype=np.float32)}, "step": np.int32(3)}
    storage.save(tmp_path / "model.cjx", tree, {"model": "tiny", "widths": [10]})
    return tmp_path / "model.cjx"


def test_the_table_adds_up(artifact):
    text = inspect.inspect(str(artifact), 1000)
    assert text.startswith(f"{artifact}: {artifact.stat().st_size} bytes (model tiny, widths [10])")
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[4:7]] == ["fc/bias", "fc/kernel", "step"]
    assert "20x10 float32" in lines[5]
    assert "scalar int32" in lines[6]
    size = [float(line.split()[-2]) for line in lines if line.endswith("%")]
    assert size[-1] == artifact.stat().st_size
    assert sum(size[:-1]) == pytest.approx(size[-1], abs=0.3)
    assert f"everything       {32 * 1000 / (8 * artifact.stat().st_size):,.1f}x" in text


def test_nothing_to_compare_with():
    account = storage.account(storage.encode({}))
    assert inspect.ratios(account, None) == f"header {account.size:.1f} bytes"
    assert "total" in inspect.table(account)


def test_weights_are_counted_if_not_given(artifact):
    assert "200 dense weights x 32 bits (counted in this file)" in inspect.inspect(str(artifact))


@pytest.mark.faults
def test_bad_files_end_with_one_sentence(artifact):
    def run(path):
        command = [sys.executable, "-m", "experiments.inspect", f"--artifact={path}"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    artifact.write_bytes(artifact.read_bytes()[:-3])
    for path, message in ((artifact, "truncated or damaged"), (artifact.parent / "none.cjx", "There is no file")):
        done = run(path)
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.startswith("error: ")
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def test_flags_need_no_library():
    code = (
        "import sys; sys.argv = ['inspect', '--help']\n"
        "import runpy\n"
        "try: runpy.run_module('experiments.inspect', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "assert not {'jax', 'numpy', 'compressjax.storage'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
