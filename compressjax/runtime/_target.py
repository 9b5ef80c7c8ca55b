"""Trees for other programs: another platform, another implementation, several devices.

The weights stay as they are; what changes is what is written on them, or where they lie.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import pallas_kernels as pk
from compressjax import trees
from compressjax.runtime._pack import Packed, is_packed


def target(tree: trees.Tree, platform: str | None = None, implementation: str = "auto") -> trees.Tree:
    """The tree with every packed leaf bound for a platform and an implementation.

    Args:
      tree: Packed parameters; other leaves pass through.
      platform: "cpu", "gpu" or "tpu"; default: JAX's default backend.
      implementation: "auto", or one of `pallas_kernels.IMPLEMENTATIONS`.

    Returns:
      The tree; a product that the implementation cannot compute is refused when it is compiled.

    Raises:
      ValueError: If there is no such implementation.

    >>> from compressjax.runtime import As, pack
    >>> tree = target(pack({"w": jnp.eye(4)}, {"w": As(block=(2, 2))}), "cpu", "xla")
    >>> tree["w"].matrix.implementation
    'xla'
    """
    if implementation != "auto" and implementation not in pk.IMPLEMENTATIONS:
        known = ", ".join(pk.IMPLEMENTATIONS)
        raise ValueError(f"There is no implementation {implementation!r}; choose auto or one of {known}.")
    name = platform or jax.default_backend()

    def one(node: Any) -> Any:
        if not is_packed(node):
            return node
        required = implementation != "auto"
        return Packed(pk.Prepared(node.weights, implementation, name, "asked for", required), node.shape)

    return jax.tree.map(one, tree, is_leaf=is_packed)


def shard(tree: trees.Tree, mesh: Mesh, axis: str) -> trees.Tree:
    """Lays packed leaves over one axis of a mesh, for programs under `jax.jit`; everything else is replicated.

    Block lists are split by blocks (lengthened by zero blocks to a multiple of the devices), so that each device
    multiplies with its share and the partial sums are added; other forms are split by outputs where these divide.  The
    slices that `pack(batch=...)` makes of blocks on the CPU are replicated.  The compiler partitions plain operations
    only: sharded leaves multiply by "xla".

    Args:
      tree: Packed parameters.
      mesh: A mesh of devices.
      axis: The name of one of its axes.

    Returns:
      The same tree, on the devices of the mesh.

    Raises:
      ValueError: If the mesh has no such axis.

    >>> from compressjax.runtime import As, pack
    >>> mesh = Mesh(np.array(jax.devices()[:1]), ("model",))
    >>> w = shard(pack({"w": jnp.eye(6)}, {"w": As(block=(2, 2))}), mesh, "model")["w"].weights
    >>> tuple(w.values.sharding.spec)
    ('model', None, None)
    """
    if axis not in mesh.shape:
        raise ValueError(f"The mesh has no axis {axis!r}; it has {', '.join(map(str, mesh.shape))}.")
    size = mesh.shape[axis]

    def put(array: Any, along: int | None) -> jax.Array:
        names: list[str | None] = [None] * array.ndim
        if along is not None and array.shape[along] % size == 0:
            names[along] = axis
        return jax.device_put(array, NamedSharding(mesh, PartitionSpec(*names)))

    def weights(w: Any) -> Any:
        if isinstance(w, pk.BlockSparse):
            w = _lengthened(w, size)
            # A codebook has one axis and goes everywhere.
            lists: dict[str, Any] = {name: put(getattr(w, name), 0) for name in ("rows", "columns", "live")}
            lists["values"] = jax.tree.map(lambda leaf: put(leaf, 0 if leaf.ndim == 3 else None), w.values)
            rest = {name: put(getattr(w, name), None) for name in ("starts", "order", "order_starts")}
            return dataclasses.replace(w, **lists, **rest)
        if isinstance(w, pk.Dense):
            return jax.tree.map(lambda leaf: put(leaf, 0 if w.transposed else -1), w)
        if isinstance(w, pk.Sliced):
            return jax.tree.map(lambda leaf: put(leaf, None), w)
        # Codes, scales, planes: outputs are last.  Lists of indices and codebooks have one axis and go everywhere.
        return jax.tree.map(lambda leaf: put(leaf, -1 if leaf.ndim > 1 else None), w)

    def one(node: Any) -> Any:
        if not is_packed(node):
            return put(jnp.asarray(node), None)
        platform = mesh.devices.flat[0].platform
        platform = "gpu" if platform in ("cuda", "rocm") else platform
        return Packed(pk.Prepared(weights(node.weights), "xla", platform, f"sharded over {axis}"), node.shape)

    return jax.tree.map(one, tree, is_leaf=is_packed)


def _lengthened(w: pk.BlockSparse, multiple: int) -> pk.BlockSparse:
    """The same matrix with a number of blocks that `multiple` divides: zero blocks at the place of the last one."""
    count = w.rows.shape[0]
    more = -count % multiple
    if not more:
        return w

    def pad(leaf: Any) -> Any:
        return jnp.pad(leaf, [(0, more), *[(0, 0)] * (leaf.ndim - 1)])

    if isinstance(w.values, pk.Quantized):
        v = w.values  # a scale of zero makes zeros of any code
        values: Any = pk.Quantized(pad(v.codes), pad(v.scale), v.codebook, (count + more, *v.shape[1:]), v.bits)
    else:
        values = pad(w.values)
    rows, columns = (np.pad(np.asarray(index), (0, more), "edge") for index in (w.rows, w.columns))
    return pk.BlockSparse.from_blocks(values, rows, columns, w.shape, np.pad(np.asarray(w.live), (0, more)))
