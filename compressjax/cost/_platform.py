"""What a platform is, and what all modelled platforms share: a compute time, a memory time, and energy.

    latency of a layer = repeats x max(compute time, traffic / bandwidth)            overlapped, one layer after another
    traffic            = kept weights, and inputs and outputs unless both fit on the chip
    energy             = static power x latency + MACs x E_mac + SRAM words x E_sram + DRAM words x E_dram

A layer with density below 1 runs as a sparse kernel, whose cost depends on the blocks in which it was pruned; it may be
slower than the dense kernel.  `compressjax.cost.break_even` finds where it stops to be.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

from compressjax.cost._check import NOT_NEGATIVE, POSITIVE, check_fields
from compressjax.cost._count import bytes_of_activations, bytes_of_weight, macs
from compressjax.cost._layers import Layers, PerLayer, namespace


@runtime_checkable
class Platform(Protocol):
    """Something that tells how long a layer takes.  Total latency is the sum over layers.

    Attributes:
      modelled: True for a formula, False for measurements.
      source: Where formula, table or measurement come from.
    """

    @property
    def modelled(self) -> bool: ...

    @property
    def source(self) -> str: ...

    def latency(self, layers: Layers) -> PerLayer:
        """Seconds per layer, (layers,)."""
        ...


@dataclass(frozen=True)
class Energy:
    """Energy of arithmetic and memory in a 45 nm process, and static power.

    A MAC at up to 8 bits is an integer multiplication scaled by the product of the bit-widths (0.2 pJ at 8 x 8) and a
    32-bit accumulation; up to 16 bits it is half precision, above single precision.  Every word read from SRAM serves
    `reuse` MACs, which is an assumption about the data flow; the rest is M. Horowitz, "Computing's energy problem (and
    what we can do about it)", ISSCC 2014.

    Attributes:
      static: Power drawn all the time, in watts.
      reuse: MACs per operand read from SRAM.
      sram: Joules per 32 bits.
      dram: Joules per 32 bits.
      scale: Factor on all but static power, for another process.

    Raises:
      ValueError: If `reuse` is not above 0 or another number is negative.

    >>> import numpy as np
    >>> [
    ...     round(float(e) * 1e12, 3)
    ...     for e in Energy().mac(np.array([32.0, 16.0, 8.0, 4.0]), np.array([32.0, 16.0, 8.0, 4.0]))
    ... ]
    [4.6, 1.5, 0.3, 0.15]
    """

    static: float = 0.0
    reuse: float = 16.0
    sram: float = 5e-12
    dram: float = 640e-12
    scale: float = 1.0
    source: ClassVar[str] = "45 nm, Horowitz, ISSCC 2014; SRAM reuse assumed"

    def __post_init__(self) -> None:
        check_fields(self, NOT_NEGATIVE, "static", "sram", "dram", "scale")
        check_fields(self, POSITIVE, "reuse")

    def mac(self, weight_bits: Any, activation_bits: Any) -> Any:
        """Joules per MAC.

        Args:
          weight_bits: Bits of one operand, any shape.
          activation_bits: Bits of the other, same shape.

        Returns:
          Joules, same shape.
        """
        xp = namespace(weight_bits, activation_bits)
        wider = xp.maximum(weight_bits, activation_bits)
        integer = 0.2 * weight_bits * activation_bits / 64 + 0.1
        return 1e-12 * xp.where(wider > 16, 3.7 + 0.9, xp.where(wider > 8, 1.1 + 0.4, integer))

    def __call__(
        self, layers: Layers, seconds: PerLayer, *, on_chip: float = 0.0, skips_zeros: bool = True
    ) -> PerLayer:
        """Joules per layer.

        Args:
          layers: The layers.
          seconds: Their latencies, (layers,).
          on_chip: Bytes of activations that need not go to DRAM.
          skips_zeros: Whether pruned weights cost no arithmetic.

        Returns:
          Joules, (layers,).
        """
        work = macs(layers) * layers.density if skips_zeros else macs(layers)
        operands = work * (layers.weight_bits + layers.activation_bits) / self.reuse / 32
        words = layers.repeats * traffic(layers, on_chip) / 4
        arithmetic = work * self.mac(layers.weight_bits, layers.activation_bits)
        return self.static * seconds + self.scale * (arithmetic + operands * self.sram + words * self.dram)


def traffic(layers: Layers, on_chip: float = 0.0) -> PerLayer:
    """Bytes that one execution of a layer moves to and from memory.

    Args:
      layers: The layers.
      on_chip: If inputs and outputs together have no more bytes than this, they stay on the chip.

    Returns:
      Bytes, (layers,).

    >>> import numpy as np
    >>> from compressjax import cost
    >>> net = cost.layers(lambda w, x: x @ w, np.ones((3, 4), np.float32), np.ones((5, 3), np.float32))
    >>> traffic(net), traffic(net, on_chip=1024.0)
    (array([188.]), array([48.]))
    """
    moved = bytes_of_activations(layers)
    return bytes_of_weight(layers) + namespace(moved).where(moved <= on_chip, 0.0, moved)


@dataclass(frozen=True, kw_only=True)
class Modelled:
    """Base of the platforms that are formulas; a subclass gives `compute`.

    Attributes:
      bandwidth: Of the memory, in bytes per second.
      on_chip: Bytes of activations that need not leave the chip.
      energy_model: What energy is made of.

    Raises:
      ValueError: Here and in subclasses, if a number that is not traced is out of range.

    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> from compressjax import cost
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Abacus(Modelled):
    ...     source = "an example"
    ...
    ...     def compute(self, layers):
    ...         return cost.macs(layers) / layers.repeats
    >>> Abacus().latency(cost.layers(lambda w, x: x @ w, np.ones((3, 4)), np.ones((5, 3))))
    array([60.])
    """

    bandwidth: float = float("inf")
    on_chip: float = 0.0
    energy_model: Energy = field(default_factory=Energy)
    modelled: ClassVar[bool] = True
    source: ClassVar[str] = ""
    skips_zeros: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fields(self, POSITIVE, "bandwidth")
        check_fields(self, NOT_NEGATIVE, "on_chip")

    def compute(self, layers: Layers) -> PerLayer:
        """Seconds of arithmetic in one execution of each layer."""
        raise TypeError("abstract")  # pragma: no cover

    def latency(self, layers: Layers) -> PerLayer:
        """Seconds per layer.

        Args:
          layers: The layers.

        Returns:
          Seconds, (layers,); a pure function that may be traced.
        """
        arithmetic = self.compute(layers)
        memory = traffic(layers, self.on_chip) / self.bandwidth
        return layers.repeats * namespace(arithmetic, memory).maximum(arithmetic, memory)

    def energy(self, layers: Layers) -> PerLayer:
        """Joules per layer.

        Args:
          layers: The layers.

        Returns:
          Joules, (layers,); a pure function that may be traced.
        """
        return self.energy_model(layers, self.latency(layers), on_chip=self.on_chip, skips_zeros=self.skips_zeros)


def supported(layers: Layers, widths: tuple[int, ...]) -> PerLayer:
    """The narrowest of a platform's operand widths that holds both operands, in bits; beyond them, whole passes more.

    >>> import numpy as np
    >>> from compressjax import cost
    >>> net = cost.layers(lambda w, x: x @ w, np.ones((3, 4), np.float32), np.ones((5, 3), np.float32))
    >>> supported(net.replace(weight_bits=4, activation_bits=8), (8, 16)), supported(net, (8, 16))
    (array([8.]), array([32.]))
    """
    xp = namespace(layers.weight_bits, layers.activation_bits)
    bits = xp.maximum(layers.weight_bits, layers.activation_bits)
    widest = max(widths)
    out = widest * xp.ceil(bits / widest)
    for width in sorted(widths, reverse=True):
        out = xp.where(bits <= width, float(width), out)
    return out
