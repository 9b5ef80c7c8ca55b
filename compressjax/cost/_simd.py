"""SIMD processor: output channels go through vector registers of a fixed number of lanes, the last one partly empty.

    lanes   = vector_bits / width
    vectors = groups x ceil(outputs per group / lanes), or lanes across groups where that is less (depthwise)
    cycles  = batch x positions x window x inputs x vectors / units

A pruned layer multiplies only its kept blocks, each of which fills ceil(block outputs / lanes) vectors and costs
(1 + overhead) for its address: single pruned weights waste all lanes but one.

Source: this library's; the rounding is what makes latency over channels a staircase on phones (as in the look-up tables
of Cai et al., ProxylessNAS, ICLR 2019).  The rule on blocks follows Cai et al., "YOLObile", AAAI 2021.
"""

from dataclasses import dataclass
from typing import ClassVar

from compressjax.cost._check import NOT_NEGATIVE, POSITIVE, check_fields
from compressjax.cost._layers import Layers, PerLayer, ceil_div, namespace
from compressjax.cost._platform import Modelled, supported


@dataclass(frozen=True, kw_only=True)
class SIMD(Modelled):
    """A processor with vector units.

    Attributes:
      frequency: In hertz.
      vector_bits: Width of a vector register.
      units: Vector multiply-adds per cycle, over all cores.
      widths: Supported operand widths in bits.
      overhead: Additional cost of a vector of a pruned layer, relative.

    >>> import numpy as np
    >>> from compressjax import cost
    >>> net = cost.layers(lambda w, x: x @ w, np.ones((8, 5), np.float32), np.ones((1, 8), np.float32))
    >>> SIMD(frequency=1.0, vector_bits=128, units=1).latency(net)  # 8 inputs x 2 vectors of 4 lanes
    array([16.])
    """

    frequency: float
    vector_bits: int
    units: int
    widths: tuple[int, ...] = (8, 16, 32)
    overhead: float = 0.0
    source: ClassVar[str] = "SIMD lanes, this library's formula"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, POSITIVE, "frequency", "vector_bits", "units", "widths")
        check_fields(self, NOT_NEGATIVE, "overhead")

    def compute(self, layers: Layers) -> PerLayer:
        lanes = self.vector_bits / supported(layers, self.widths)
        each = layers.outputs / layers.groups
        xp = namespace(lanes, each)
        dense = xp.minimum(layers.groups * ceil_div(each, lanes), each * ceil_div(layers.groups, lanes))
        block = xp.minimum(layers.block_outputs, each)
        sparse = layers.density * layers.outputs / block * ceil_div(block, lanes) * (1 + self.overhead)
        vectors = xp.where(layers.density < 1, sparse, dense)
        return layers.batch * layers.positions * layers.window * layers.inputs * vectors / (self.units * self.frequency)
