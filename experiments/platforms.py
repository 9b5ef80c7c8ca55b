"""The platforms that programs choose by name: three models of hardware classes, a mobile processor, and this machine.

The numbers describe classes of devices, not products: a mobile core cluster, an edge accelerator with a systolic array,
a mid-size FPGA.  What they give is labelled modelled everywhere.  `MODELLED` and `latency_of` price channel widths;
`DEVICES` and `host` add energy and know which blocks of pruned weights suit them.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp

from compressjax import cost

MODELLED: Mapping[str, cost.Modelled] = MappingProxyType(
    {
        # Four cores of two 128-bit multiply-add pipes at 2.4 GHz, 15 GB/s.
        "roofline": cost.Roofline(peak=4 * 2 * 4 * 2.4e9, utilisation=0.7, bandwidth=15e9, on_chip=2e6),
        "simd": cost.SIMD(frequency=2.4e9, vector_bits=128, units=8, bandwidth=15e9, on_chip=2e6),
        # 16 x 16 integer units at 700 MHz, as in small edge accelerators.
        "systolic": cost.Systolic(rows=16, columns=16, frequency=0.7e9, bandwidth=8e9, on_chip=1e6),
        # 16 x 16 DSP slices at 200 MHz.
        "fpga": cost.FPGATile(tile_outputs=16, tile_inputs=16, frequency=2e8, bandwidth=12e9, on_chip=2e6),
    }
)
BITS = {"roofline": 32, "simd": 32, "systolic": 8, "fpga": 16}  # operand widths at which widths are chosen


def latency_of(
    name: str, layers: Callable[[Mapping[str, Any]], cost.Layers], cache: str | os.PathLike[str] | None = None
) -> Callable[[Mapping[str, Any]], Any]:
    """Widths (group -> count) -> seconds of one call on a platform, as a JAX function.

    Args:
      name: ``"host"`` or one of `MODELLED`.
      layers: From `compressjax.cost.of_widths`, traced with the batch that is timed.
      cache: Folder that keeps what was measured on the host, so that a resumed run sees the same platform.

    Raises:
      ValueError: If the platform is unknown.
    """
    if name == "host":
        table = cost.tabulate(layers({}), cost.Host(repeats=5, fastest=True, cache=cache), points=8, multiple=8)
        return lambda widths: jnp.sum(jnp.asarray(table.latency(layers(widths))))
    if name not in MODELLED:
        raise ValueError(f"There is no platform {name!r}; choose host or one of {', '.join(MODELLED)}.")
    platform, width = MODELLED[name], BITS[name]

    def latency(widths: Mapping[str, Any]) -> Any:
        found = layers(widths).replace(weight_bits=width, activation_bits=width)
        return jnp.sum(jnp.asarray(platform.latency(found)))

    return latency


@dataclass(frozen=True)
class Device:
    """A platform, what it can run, and the blocks that suit it.

    Attributes:
      platform: Modelled or measured.
      about: What is assumed, in one sentence.
      fill: Operand bits -> (outputs, inputs) of the smallest block of pruned weights that leaves no lane or multiplier
        idle.  The keys are the widths that the device can run.
      sees_blocks: Whether the platform's time depends on the block; where it does not, `fill` is (1, 1).
    """

    platform: cost.Platform
    about: str
    fill: Mapping[int, tuple[int, int]]
    sees_blocks: bool = True

    def fit(self, block: tuple[int, int], bits: int) -> tuple[int, int]:
        """The block, widened until it fills the device at this operand width.

        >>> DEVICES["FPGA"].fit((8, 4), 8)
        (16, 4)
        """
        outputs, inputs = self.fill[bits]
        return max(block[0], outputs), max(block[1], inputs)


WHOLE = 2**20  # more outputs than a layer has: one block takes them all
_WATTS = 3.0  # the same for all, so that it is not this guess that decides which device is the most efficient

DEVICES: Mapping[str, Device] = MappingProxyType(
    {
        "mobile CPU": Device(
            cost.SIMD(
                frequency=2.4e9,
                vector_bits=128,
                units=8,
                overhead=0.1,
                bandwidth=15e9,
                on_chip=2e6,
                energy_model=cost.Energy(static=_WATTS, scale=0.15),
            ),
            "4 cores of two 128-bit pipes at 2.4 GHz, 15 GB/s, 2 MB; 4-bit operands run as 8-bit",
            {32: (4, 1), 16: (8, 1), 8: (16, 1), 4: (16, 1)},
        ),
        # A roofline does not look at blocks: overhead and balance are guesses for blocks, not for single weights.
        "mobile GPU": Device(
            cost.Roofline(
                peak=512 * 0.6e9,
                utilisation=0.3,
                widths=(16, 32),
                overhead=0.1,
                balance=0.8,
                bandwidth=30e9,
                on_chip=1e6,
                energy_model=cost.Energy(static=_WATTS, scale=0.15),
            ),
            "512 float32 or 1024 16-bit units at 0.6 GHz, 30 % busy, 30 GB/s, 1 MB; int8 and 4-bit run as 16-bit",
            {32: (1, 1), 16: (1, 1), 8: (1, 1), 4: (1, 1)},
            sees_blocks=False,
        ),
        # The tile is the block of the mobile designs.  32 tiles work on different positions at the same clock, which
        # is one tile at 32 times the clock; for a product of one row that is too fast, but then memory decides.
        "FPGA": Device(
            cost.FPGATile(
                tile_outputs=8,
                tile_inputs=4,
                frequency=32 * 2e8,
                bandwidth=15e9,
                on_chip=4e6,
                energy_model=cost.Energy(static=_WATTS, reuse=32.0, scale=0.5),
            ),
            "32 tiles of 8 x 4 DSP slices at 200 MHz, each on its own positions, 15 GB/s, 4 MB; float32 takes 5 slices",
            {32: (8, 4), 16: (8, 4), 8: (16, 4), 4: (32, 4)},
        ),
    }
)


def host(repeats: int) -> Device:
    """This machine: its best block is the whole layer, which makes a smaller dense product.

    There are no 4-bit kernels, and XLA's CPU backend has no 16-bit products that are summed in float32.

    Args:
      repeats: Rounds of timed calls.
    """
    whole = (WHOLE, 1)
    about = "sum over layers, each the median of calls that take turns"
    return Device(cost.Host(repeats=repeats), about, {32: whole, 8: whole})
