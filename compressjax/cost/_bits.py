"""Accelerators whose speed depends on the number of bits.

Bit fusion: 2-bit multipliers fuse into wider ones; operands take 2, 4, 8 or 16 bits::

    cycles = MACs x (weight width / 2) x (activation width / 2) / bricks

Bit-serial: one bit of each operand at a time::

    cycles = MACs x weight bits x activation bits / lanes

Neither skips pruned weights.

Sources: H. Sharma et al., "Bit Fusion", ISCA 2018; Y. Umuroglu et al., "BISMO", FPL 2018.  Both were the simulators of
K. Wang et al., "HAQ", CVPR 2019.
"""

from dataclasses import dataclass
from typing import ClassVar

from compressjax.cost._check import POSITIVE, check_fields
from compressjax.cost._count import macs
from compressjax.cost._layers import Layers, PerLayer, namespace
from compressjax.cost._platform import Modelled


def _fused(bits: PerLayer) -> PerLayer:
    """The multiplier width that holds `bits`: 2, 4, 8, 16, then whole multiples of 16 bits."""
    xp = namespace(bits)
    wide = 16 * xp.ceil(bits / 16)
    for width in (8, 4, 2):
        wide = xp.where(bits <= width, float(width), wide)
    return wide


@dataclass(frozen=True, kw_only=True)
class BitFusion(Modelled):
    """A spatial accelerator of fusible 2-bit multipliers.

    Attributes:
      bricks: Number of 2-bit x 2-bit multipliers.
      frequency: In hertz.

    >>> import numpy as np
    >>> from compressjax import cost
    >>> net = cost.layers(lambda w, x: x @ w, np.ones((8, 64), np.int8), np.ones((1, 8), np.int8))
    >>> fusion = BitFusion(bricks=512, frequency=1.0)
    >>> fusion.latency(net), fusion.latency(net.replace(weight_bits=3))
    (array([16.]), array([8.]))
    """

    bricks: int
    frequency: float
    skips_zeros: ClassVar[bool] = False
    source: ClassVar[str] = "Bit Fusion (Sharma et al. 2018)"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, POSITIVE, "bricks", "frequency")

    def compute(self, layers: Layers) -> PerLayer:
        fused = _fused(layers.weight_bits) * _fused(layers.activation_bits) / 4
        return macs(layers) / layers.repeats * fused / (self.bricks * self.frequency)


@dataclass(frozen=True, kw_only=True)
class BitSerial(Modelled):
    """A temporal accelerator that multiplies bit by bit.

    Attributes:
      lanes: One-bit products per cycle.
      frequency: In hertz.

    >>> import numpy as np
    >>> from compressjax import cost
    >>> net = cost.layers(lambda w, x: x @ w, np.ones((8, 64), np.int8), np.ones((1, 8), np.int8))
    >>> serial = BitSerial(lanes=512, frequency=1.0)
    >>> serial.latency(net), serial.latency(net.replace(weight_bits=3))
    (array([64.]), array([24.]))
    """

    lanes: int
    frequency: float
    skips_zeros: ClassVar[bool] = False
    source: ClassVar[str] = "bit-serial matrix product (BISMO, Umuroglu et al. 2018)"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, POSITIVE, "lanes", "frequency")

    def compute(self, layers: Layers) -> PerLayer:
        work = macs(layers) / layers.repeats * layers.weight_bits * layers.activation_bits
        return work / (self.lanes * self.frequency)
