"""Counts: MACs, parameters, activations and bytes, per layer.  Totals are sums over the last axis.

    macs        = repeats x batch x positions x window x inputs x outputs     (valid_taps for positions x window)
    parameters  = stored x window x inputs x outputs
    activations = repeats x batch x output_positions x outputs
    bytes       = stored x (window x inputs x outputs) x density x bits / 8  + a bitmap of the blocks if density < 1

The literature counts *nominal* taps: each position pays for the whole window, padding included.  XLA's
``cost_analysis`` leaves padded taps out, as `macs` does with ``valid=True``.  Biases, normalizations, activations and
embedding look-ups are no contractions and are not counted here.
"""

from typing import NamedTuple

import numpy as np

from compressjax.cost._layers import Layers, PerLayer, namespace


def macs(layers: Layers, *, valid: bool = False) -> PerLayer:
    """Multiply-accumulate operations per layer, dense.

    Args:
      layers: The layers; their density is not applied.
      valid: Leave out taps that meet padding, as XLA counts.

    Returns:
      (layers,).

    >>> from compressjax import cost
    >>> net = cost.layers(
    ...     lambda w, x: x @ w["a"] @ w["b"], {"a": np.ones((3, 4)), "b": np.ones((4, 2))}, np.ones((5, 3))
    ... )
    >>> macs(net), macs(net).sum()
    (array([60., 40.]), np.float64(100.0))
    """
    taps = layers.valid_taps if valid else layers.positions * layers.window
    return layers.repeats * layers.batch * taps * layers.inputs * layers.outputs


def parameters(layers: Layers) -> PerLayer:
    """Weights per layer, dense; a weight that several layers share counts in the first.

    Args:
      layers: The layers; their density is not applied.

    Returns:
      (layers,).

    >>> from compressjax import cost
    >>> tied = cost.layers(lambda w, x: x @ w @ w.T, np.ones((3, 4)), np.ones((5, 3)))
    >>> parameters(tied)
    array([12.,  0.])
    """
    return layers.stored * elements(layers)


def activations(layers: Layers) -> PerLayer:
    """Entries of the outputs per layer, over the whole batch.

    Args:
      layers: The layers.

    Returns:
      (layers,).

    >>> from compressjax import cost
    >>> activations(cost.layers(lambda w, x: x @ w, np.ones((3, 4)), np.ones((5, 3))))
    array([20.])
    """
    return layers.repeats * layers.batch * layers.output_positions * layers.outputs


def weight_bytes(layers: Layers) -> PerLayer:
    """Bytes of the kept weights per layer at `weight_bits`, and of one position bit per block where any is pruned.

    An estimate that is differentiable in bits and density; `compressjax.storage.account` counts the bits of real files.

    Args:
      layers: The layers.

    Returns:
      (layers,), fractions of bytes included.

    >>> from compressjax import cost
    >>> net = cost.layers(lambda w, x: x @ w, np.ones((16, 16), np.float32), np.ones((1, 16), np.float32))
    >>> weight_bytes(net), weight_bytes(net.replace(weight_bits=8, density=0.25, block_outputs=4))
    (array([1024.]), array([72.]))
    """
    return layers.stored * bytes_of_weight(layers)


def elements(layers: Layers) -> PerLayer:
    """Elements of the weight (second operand) that one execution reads."""
    return layers.window * layers.inputs * layers.outputs


def bytes_of_weight(layers: Layers) -> PerLayer:
    """Bytes of the weight (second operand) that one execution reads."""
    dense = elements(layers)
    xp = namespace(dense, layers.density)
    block = xp.minimum(layers.block_inputs, layers.inputs) * xp.minimum(layers.block_outputs, _per_group(layers))
    bitmap = xp.where(layers.density < 1, dense / block, 0.0)
    return (dense * layers.density * layers.weight_bits + bitmap) / 8


def bytes_of_activations(layers: Layers) -> PerLayer:
    """Bytes of the inputs and outputs of one execution."""
    entries = layers.input_positions * layers.inputs * layers.groups + layers.output_positions * layers.outputs
    return layers.batch * entries * layers.activation_bits / 8


def _per_group(layers: Layers) -> PerLayer:
    return layers.outputs / layers.groups


class Count(NamedTuple):
    """What `count` returns: arrays (layers,), and a table when printed."""

    layers: Layers
    macs: PerLayer
    valid_macs: PerLayer
    parameters: PerLayer
    activations: PerLayer
    weight_bytes: PerLayer

    def __str__(self) -> str:
        columns = ("MACs", "valid MACs", "weights", "activations", "weight bytes")
        values = np.stack([np.asarray(column, np.float64) for column in self[1:]])
        names = [*self.layers.names, "total"]
        rows = np.concatenate([values, values.sum(1, keepdims=True)], 1).T
        shapes = [*_shapes(self.layers), ""]
        cells = [[f"{value:,.0f}" for value in row] for row in rows]
        return table(("layer", "shape", *columns), [[n, s, *c] for n, s, c in zip(names, shapes, cells, strict=True)])


def count(layers: Layers) -> Count:
    """All counts of a network; prints as a table.

    Args:
      layers: From `compressjax.cost.layers`.

    Returns:
      Arrays per layer.

    >>> import jax
    >>> from compressjax import cost, zoo
    >>> model = zoo.build("lenet5")
    >>> params = jax.eval_shape(model.init, jax.random.key(0))
    >>> print(count(cost.layers(model.apply, params, np.zeros((1, 28, 28, 1), np.float32))))
    layer         shape                     MACs  valid MACs  weights  activations  weight bytes
    conv1/kernel  1x576 of 5x5x1->20     288,000     288,000      500       11,520         2,000
    conv2/kernel  1x64 of 5x5x20->50   1,600,000   1,600,000   25,000        3,200       100,000
    fc1/kernel    1x1 of 800->500        400,000     400,000  400,000          500     1,600,000
    fc2/kernel    1x1 of 500->10           5,000       5,000    5,000           10        20,000
    total                              2,293,000   2,293,000  430,500       15,230     1,722,000
    """
    return Count(
        layers,
        macs(layers),
        macs(layers, valid=True),
        parameters(layers),
        activations(layers),
        weight_bytes(layers),
    )


def _shapes(layers: Layers) -> list[str]:
    """What a layer looks like, in few letters: batch x positions of window x inputs -> outputs."""
    out = []
    for i, geometry in enumerate(layers.geometry):
        window = "".join(f"{n}x" for n in geometry.kernel) if geometry else ""
        grouped = f" in {layers.groups[i]:.0f} groups" if layers.groups[i] != 1 else ""
        times = f" x{layers.repeats[i]:.0f}" if layers.repeats[i] != 1 else ""
        out.append(
            f"{layers.batch[i]:.0f}x{layers.positions[i]:.0f} of {window}{layers.inputs[i]:.0f}"
            f"->{layers.outputs[i]:.0f}{grouped}{times}"
        )
    return out


def table(header: tuple[str, ...], rows: list[list[str]], left: int = 2) -> str:
    """Text in columns, the first `left` of them flush left.

    >>> print(table(("name", "n"), [["a", "10"], ["longer", "2"]], left=1))
    name     n
    a       10
    longer   2
    """
    lines = [list(header), *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
