"""Published latency tables for hardware-aware search, as arrays in seconds.

The files lie in a folder ``latency`` below one of the folders that `load` searches; there is no download.  Their
checksums are those of the prepared files, and a file that differs is refused.

Sources: ProxylessNAS phone table (Cai et al., ICLR 2019) from itouchz/Neural-Predictor-Tensorflow; NAS-Bench-201 and
FBNet latencies from HayeonLee/HELP (Lee et al., NeurIPS 2021; the devices ``eyeriss`` and ``fpga`` are models); FBNet
blocks on a CPU from AnnaAraslanova/FBNet; HAQ costs (Wang et al., CVPR 2019) from mit-han-lab/haq.
"""

import hashlib
import io
import json
import os
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from compressjax.data._files import ENVIRONMENT, search_folders

_SHA256 = MappingProxyType(
    {
        "fbnet_cpu_lut_us.json": "2ea671cc510ad80a6edcb38286b5ee606f0cdaa146492980a96a66cbe691f3a8",
        "fbnet_latency_ms.npz": "842fdaa644cb8dfec9c4a06b1813f127a1baa8822f1b15a4fa78c8dd12292396",
        "haq_mobilenetv2_wbit_abit_cycles.npy": "41c377108ab97b62451afbc13cdb1ae8ea9f43b837446fd91c65c73f477c6529",
        "nasbench201_latency_ms.npz": "c9a7d820b81c33dbdc28a613e90afb88771a6b27b301dfebacd7c7e184703839",
        "proxylessnas_pixel1_block_latency_ms.json": "967e3adb8d6d2de1642669628ea0373c05d7bebfc686a2c3a181146dda4d4c40",
    }
)
_BLOCK = re.compile(
    r"(?P<name>\w+)-input:(?P<input>[\dx]+)-output:(?P<output>[\dx]+)"
    r"(-expand:(?P<expand>\d+)-kernel:(?P<kernel>\d+)-stride:(?P<stride>\d+)-idskip:(?P<skip>\d))?"
)

Root = str | os.PathLike[str] | None


class Architectures(NamedTuple):
    """Latencies of whole networks of a search space on many devices.

    `ops` (networks, edges or layers) holds an index into `op_names` per edge or layer, `seconds` (devices, networks).
    """

    ops: UInt8[np.ndarray, "networks slots"]
    op_names: tuple[str, ...]
    devices: tuple[str, ...]
    seconds: Float[np.ndarray, "devices networks"]

    def on(self, device: str) -> Float[np.ndarray, " networks"]:
        """Seconds of every network on one device.

        Raises:
          ValueError: If the device is unknown.
        """
        if device not in self.devices:
            raise ValueError(f"There is no device {device!r}. Known: {', '.join(self.devices)}.")
        return self.seconds[self.devices.index(device)]


class Block(NamedTuple):
    """A block of a mobile network; shapes (height, width, channels), `kernel` 0 where the table does not say."""

    name: str
    input: tuple[int, ...]
    output: tuple[int, ...]
    expand: int = 0
    kernel: int = 0
    stride: int = 0
    skip: bool = False


class BlockChoices(NamedTuple):
    """Seconds of every candidate block in every layer of a supernet; a network's latency is the sum of its choices."""

    op_names: tuple[str, ...]
    seconds: Float[np.ndarray, "layers ops"]


def architecture_latencies(space: str, *, root: Root = None) -> Architectures:
    """Measured latencies of all 15,625 NAS-Bench-201 cells, or of 5,000 FBNet networks, on 27 device settings.

    Args:
      space: ``"nasbench201"`` or ``"fbnet"``; edges of a cell are (0,1), (0,2), (1,2), (0,3), (1,3), (2,3).
      root: Folder that holds a folder ``latency``.

    Returns:
      The table; batch sizes on GPUs are the suffix of the device's name.

    Raises:
      ValueError: If `space` is unknown or the file is damaged.
      FileNotFoundError: If the file is in none of the folders.

    >>> table = architecture_latencies("nasbench201")  # doctest: +SKIP
    >>> table.ops.shape, table.on("raspi4").mean().round(3)  # doctest: +SKIP
    ((15625, 6), np.float64(0.047))
    """
    if space not in ("nasbench201", "fbnet"):
        raise ValueError(f"There are no latencies of {space!r}. Known: nasbench201, fbnet.")
    with np.load(io.BytesIO(_read(f"{space}_latency_ms.npz", root)), allow_pickle=False) as file:
        names, devices = (tuple(map(str, file[key])) for key in ("op_names", "devices"))
        return Architectures(file["ops"], names, devices, file["latency"].astype(np.float64) / 1e3)


def phone_blocks(*, root: Root = None) -> Mapping[Block, float]:
    """Mean seconds of 72 MobileNetV2-like blocks on a phone, batch 1, 224 x 224 input (ProxylessNAS).

    Args:
      root: Folder that holds a folder ``latency``.

    Returns:
      Block to seconds; a network's latency is the sum over its blocks.

    Raises:
      ValueError: If the file is damaged.
      FileNotFoundError: If it is in none of the folders.

    >>> table = phone_blocks()  # doctest: +SKIP
    >>> table[Block("Conv", (224, 224, 3), (112, 112, 32))]  # doctest: +SKIP
    0.00439...
    """
    content = json.loads(_read("proxylessnas_pixel1_block_latency_ms.json", root))
    return MappingProxyType({parse_block(key): entry["mean"] / 1e3 for key, entry in content.items()})


def parse_block(key: str) -> Block:
    """Reads a key of the phone table.

    Raises:
      ValueError: If it is none.

    >>> parse_block("expanded_conv-input:56x56x24-output:28x28x32-expand:3-kernel:5-stride:2-idskip:0")
    Block(name='expanded_conv', input=(56, 56, 24), output=(28, 28, 32), expand=3, kernel=5, stride=2, skip=False)
    """
    found = _BLOCK.fullmatch(key)
    if found is None:
        raise ValueError(f"{key!r} is no block of the phone table.")
    before, after = (tuple(map(int, found[side].split("x"))) for side in ("input", "output"))
    expand, kernel, stride = (int(found[part] or 0) for part in ("expand", "kernel", "stride"))
    return Block(found["name"], before, after, expand, kernel, stride, found["skip"] == "1")


def fbnet_blocks(*, root: Root = None) -> BlockChoices:
    """Seconds of 9 candidate blocks in 22 layers of the FBNet supernet on a CPU, batch 1; noisy, one machine.

    Args:
      root: Folder that holds a folder ``latency``.

    Returns:
      The table.

    Raises:
      ValueError: If the file is damaged.
      FileNotFoundError: If it is in none of the folders.

    >>> fbnet_blocks().seconds.shape  # doctest: +SKIP
    (22, 9)
    """
    content = json.loads(_read("fbnet_cpu_lut_us.json", root))
    return BlockChoices(tuple(content["ops"]), np.asarray(content["layers_us"], np.float64) / 1e6)


def haq_cycles(*, root: Root = None) -> Int[np.ndarray, "layers weights activations"]:
    """Cost of MobileNetV2's 53 layers at 1..8 weight bits and 1..8 activation bits on HAQ's simulated accelerator.

    Args:
      root: Folder that holds a folder ``latency``.

    Returns:
      int64 (53, 8, 8), batch 16; entry [i, w - 1, a - 1].  The source does not name the unit; taken as cycles.

    Raises:
      ValueError: If the file is damaged.
      FileNotFoundError: If it is in none of the folders.

    >>> int(haq_cycles()[:, 3, 3].sum())  # doctest: +SKIP
    15716150
    """
    return np.load(io.BytesIO(_read("haq_mobilenetv2_wbit_abit_cycles.npy", root)), allow_pickle=False)


def _read(file: str, root: Root) -> bytes:
    """The bytes of a table, checked."""
    folders = search_folders("latency", root)
    for folder in folders:
        path = folder / file
        if path.is_file():
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != _SHA256[file]:
                raise ValueError(
                    f"{path} is damaged or another version: its SHA-256 is not {_SHA256[file]}. Replace it."
                )
            return content
    raise FileNotFoundError(
        f"The latency table {file!r} is in none of the folders {', '.join(map(str, folders))}: set {ENVIRONMENT} (or "
        "`root`) to the folder above a folder 'latency' that holds it. It cannot be downloaded."
    )
