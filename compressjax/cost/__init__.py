"""What a network costs: counts from its jaxpr, platforms that are modelled, and the host that is measured."""

from compressjax.cost._bits import BitFusion, BitSerial
from compressjax.cost._count import Count, activations, count, macs, parameters, weight_bytes
from compressjax.cost._fpga import FPGATile
from compressjax.cost._layers import Geometry, Layers, as_gemm, concatenate
from compressjax.cost._platform import Energy, Modelled, Platform, traffic
from compressjax.cost._roofline import Roofline
from compressjax.cost._simd import SIMD
from compressjax.cost._systolic import Systolic
from compressjax.cost._trace import layers

__all__ = [
    "SIMD",
    "BitFusion",
    "BitSerial",
    "Count",
    "Energy",
    "FPGATile",
    "Geometry",
    "Layers",
    "Modelled",
    "Platform",
    "Roofline",
    "Systolic",
    "activations",
    "as_gemm",
    "concatenate",
    "count",
    "layers",
    "macs",
    "parameters",
    "traffic",
    "weight_bytes",
]
