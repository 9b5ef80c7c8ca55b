"""What the host runs for a layer: dense convolutions and products, compressed rows, and compacted blocks.

The sparse kernels multiply an activation matrix (m, k) by a pruned weight (k, n):

- single weights: SciPy's compressed sparse rows, one thread;
- blocks of n_b outputs: the same k' = density x k inputs are kept for all outputs of a block, so that every block is a
  small dense product after a gather; with one block for all outputs this is a smaller matrix.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from compressjax.cost._layers import Geometry, Layers

_SPACES = {1: ("NWC", "WIO"), 2: ("NHWC", "HWIO"), 3: ("NDHWC", "DHWIO")}


class Spec(NamedTuple):
    """One layer in plain numbers; hashable, and the key of the host's cache."""

    kind: str
    geometry: Geometry | None
    batch: int
    positions: int
    inputs: int
    outputs: int
    groups: int
    bits: int
    density: float
    block_inputs: int
    block_outputs: int


def specs(layers: Layers) -> list[Spec]:
    """The specification of every layer.

    Raises:
      ValueError: If the layers are being traced, or have sizes that are no positive whole numbers.
    """
    columns = {}
    for field in ("batch", "positions", "inputs", "outputs", "groups", "block_inputs", "block_outputs"):
        values = getattr(layers, field)
        if isinstance(values, jax.core.Tracer):
            raise ValueError("A measurement cannot be traced: tabulate the platform first, and trace the table.")
        columns[field] = np.asarray(values, np.float64)
        for name, value in zip(layers.names, columns[field], strict=True):
            if value < 1 or value != round(value):
                raise ValueError(f"{name} has {field}={value}: only whole numbers, 1 or more, can be measured.")
    bits = np.maximum(np.asarray(layers.weight_bits), np.asarray(layers.activation_bits))
    density = np.asarray(layers.density, np.float64)
    out = []
    for i in range(len(layers)):
        sizes = {field: int(column[i]) for field, column in columns.items()}
        width = 8 if bits[i] <= 8 else 16 if bits[i] <= 16 else 32
        if density[i] >= 1:
            sizes |= {"block_inputs": 1, "block_outputs": 1}
        out.append(
            Spec(
                kind=layers.kinds[i],
                geometry=layers.geometry[i],
                bits=width,
                density=min(float(density[i]), 1.0),
                **sizes,
            )
        )
    return out


def kernel(spec: Spec, name: str) -> Callable[[], Any]:
    """A call that runs the layer once, on random data.

    Args:
      spec: The layer.
      name: Its name, for errors.

    Returns:
      A function without arguments.

    Raises:
      ValueError: If there is no kernel for the layer.
    """
    rng = np.random.default_rng(0)
    if spec.density >= 1:
        return _conv(spec, rng) if spec.geometry is not None else _dot(spec, rng)
    if spec.geometry is not None or spec.groups != 1 or spec.kind != "dense":
        raise ValueError(
            f"{name} is a pruned layer of kind {spec.kind!r} in {spec.groups} groups, for which the host has no sparse "
            "kernel: take as_gemm(layers), and leave grouped layers and products dense."
        )
    rows = spec.batch * spec.positions
    if spec.block_outputs == 1 and spec.block_inputs == 1:
        return _compressed_rows(spec, rows, name, rng)
    return _compacted(spec, rows, rng)


def _random(rng: np.random.Generator, shape: tuple[int, ...], bits: int) -> Any:
    if bits == 8:
        return jnp.asarray(rng.integers(-127, 128, shape, dtype=np.int8))
    return jnp.asarray(rng.standard_normal(shape, dtype=np.float32), jnp.bfloat16 if bits == 16 else jnp.float32)


def _wide(bits: int) -> Any:
    """What products are summed in."""
    return jnp.int32 if bits == 8 else jnp.float32


def _conv(spec: Spec, rng: np.random.Generator) -> Callable[[], Any]:
    geometry = spec.geometry
    assert geometry is not None
    data, weight = _SPACES[len(geometry.spatial)]
    x = _random(rng, (spec.batch, *geometry.spatial, spec.inputs * spec.groups), spec.bits)
    w = _random(rng, (*geometry.kernel, spec.inputs, spec.outputs), spec.bits)

    @jax.jit
    def run(x: Any, w: Any) -> Any:
        return lax.conv_general_dilated(
            x,
            w,
            window_strides=geometry.strides,
            padding=geometry.padding,
            lhs_dilation=geometry.lhs_dilation,
            rhs_dilation=geometry.rhs_dilation,
            dimension_numbers=(data, weight, data),
            feature_group_count=spec.groups,
            preferred_element_type=_wide(spec.bits),
        )

    return lambda: run(x, w)


def _dot(spec: Spec, rng: np.random.Generator) -> Callable[[], Any]:
    group = (spec.groups,) if spec.groups > 1 else ()
    x = _random(rng, (*group, spec.batch * spec.positions, spec.inputs), spec.bits)
    w = _random(rng, (*group, spec.inputs, spec.outputs // spec.groups), spec.bits)
    run = jax.jit(lambda x, w: jnp.matmul(x, w, preferred_element_type=_wide(spec.bits)))
    return lambda: run(x, w)


def _compressed_rows(spec: Spec, rows: int, name: str, rng: np.random.Generator) -> Callable[[], Any]:
    import scipy.sparse  # type: ignore[import-untyped]  # JAX needs SciPy as well

    if spec.bits != 32:
        raise ValueError(f"{name}: compressed rows are measured at 32 bits, not {spec.bits}: prune in blocks.")
    w = rng.standard_normal((spec.outputs, spec.inputs), dtype=np.float32)
    kept = np.zeros(w.size, bool)
    kept[rng.permutation(w.size)[: max(1, round(w.size * spec.density))]] = True
    sparse = scipy.sparse.csr_array(np.where(kept.reshape(w.shape), w, np.float32(0)))
    x = rng.standard_normal((spec.inputs, rows), dtype=np.float32)
    return lambda: sparse @ x


def _compacted(spec: Spec, rows: int, rng: np.random.Generator) -> Callable[[], Any]:
    runs = -(-spec.inputs // spec.block_inputs)
    kept_runs = max(1, round(runs * spec.density))
    block = min(spec.block_outputs, spec.outputs)
    blocks = -(-spec.outputs // block)
    chosen = np.stack([np.sort(rng.permutation(runs)[:kept_runs]) for _ in range(blocks)])
    within = np.arange(spec.block_inputs)
    index = jnp.asarray((chosen[:, :, None] * spec.block_inputs + within).reshape(blocks, -1) % spec.inputs)
    x = _random(rng, (rows, spec.inputs), spec.bits)
    w = _random(rng, (blocks, index.shape[1], block), spec.bits)

    @jax.jit
    def run(x: Any, w: Any, index: Any) -> Any:
        wide = _wide(spec.bits)
        if blocks == 1:
            return jnp.matmul(x[:, index[0]], w[0], preferred_element_type=wide)
        return jnp.einsum("rjk,jkn->rjn", x[:, index], w, preferred_element_type=wide)

    return lambda: run(x, w, index)
