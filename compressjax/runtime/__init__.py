"""Packed networks: compressed leaves as matrices that multiply in their packed form, and programs made of them."""

from compressjax.runtime._convert import to_litert, to_onnx
from compressjax.runtime._export import export, load
from compressjax.runtime._formats import As
from compressjax.runtime._layers import Padding, conv, linear
from compressjax.runtime._pack import Packed, from_artifact, is_packed, pack, unpack
from compressjax.runtime._report import Report, Row, report
from compressjax.runtime._target import shard, target

__all__ = [
    "As",
    "Packed",
    "Padding",
    "Report",
    "Row",
    "conv",
    "export",
    "from_artifact",
    "is_packed",
    "linear",
    "load",
    "pack",
    "report",
    "shard",
    "target",
    "to_litert",
    "to_onnx",
    "unpack",
]
