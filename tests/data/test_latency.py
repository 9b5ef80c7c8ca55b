"""Latency tables: keys, absence, damage; the real files where there are any."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pooch
import pytest

from compressjax import data
from compressjax.data import _latency

REAL = pytest.mark.skipif(
    not (Path(os.environ.get("COMPRESSJAX_DATA", "")) / "latency").is_dir(), reason="needs the latency tables"
)


@REAL
def test_real_architectures():
    cells = data.architecture_latencies("nasbench201")
    assert cells.ops.shape == (15625, 6)
    assert len({tuple(row) for row in cells.ops.tolist()}) == 15625
    assert cells.op_names[int(cells.ops.max())] == "avg_pool_3x3"
    phone, gpu = (cells.on(device) for device in ("pixel3", "1080ti_1"))
    assert np.corrcoef(cells.on("raspi4"), phone)[0, 1].round(2) == 0.97
    assert np.corrcoef(cells.on("raspi4"), gpu)[0, 1].round(2) == 0.67
    assert data.architecture_latencies("fbnet").seconds.shape == (27, 5000)
    with pytest.raises(ValueError, match="no device 'abacus'"):
        cells.on("abacus")


@REAL
def test_real_block_tables():
    blocks = data.phone_blocks()
    assert len(blocks) == 72
    stem = blocks[data.Block("Conv", (224, 224, 3), (112, 112, 32))]
    assert stem == pytest.approx(4.397037934668071e-3)
    assert data.Block("expanded_conv", (112, 112, 16), (56, 56, 24), expand=3, kernel=3, stride=2) in blocks
    choices = data.fbnet_blocks()
    assert choices.seconds.shape == (22, len(choices.op_names))


@REAL
def test_real_bit_table():
    cycles = data.haq_cycles()
    assert (int(cycles[:, 7, 7].sum()), int(cycles[:, 3, 3].sum())) == (39_624_933, 15_716_150)


def test_absence_and_damage_are_reported(tmp_path, monkeypatch):
    monkeypatch.delenv("COMPRESSJAX_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache")
    with pytest.raises(FileNotFoundError, match=r"'haq_mobilenetv2_wbit_abit_cycles\.npy' is in none of the folders"):
        data.haq_cycles(root=tmp_path)
    (tmp_path / "latency").mkdir()
    (tmp_path / "latency" / "fbnet_cpu_lut_us.json").write_text("{}", "utf-8")
    with pytest.raises(ValueError, match="damaged or another version"):
        data.fbnet_blocks(root=tmp_path)
    with pytest.raises(ValueError, match="no latencies of 'darts'"):
        data.architecture_latencies("darts")


def test_a_table_is_read_from_the_root(tmp_path, monkeypatch):
    content = b'{"ops": ["a", "b"], "layers_us": [[1, 2], [3, 4]]}'
    (tmp_path / "latency").mkdir()
    (tmp_path / "latency" / "fbnet_cpu_lut_us.json").write_bytes(content)
    monkeypatch.setattr(_latency, "_SHA256", {"fbnet_cpu_lut_us.json": hashlib.sha256(content).hexdigest()})
    table = data.fbnet_blocks(root=tmp_path)
    assert table.op_names == ("a", "b")
    np.testing.assert_allclose(table.seconds, [[1e-6, 2e-6], [3e-6, 4e-6]])


def test_keys_of_the_phone_table():
    assert data.parse_block("Logits-input:7x7x1280-output:1000") == data.Block("Logits", (7, 7, 1280), (1000,))
    with pytest.raises(ValueError, match="no block"):
        data.parse_block("Conv-224")
