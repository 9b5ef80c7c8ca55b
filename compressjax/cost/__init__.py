"""What a network costs: counts from its jaxpr, platforms that are modelled, and the host that is measured."""

from compressjax.cost._bits import BitFusion, BitSerial
from compressjax.cost._break_even import break_even
from compressjax.cost._count import Count, activations, count, macs, parameters, weight_bytes
from compressjax.cost._fpga import FPGATile
from compressjax.cost._host import Host
from compressjax.cost._layers import Geometry, Layers, as_gemm, concatenate
from compressjax.cost._measure import Timing, measure, take_turns
from compressjax.cost._platform import Energy, Modelled, Platform, traffic
from compressjax.cost._roofline import Roofline
from compressjax.cost._simd import SIMD
from compressjax.cost._systolic import Systolic
from compressjax.cost._table import BitTable, LookUp, Table, tabulate
from compressjax.cost._trace import layers
from compressjax.cost._widths import of_widths

__all__ = [
    "SIMD",
    "BitFusion",
    "BitSerial",
    "BitTable",
    "Count",
    "Energy",
    "FPGATile",
    "Geometry",
    "Host",
    "Layers",
    "LookUp",
    "Modelled",
    "Platform",
    "Roofline",
    "Systolic",
    "Table",
    "Timing",
    "activations",
    "as_gemm",
    "break_even",
    "concatenate",
    "count",
    "layers",
    "macs",
    "measure",
    "of_widths",
    "parameters",
    "tabulate",
    "take_turns",
    "traffic",
    "weight_bytes",
]
