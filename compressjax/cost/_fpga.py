"""FPGA tile: a grid of multipliers takes Tm output and Tn input channels per cycle, one kernel position at a time.

    cycles = batch x positions x groups x ceil(outputs per group / Tm) x ceil(inputs / Tn) x kept kernel positions

Tm is the tile at 16 bits.  Narrower operands widen it: a DSP slice packs two 8-bit MACs that share an operand, and at
4 bits multipliers made of look-up tables work beside the DSPs.  Single precision takes several DSPs per MAC.

In a pruned layer the kept positions are those of its blocks (`density` x window on average); a block smaller than a
tile leaves the rest of the tile idle.

Sources: C. Zhang et al., "Optimizing FPGA-based accelerator design for deep CNNs", FPGA 2015 (the tile); Xilinx WP486,
"Deep learning with INT8 optimization on Xilinx devices", 2016 (packing).  `lut_macs` and `float_dsps` are assumptions.
"""

from dataclasses import dataclass
from typing import ClassVar

from compressjax.cost._check import NOT_NEGATIVE, POSITIVE, check_fields
from compressjax.cost._layers import Layers, PerLayer, ceil_div, namespace
from compressjax.cost._platform import Modelled, supported


@dataclass(frozen=True, kw_only=True)
class FPGATile(Modelled):
    """A tiled accelerator on an FPGA.

    Attributes:
      tile_outputs: Tm at 16 bits; tile_outputs x tile_inputs DSP slices are used.
      tile_inputs: Tn.
      frequency: In hertz.
      lut_macs: 4-bit multipliers made of look-up tables, as a multiple of the DSP slices used.
      float_dsps: DSP slices per single-precision MAC.

    >>> import numpy as np
    >>> from compressjax import cost
    >>> net = cost.layers(lambda w, x: x @ w, np.ones((8, 64), np.float32), np.ones((1, 8), np.float32))
    >>> fpga = FPGATile(tile_outputs=16, tile_inputs=4, frequency=1.0)
    >>> [float(fpga.latency(net.replace(weight_bits=b, activation_bits=b))[0]) for b in (16, 8, 4)]
    [8.0, 4.0, 2.0]
    """

    tile_outputs: int
    tile_inputs: int
    frequency: float
    lut_macs: float = 2.0
    float_dsps: float = 5.0
    source: ClassVar[str] = "FPGA tile (Zhang et al. 2015), DSP packing (Xilinx WP486)"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, POSITIVE, "tile_outputs", "tile_inputs", "frequency", "float_dsps")
        check_fields(self, NOT_NEGATIVE, "lut_macs")

    def compute(self, layers: Layers) -> PerLayer:
        width = supported(layers, (4, 8, 16))
        each = layers.outputs / layers.groups
        xp = namespace(width, each)
        tile = self.tile_outputs * xp.where(width <= 4, 2 + self.lut_macs, xp.where(width <= 8, 2.0, 1.0))
        block_outputs = xp.minimum(layers.block_outputs, each)
        block_inputs = xp.minimum(layers.block_inputs, layers.inputs)
        dense = ceil_div(each, tile) * ceil_div(layers.inputs, self.tile_inputs)
        blocks = ceil_div(each, block_outputs) * ceil_div(layers.inputs, block_inputs)
        pruned = layers.density * blocks * ceil_div(block_outputs, tile) * ceil_div(block_inputs, self.tile_inputs)
        tiles = layers.groups * xp.where(layers.density < 1, pruned, dense)
        cycles = layers.batch * layers.positions * layers.window * tiles
        return cycles * xp.where(width > 16, self.float_dsps, 1.0) / self.frequency
