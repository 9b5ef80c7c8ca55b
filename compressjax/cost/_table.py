"""Look-up tables as platforms: measured or simulated once, then gathers and sums that can be traced.

- `Table`: seconds of every layer over input and output widths, bilinear between the tabulated widths;
- `BitTable`: seconds of every layer over weight and activation bits;
- `LookUp`: latency of whole architectures by their genome.

Sources of the form: CompactNet (Li et al. 2019) and NetAdapt (Yang et al. 2018) for widths, HAQ (Wang et al. 2019) for
bits.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from compressjax.cost._layers import Layers, PerLayer, ceil_div, concatenate, namespace
from compressjax.cost._platform import Platform

Numbers = Float[np.ndarray, "..."]


@dataclass(frozen=True, eq=False)
class Table:
    """Seconds per execution over widths; made by `tabulate`.

    Attributes:
      inputs: Tabulated input widths (over all groups), ascending, (layers, p).
      outputs: Tabulated output widths, (layers, q).
      seconds: (layers, p, q).
      modelled: Whether the times are modelled.
      source: Where they come from.

    >>> table = Table(
    ...     np.array([[8.0, 16.0]]), np.array([[8.0, 16.0]]), np.array([[[1.0, 2.0], [2.0, 4.0]]]), True, "toy"
    ... )
    >>> from compressjax import cost
    >>> net = cost.layers(lambda w, x: x @ w, np.ones((16, 12)), np.ones((1, 16)))
    >>> table.latency(net)
    array([3.])
    """

    inputs: Float[np.ndarray, "layers p"]
    outputs: Float[np.ndarray, "layers q"]
    seconds: Float[np.ndarray, "layers p q"]
    modelled: bool
    source: str

    def latency(self, layers: Layers) -> PerLayer:
        """Seconds per layer; only the widths and repeats of `layers` are read.

        Args:
          layers: The tabulated layers at other widths; beyond the table the nearest tabulated width counts.

        Returns:
          Seconds, (layers,); a pure function that may be traced.

        Raises:
          ValueError: If the number of layers is not the table's.
        """
        _same_length(layers, self.seconds)
        width_in, width_out = layers.inputs * layers.groups, layers.outputs
        xp = namespace(width_in, width_out)
        low_in, share_in = _position(xp, self.inputs, width_in)
        low_out, share_out = _position(xp, self.outputs, width_out)
        seconds, row = xp.asarray(self.seconds, dtype=xp.result_type(float)), np.arange(len(layers))
        corner = {(i, j): seconds[row, low_in + i, low_out + j] for i in (0, 1) for j in (0, 1)}
        near = corner[0, 0] * (1 - share_out) + corner[0, 1] * share_out
        far = corner[1, 0] * (1 - share_out) + corner[1, 1] * share_out
        return layers.repeats * (near * (1 - share_in) + far * share_in)


def tabulate(layers: Layers, platform: Platform, *, points: int = 5, multiple: int = 8) -> Table:
    """Tabulates a platform over the widths of every layer, so that a measured one can be searched by `jax.vmap`.

    Args:
      layers: Full-width layers; bits and densities are kept.
      platform: What to ask; all layers and widths go in one call.
      points: Widths per axis, evenly spaced up to the full one.
      multiple: Widths are rounded up to multiples of this.

    Returns:
      The table.

    Raises:
      ValueError: If `points` is below 2 or `multiple` below 1.

    >>> from compressjax import cost
    >>> net = cost.layers(lambda w, x: x @ w, np.ones((32, 64)), np.ones((1, 32)))
    >>> table = tabulate(net, cost.Roofline(peak=1e9), points=3)
    >>> table.outputs
    array([[24., 48., 64.]])
    >>> half = net.replace(outputs=36.0)
    >>> bool(np.allclose(table.latency(half), cost.Roofline(peak=1e9).latency(half)))
    True
    """
    if points < 2 or multiple < 1:
        raise ValueError(f"points={points} must be at least 2 and multiple={multiple} at least 1.")
    columns = {name: np.asarray(getattr(layers, name), np.float64) for name in ("inputs", "outputs", "groups")}
    depthwise = (columns["groups"] > 1) & (columns["inputs"] == 1)
    shares = np.arange(1, points + 1) / points

    def grid(full: Numbers) -> Numbers:
        return np.minimum(ceil_div(np.outer(full, shares), multiple) * multiple, full[:, None])

    # A depthwise layer has one width, its groups; along outputs its table is constant.
    inputs = grid(np.where(depthwise, columns["groups"], columns["inputs"]))
    outputs = grid(columns["outputs"])
    variants = []
    for i in range(points):
        for j in range(points):
            groups = np.where(depthwise, inputs[:, i], columns["groups"])
            each = columns["outputs"] / columns["groups"]
            variants.append(
                layers.replace(
                    repeats=1.0,
                    groups=groups,
                    inputs=np.where(depthwise, 1.0, inputs[:, i]),
                    outputs=np.where(depthwise, each * groups, ceil_div(outputs[:, j], groups) * groups),
                )
            )
    times = np.asarray(platform.latency(concatenate(variants)), np.float64).reshape(points, points, len(layers))
    width = inputs * np.where(depthwise, 1.0, columns["groups"])[:, None]
    source = f"table of {points} x {points} widths per layer; {platform.source}"
    return Table(width, outputs, np.moveaxis(times, 2, 0), platform.modelled, source)


def _position(xp: Any, grid: Numbers, at: Any) -> tuple[Any, Any]:
    """Between which two tabulated widths a width lies, and where; widths outside go to the nearest end."""
    low = xp.clip(xp.sum(grid <= at[:, None], axis=1) - 1, 0, grid.shape[1] - 2)
    row = np.arange(len(grid))
    grid = xp.asarray(grid, dtype=xp.result_type(float))
    begin, end = grid[row, low], grid[row, low + 1]
    span = end - begin  # zero where rounding made neighbours equal
    return low, xp.where(span > 0, xp.clip((at - begin) / xp.where(span > 0, span, 1.0), 0.0, 1.0), 0.0)


@dataclass(frozen=True, eq=False)
class BitTable:
    """Seconds of every layer over bit-widths, as HAQ's simulators give them.

    Attributes:
      seconds: Entry [layer, w - 1, a - 1] at w weight bits and a activation bits.
      modelled: Whether the times are modelled.
      source: Where they come from.

    >>> from compressjax import cost
    >>> table = BitTable(np.arange(1.0, 5.0).reshape(1, 2, 2), True, "toy")
    >>> net = cost.layers(lambda w, x: x @ w, np.ones((16, 12)), np.ones((1, 16)))
    >>> table.latency(net.replace(weight_bits=2, activation_bits=1))
    array([3.])
    """

    seconds: Float[np.ndarray, "layers weights activations"]
    modelled: bool
    source: str

    def latency(self, layers: Layers) -> PerLayer:
        """Seconds per layer; only the bits of `layers` are read, rounded up and clipped to the table.

        Args:
          layers: As many as the table has.

        Returns:
          Seconds, (layers,); a pure function that may be traced.

        Raises:
          ValueError: If the number of layers is not the table's.
        """
        _same_length(layers, self.seconds)
        xp = namespace(layers.weight_bits, layers.activation_bits)
        _, weights, activations = self.seconds.shape
        w = xp.clip(xp.ceil(layers.weight_bits), 1, weights).astype(int) - 1
        a = xp.clip(xp.ceil(layers.activation_bits), 1, activations).astype(int) - 1
        return xp.asarray(self.seconds, dtype=xp.result_type(float))[np.arange(len(layers)), w, a]


def _same_length(layers: Layers, seconds: Numbers) -> None:
    if len(layers) != len(seconds):
        raise ValueError(f"The table has {len(seconds)} layers, not {len(layers)}: it belongs to another network.")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class LookUp:
    """Values of listed designs by genome, for example latencies of whole architectures.

    Attributes:
      genomes: Listed designs, integers (designs, genes); distinct rows.
      values: (designs,).

    >>> table = LookUp(np.array([[0, 1], [1, 1]]), np.array([2.5, 4.0]))
    >>> jax.vmap(table)(jnp.array([[1, 1], [0, 0]]))
    Array([ 4., nan], dtype=float32)
    """

    genomes: Any
    values: Any

    def __call__(self, genome: Int[Array, " genes"] | Int[np.ndarray, " genes"]) -> Float[Array, ""]:
        """The value of one design.

        Args:
          genome: Integers (genes,); may be traced.

        Returns:
          Its value; not-a-number if it is not listed.
        """
        same = jnp.all(jnp.asarray(self.genomes) == jnp.asarray(genome)[None, :], axis=1)
        return jnp.where(same.any(), jnp.asarray(self.values, float)[jnp.argmax(same)], jnp.nan)
