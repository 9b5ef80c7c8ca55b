"""`Layers`: the contractions of a network as a struct of arrays, one entry per layer.

A layer is one ``dot_general`` or ``conv_general_dilated``.  All numbers that a cost may depend on (widths, bit-widths,
densities) are array data, so that every cost is a pure function of a `Layers`, a population of designs is one
`jax.vmap`, and smooth costs have gradients.  Names and geometry are static.

`layers` fills the arrays with NumPy float64, which counts exactly up to 2^53; under `jax.jit` or `jax.vmap` they become
JAX arrays of the default precision.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from compressjax import trees
from compressjax.cost._check import NOT_NEGATIVE, PART, POSITIVE, check

# A number per layer: NumPy outside of JAX transformations, JAX inside.
PerLayer = Float[np.ndarray, " layers"] | Float[Array, " layers"]


class Geometry(NamedTuple):
    """How a convolution moves over space; every entry has one item per spatial axis."""

    spatial: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    lhs_dilation: tuple[int, ...]
    rhs_dilation: tuple[int, ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Layers:
    """What a network computes, layer by layer.  Made by `layers`; changed by `replace`.

    For a matrix product the window is 1.  In a product of two activations (attention scores) the batch axes of the
    product count as groups and the second operand stands where the weight would.

    Attributes:
      names: Path of the parameter a layer multiplies with; without one, where the operation stands in the program.
      kinds: ``"conv"``, ``"dense"`` or ``"product"`` (of two activations).
      geometry: Of the convolutions; None for others.
      weight_operands: Which operand of the operation is the weight, 0 or 1.
      repeats: Executions: the length of the scans around it.
      batch: Examples.
      positions: Places where the window is applied: output positions; for a transposed convolution input positions.
      input_positions: Spatial size of the input.
      output_positions: Spatial size of the output.
      window: Kernel taps.
      inputs: Input channels *per group*.
      outputs: Output channels over all groups.
      groups: Number of groups; inputs x groups is the width of the input.
      valid_taps: (position, tap) pairs that meet the input and not padding; without padding positions x window.
      stored: Parameters of this layer over elements of its weight: 1; the scan's length if the weight is scanned over;
        0 for products and for a weight that an earlier layer has counted.
      weight_bits: Bits per weight (second operand).
      activation_bits: Bits per input and output entry.
      density: Share of the weights that is kept.
      block_inputs: Input channels of the blocks in which weights are pruned; 1 for single weights.
      block_outputs: Output channels of these blocks.

    >>> from compressjax import cost
    >>> net = cost.layers(lambda w, x: x @ w["fc"], {"fc": jnp.ones((3, 4))}, jnp.ones((5, 3)))
    >>> net.names, net.inputs, net.outputs, net.batch
    (('fc',), array([3.]), array([4.]), array([5.]))
    """

    names: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    kinds: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    geometry: tuple[Geometry | None, ...] = dataclasses.field(metadata={"static": True})
    weight_operands: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    # Any, because JAX rebuilds pytrees with placeholders for their leaves.
    repeats: Any
    batch: Any
    positions: Any
    input_positions: Any
    output_positions: Any
    window: Any
    inputs: Any
    outputs: Any
    groups: Any
    valid_taps: Any
    stored: Any
    weight_bits: Any
    activation_bits: Any
    density: Any
    block_inputs: Any
    block_outputs: Any

    def __len__(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        from compressjax.cost._count import count

        return str(count(self))

    def replace(self, **changes: Any) -> "Layers":
        """A copy with some numeric fields replaced.

        Args:
          **changes: Field to a number for all layers, an array (layers,), or rules: an ordered mapping from glob
            pattern over `names` to a number; layers that no pattern matches keep theirs.

        Returns:
          The copy.

        Raises:
          ValueError: If there is no such numeric field, an array has another length, a pattern has no effect, or a
            number that is not traced is out of range: densities lie in [0, 1]; bits and block sizes are above 0; no
            size is negative.

        >>> from compressjax import cost
        >>> params = {"a": jnp.ones((3, 4)), "b": jnp.ones((4, 2))}
        >>> net = cost.layers(lambda w, x: x @ w["a"] @ w["b"], params, jnp.ones((1, 3)))
        >>> net.replace(weight_bits={"b": 8}).weight_bits
        array([32.,  8.])
        """
        for field, value in changes.items():
            if field not in FIELDS:
                raise ValueError(f"Layers have no numeric field {field!r}. Fields: {', '.join(FIELDS)}.")
            changes[field] = self._filled(field, value)
        return dataclasses.replace(self, **changes)

    def _filled(self, field: str, value: Any) -> Any:
        within = RANGES.get(field, NOT_NEGATIVE)
        if isinstance(value, Mapping):
            for pattern, number in value.items():
                if np.shape(number):
                    raise ValueError(
                        f"{field} of {pattern!r} has shape {np.shape(number)}: give one number, and use jax.vmap for a "
                        "population."
                    )
                if number is not None:
                    check(f"{field} of {pattern!r}", number, within)
            new = trees.assign(value, dict.fromkeys(self.names, 0))
            old = getattr(self, field)
            entries = [new.get(name, old[i]) for i, name in enumerate(self.names)]
            xp = namespace(old, *entries)
            return xp.stack([xp.asarray(entry, dtype=xp.result_type(float)) for entry in entries])
        if isinstance(value, (list, tuple)):
            value = np.asarray(value)
        if np.shape(value) not in ((), (len(self),)):
            raise ValueError(f"{field} has shape {np.shape(value)}, but there are {len(self)} layers: ({len(self)},).")
        check(field, value, within, self.names if np.shape(value) else ())
        if isinstance(value, jax.Array):
            return jnp.broadcast_to(value.astype(jnp.result_type(float)), (len(self),))
        return np.array(np.broadcast_to(np.asarray(value, np.float64), (len(self),)))


STATIC = tuple(field.name for field in dataclasses.fields(Layers) if field.metadata.get("static"))
FIELDS = tuple(field.name for field in dataclasses.fields(Layers) if not field.metadata.get("static"))
RANGES = {"density": PART} | dict.fromkeys(
    ("weight_bits", "activation_bits", "block_inputs", "block_outputs"), POSITIVE
)  # other fields are NOT_NEGATIVE: a group of channels, a depthwise one too, may have width 0


def concatenate(parts: Iterable[Layers]) -> Layers:
    """Several networks as one long one: costed in one call, measured in turns.

    Args:
      parts: The networks.

    Returns:
      All their layers, in order.

    >>> from compressjax import cost
    >>> net = cost.layers(lambda w, x: x @ w, jnp.ones((3, 4)), jnp.ones((1, 3)))
    >>> len(concatenate([net, net.replace(density=0.5)]))
    2
    """
    parts = list(parts)
    static = {name: sum((getattr(part, name) for part in parts), ()) for name in STATIC}
    arrays = {}
    for name in FIELDS:
        columns = [getattr(part, name) for part in parts]
        arrays[name] = namespace(*columns).concatenate(columns)
    return Layers(**static, **arrays)


def as_gemm(layers: Layers) -> Layers:
    """Convolutions as the matrix products that they are: (batch x positions, window x inputs) times weights.

    This is the shape at which sparse and dense kernels are compared; gathering the patches is left out on both sides.

    Args:
      layers: Any layers.

    Returns:
      Layers of kind ``"dense"`` with the same MACs and weights; every patch counts as input.

    >>> from compressjax import cost
    >>> net = cost.layers(
    ...     lambda w, x: jax.lax.conv(x, w, (1, 1), "VALID"), jnp.ones((4, 2, 3, 3)), jnp.ones((1, 2, 8, 8))
    ... )
    >>> gemm = as_gemm(net)
    >>> gemm.inputs, gemm.positions, cost.macs(gemm) == cost.macs(net)
    (array([18.]), array([36.]), array([ True]))
    """
    return dataclasses.replace(
        layers,
        kinds=tuple("dense" if kind == "conv" else kind for kind in layers.kinds),
        geometry=(None,) * len(layers),
        window=np.ones(len(layers)),
        valid_taps=layers.positions,
        inputs=layers.inputs * layers.window,
        input_positions=layers.positions,
        output_positions=layers.positions,
    )


def namespace(*arrays: Any) -> ModuleType:
    """NumPy if all arrays are NumPy's, so that counts stay exact; else `jax.numpy`."""
    return jnp if any(isinstance(array, jax.Array) for array in arrays) else np


def ceil_div(a: Any, b: Any) -> Any:
    """ceil(a / b) for floats that hold whole numbers, in NumPy or JAX.

    >>> ceil_div(np.array([8.0, 9.0]), 4)
    array([2., 3.])
    """
    return -(-a // b)
