"""Systolic array, weight-stationary: weights are loaded tile by tile, and activations stream through each tile.

    cycles = groups x ceil(K / rows) x ceil(N / columns) x (2 rows + columns + T - 2)

with K = window x inputs, N = outputs per group and T = batch x positions: a tile is loaded (rows), filled and drained
(rows + columns - 2), and takes one activation row per cycle (T).  Tiles are not overlapped.

A pruned layer packs the kept rows of K of each column block; a block narrower than the array wastes its columns.

Source: A. Samajdar et al., "A systematic methodology for characterizing scalability of DNN accelerators using
SCALE-Sim", ISPASS 2020.
"""

from dataclasses import dataclass
from typing import ClassVar

from compressjax.cost._check import POSITIVE, check_fields
from compressjax.cost._layers import Layers, PerLayer, ceil_div, namespace
from compressjax.cost._platform import Modelled, supported


@dataclass(frozen=True, kw_only=True)
class Systolic(Modelled):
    """A systolic array with stationary weights.

    Attributes:
      rows: Of the array; K runs along them.
      columns: Of the array; output channels run along them.
      frequency: In hertz.
      width: Operand width of the array in bits; wider operands take (bits / width) times as long.

    >>> import numpy as np
    >>> from compressjax import cost
    >>> net = cost.layers(lambda w, x: x @ w, np.ones((20, 16), np.int8), np.ones((100, 20), np.int8))
    >>> Systolic(rows=16, columns=16, frequency=1.0).latency(net)  # 2 tiles x (32 + 16 + 100 - 2)
    array([292.])
    """

    rows: int
    columns: int
    frequency: float
    width: int = 8
    source: ClassVar[str] = "weight-stationary systolic array (SCALE-Sim, Samajdar et al. 2020)"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, POSITIVE, "rows", "columns", "frequency", "width")

    def compute(self, layers: Layers) -> PerLayer:
        depth, each = layers.window * layers.inputs, layers.outputs / layers.groups
        xp = namespace(depth, each, layers.density)
        block = xp.minimum(layers.block_outputs, each)
        kept = ceil_div(xp.ceil(depth * layers.density), self.rows)
        pruned = ceil_div(each, block) * ceil_div(block, self.columns) * kept
        dense = ceil_div(each, self.columns) * ceil_div(depth, self.rows)
        tiles = layers.groups * xp.where(layers.density < 1, pruned, dense)
        stream = 2 * self.rows + self.columns + layers.batch * layers.positions - 2
        passes = supported(layers, (self.width,)) / self.width
        return tiles * stream * passes / self.frequency
