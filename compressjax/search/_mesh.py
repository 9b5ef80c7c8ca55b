r"""Populations over a mesh: each device evaluates its share of the candidates.

The population is padded to a multiple of the devices by repeating its last member, and the extra results are cut off;
nothing is refused for its size.  `jax.shard_map` runs the evaluation on each device's share, and the fitness is
gathered to all devices, so that every process of a `jax.distributed` program sees all of it and tells its strategy
the same.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

Batch = Callable[[Any, Any], Array]


def sharded(evaluate: Batch, mesh: Mesh, axis: str = "population") -> Batch:
    """The same evaluation, with the candidates spread over one axis of a mesh.

    Args:
      evaluate: ``(designs, key) -> fitness``, pure JAX, that treats each candidate by itself: a device sees its share
        of the designs only, all with the same key (or its share of the keys, with ``common=False``).
      mesh: A mesh with automatic axes, as ``jax.make_mesh((8,), ("population",), axis_types=(AxisType.Auto,))``; its
        other axes hold copies.
      axis: The name of the axis.

    Returns:
      A function of the same form for any number of candidates, for an `Evaluator`.

    Raises:
      ValueError: If the mesh has no such axis, or one of its axes is not automatic.

    >>> mesh = jax.make_mesh((jax.device_count(),), ("population",), axis_types=(AxisType.Auto,))
    >>> evaluate = sharded(lambda designs, key: designs["x"] ** 2, mesh)
    >>> evaluate({"x": jnp.arange(5.0)}, jax.random.key(0))
    Array([ 0.,  1.,  4.,  9., 16.], dtype=float32)
    """
    if axis not in mesh.shape:
        raise ValueError(f"The mesh has the axes {', '.join(map(str, mesh.axis_names))}, none is {axis!r}.")
    if any(kind != AxisType.Auto for kind in mesh.axis_types):
        raise ValueError(
            "The mesh must have automatic axes: make it with jax.make_mesh(..., axis_types=(AxisType.Auto,))."
        )
    devices = mesh.shape[axis]

    def run(designs: Any, key: Any) -> Array:
        count = jax.tree.leaves(designs)[0].shape[0]
        split = PartitionSpec(axis)
        each = key.ndim == 1  # one key per candidate
        if each:
            data = _padded(jax.random.key_data(key), devices)
        padded = jax.tree.map(lambda leaf: _padded(leaf, devices), designs)
        local = jax.shard_map(
            lambda share, words: evaluate(share, jax.random.wrap_key_data(words)),
            mesh=mesh,
            in_specs=(split, split if each else PartitionSpec()),
            out_specs=split,
            check_vma=False,  # what a loop over candidates starts from is the same on all devices, which is right
        )
        found = local(padded, data if each else jax.random.key_data(key))
        return jax.lax.with_sharding_constraint(found, NamedSharding(mesh, PartitionSpec()))[:count]

    return run


def _padded(leaf: Any, devices: int) -> Array:
    short = -leaf.shape[0] % devices
    return jnp.concatenate([leaf, jnp.broadcast_to(leaf[-1:], (short, *leaf.shape[1:]))]) if short else leaf
