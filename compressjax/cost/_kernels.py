"""What the host runs for a layer: dense convolutions and products, compressed rows, and compacted blocks.

The sparse kernels multiply an activation matrix (m, k) by a pruned weight (k, n):

- single weights: SciPy's compressed sparse rows, one thread;
- blocks of n_b outputs: the same k' = density x k inputs are kept for all outputs of a block, so that every block is a
  small dense product after a gather; with one block for all outputs this is a smaller matrix.

For a pruned convolution the activation matrix is cut out of the image first, one strided slice per kernel tap; that is
part of what is timed.
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
    dilated = spec.geometry is not None and any(step > 1 for step in spec.geometry.lhs_dilation)
    if dilated or spec.groups != 1 or spec.kind == "product":
        raise ValueError(
            f"{name} is pruned, but the host has sparse kernels only for dense layers and for convolutions that are "
            "neither grouped nor transposed: leave it dense."
        )
    if spec.block_outputs == 1 and spec.block_inputs == 1:
        return _compressed_rows(spec, name, rng)
    return _compacted(spec, rng)


def _activations(spec: Spec, rng: np.random.Generator) -> tuple[Any, Callable[[Any], Any]]:
    """Random input, and the traceable function that makes the matrix (rows, k) of it."""
    geometry = spec.geometry
    if geometry is None:
        return _random(rng, (spec.batch * spec.positions, spec.inputs), spec.bits), lambda x: x
    spread = [(taps - 1) * step + 1 for taps, step in zip(geometry.kernel, geometry.rhs_dilation, strict=True)]

    def patches(x: Any) -> Any:
        padded = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*side, 0) for side in geometry.padding), (0, 0, 0)))
        places = [
            (n - reach) // stride + 1
            for n, reach, stride in zip(padded.shape[1:-1], spread, geometry.strides, strict=True)
        ]
        slices = []
        for tap in np.ndindex(*geometry.kernel):
            start = [t * step for t, step in zip(tap, geometry.rhs_dilation, strict=True)]
            stop = [s + (n - 1) * stride + 1 for s, n, stride in zip(start, places, geometry.strides, strict=True)]
            slices.append(
                lax.slice(padded, (0, *start, 0), (len(x), *stop, x.shape[-1]), (1, *geometry.strides, 1)).reshape(
                    -1, x.shape[-1]
                )
            )
        return jnp.concatenate(slices, axis=1)

    return _random(rng, (spec.batch, *geometry.spatial, spec.inputs), spec.bits), patches


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


def _compressed_rows(spec: Spec, name: str, rng: np.random.Generator) -> Callable[[], Any]:
    import scipy.sparse  # JAX needs SciPy as well

    if spec.bits != 32:
        raise ValueError(f"{name}: compressed rows are measured at 32 bits, not {spec.bits}: prune in blocks.")
    x, matrix = _activations(spec, rng)
    matrix = jax.jit(lambda x, matrix=matrix: matrix(x).T)
    depth = len(jax.eval_shape(matrix, x))
    w = rng.standard_normal((spec.outputs, depth), dtype=np.float32)
    kept = np.zeros(w.size, bool)
    kept[rng.permutation(w.size)[: max(1, round(w.size * spec.density))]] = True
    sparse = scipy.sparse.csr_array(np.where(kept.reshape(w.shape), w, np.float32(0)))
    if spec.geometry is None:
        columns = np.ascontiguousarray(np.asarray(x).T)
        return lambda: sparse @ columns
    return lambda: sparse @ np.asarray(matrix(x))


def _compacted(spec: Spec, rng: np.random.Generator) -> Callable[[], Any]:
    x, matrix = _activations(spec, rng)
    depth = jax.eval_shape(matrix, x).shape[1]
    runs = -(-depth // spec.block_inputs)
    kept_runs = max(1, round(runs * spec.density))
    block = min(spec.block_outputs, spec.outputs)
    blocks = -(-spec.outputs // block)
    chosen = np.stack([np.sort(rng.permutation(runs)[:kept_runs]) for _ in range(blocks)])
    within = np.arange(spec.block_inputs)
    index = jnp.asarray((chosen[:, :, None] * spec.block_inputs + within).reshape(blocks, -1) % depth)
    w = _random(rng, (blocks, index.shape[1], block), spec.bits)

    @jax.jit
    def run(x: Any, w: Any, index: Any) -> Any:
        wide, rows = _wide(spec.bits), matrix(x)
        if blocks == 1:
            return jnp.matmul(rows[:, index[0]], w[0], preferred_element_type=wide)
        return jnp.einsum("rjk,jkn->rjn", rows[:, index], w, preferred_element_type=wide)

    return lambda: run(x, w, index)
