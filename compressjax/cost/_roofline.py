"""Roofline: a layer takes as long as its arithmetic at peak rate or its traffic at full bandwidth, whichever is longer.

    compute = MACs / (peak x utilisation x native / width)

with `width` the narrowest supported operand width.  A pruned layer does density x MACs, each (1 + overhead) as dear, on
units that load imbalance keeps busy for a share `balance`: it pays from a pruning ratio of (1 + overhead) / balance on.

Sources: S. Williams, A. Waterman, D. Patterson, "Roofline", CACM 52(4), 2009.  The break-even ratio is the notion of
Ren et al., "ADMM-NN", ASPLOS 2019 (arXiv 1812.11677).
"""

from dataclasses import dataclass
from typing import ClassVar

from compressjax.cost._check import NOT_NEGATIVE, POSITIVE, SHARE, check_fields
from compressjax.cost._count import macs
from compressjax.cost._layers import Layers, PerLayer, namespace
from compressjax.cost._platform import Modelled, supported


@dataclass(frozen=True, kw_only=True)
class Roofline(Modelled):
    """Peak arithmetic and peak bandwidth.

    Attributes:
      peak: MACs per second at `native` bits.
      utilisation: Share of the peak that dense layers reach.
      native: Operand width of `peak`, in bits.
      widths: Supported operand widths; one of half the width runs at twice the rate.
      overhead: Additional cost of a MAC of a pruned layer, relative.
      balance: Share of the units that a pruned layer keeps busy.

    >>> import numpy as np
    >>> from compressjax import cost
    >>> net = cost.layers(lambda w, x: x @ w, np.ones((100, 100), np.float32), np.ones((1000, 100), np.float32))
    >>> Roofline(peak=1e9).latency(net), Roofline(peak=1e9, bandwidth=1e6).latency(net)
    (array([0.01]), array([0.84]))
    """

    peak: float
    utilisation: float = 1.0
    native: int = 32
    widths: tuple[int, ...] = (8, 16, 32)
    overhead: float = 0.0
    balance: float = 1.0
    source: ClassVar[str] = "roofline (Williams et al. 2009)"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, POSITIVE, "peak", "native", "widths")
        check_fields(self, SHARE, "utilisation", "balance")
        check_fields(self, NOT_NEGATIVE, "overhead")

    def compute(self, layers: Layers) -> PerLayer:
        dense = macs(layers) / layers.repeats
        sparse = dense * layers.density * (1 + self.overhead) / self.balance
        work = namespace(dense, sparse).where(layers.density < 1, sparse, dense)
        return work * supported(layers, self.widths) / (self.peak * self.utilisation * self.native)
