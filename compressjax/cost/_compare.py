"""One table for "which platform, with which compression?": latency, energy and energy efficiency.

Every row says whether it is modelled or measured; a platform without an energy model leaves energy blank.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from compressjax.cost._count import table
from compressjax.cost._fpga import FPGATile
from compressjax.cost._layers import Layers
from compressjax.cost._platform import Energy, Platform
from compressjax.cost._simd import SIMD

# Round numbers in the range of a phone's processor and of a mid-size FPGA board of about 2020.  Assumptions for
# comparisons, not the data sheet of any product: 4 cores with two 128-bit units each; 1024 slices at 200 MHz.
PHONE = SIMD(
    frequency=2.4e9,
    vector_bits=128,
    units=8,
    overhead=0.1,
    bandwidth=30e9,
    on_chip=2.0**21,
    energy_model=Energy(static=1.0, scale=0.15),
)
FPGA = FPGATile(
    tile_outputs=32,
    tile_inputs=32,
    frequency=2e8,
    bandwidth=15e9,
    on_chip=2.0**22,
    energy_model=Energy(static=3.0, reuse=32.0, scale=0.5),
)


class Row(NamedTuple):
    """One variant on one platform; seconds and joules for the whole batch, joules nan where not known."""

    platform: str
    variant: str
    modelled: bool
    seconds: float
    joules: float
    batch: float


class Comparison(NamedTuple):
    """What `compare` returns; prints as a table."""

    rows: tuple[Row, ...]

    def __str__(self) -> str:
        header = ("platform", "variant", "", "ms", "speed-up", "mJ", "examples/s", "examples/J")
        first: dict[str, float] = {}
        cells = []
        for row in self.rows:
            base = first.setdefault(row.platform, row.seconds)
            known = not np.isnan(row.joules)
            cells.append(
                [
                    *(row.platform, row.variant, "modelled" if row.modelled else "measured"),
                    *(
                        f"{row.seconds * 1e3:.3f}",
                        f"{base / row.seconds:.2f}",
                        f"{row.joules * 1e3:.3f}" if known else "-",
                    ),
                    *(f"{row.batch / row.seconds:,.0f}", f"{row.batch / row.joules:,.0f}" if known else "-"),
                ]
            )
        return table(header, cells, left=3)


def compare(variants: Mapping[str, Layers], platforms: Mapping[str, Platform]) -> Comparison:
    """Latency and energy of several variants of a network on several platforms.

    Args:
      variants: Name to layers, the reference (for speed-ups) first.
      platforms: Name to platform.

    Returns:
      One row per platform and variant.

    >>> from compressjax import cost
    >>> net = cost.layers(lambda w, x: x @ w, np.ones((64, 64), np.float32), np.ones((100, 64), np.float32))
    >>> print(compare({"dense": net, "int8": net.replace(weight_bits=8, activation_bits=8)}, {"phone": cost.PHONE}))
    platform  variant               ms  speed-up     mJ  examples/s  examples/J
    phone     dense    modelled  0.005      1.00  0.006  18,750,000  16,535,558
    phone     int8     modelled  0.001      4.00  0.001  75,000,000  68,508,667
    """
    rows = []
    for platform_name, platform in platforms.items():
        for name, layers in variants.items():
            seconds = float(np.sum(np.asarray(platform.latency(layers), np.float64)))
            energy: Any = getattr(platform, "energy", None)
            joules = float(np.sum(np.asarray(energy(layers), np.float64))) if energy else float("nan")
            rows.append(Row(platform_name, name, platform.modelled, seconds, joules, float(layers.batch[0])))
    return Comparison(tuple(rows))
