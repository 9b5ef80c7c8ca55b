"""What became of every leaf: form, size, and what multiplies with it."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

import pallas_kernels as pk
from compressjax import trees
from compressjax.runtime._pack import Packed, is_packed


@dataclass(frozen=True)
class Row:
    """One packed leaf.

    Attributes:
      path: Its path.
      shape: Its shape.
      form: Its packed form, in words.
      density: Share of the weights that are stored.
      dense_bytes: Bytes of the dense leaf.
      packed_bytes: Bytes of all arrays of the packed one.
      implementation: What multiplies with it.
      reason: Why.

    >>> from compressjax.runtime import As, pack
    >>> report(pack({"w": jnp.eye(4)}, {"w": As(block=(2, 2))})).rows[0].form
    'blocks (2, 2)'
    """

    path: str
    shape: tuple[int, ...]
    form: str
    density: float
    dense_bytes: int
    packed_bytes: int
    implementation: str
    reason: str


@dataclass(frozen=True)
class Report:
    """The packed leaves of a tree; printed, a table.

    Attributes:
      rows: One per packed leaf, in the tree's order.

    >>> report({"w": jnp.eye(4)}).packed_bytes
    0
    """

    rows: tuple[Row, ...]

    @property
    def dense_bytes(self) -> int:
        """Bytes of the dense leaves together."""
        return sum(row.dense_bytes for row in self.rows)

    @property
    def packed_bytes(self) -> int:
        """Bytes of the packed leaves together."""
        return sum(row.packed_bytes for row in self.rows)

    def __str__(self) -> str:
        header = ("path", "shape", "form", "density", "dense", "packed", "ratio", "implementation", "reason")
        lines = [header, *(_cells(row) for row in self.rows)]
        lines.append(("all", "", "", "", *_bytes(self.dense_bytes, self.packed_bytes), "", ""))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        )


def report(tree: trees.Tree, *, batch: int = 1, platform: str | None = None) -> Report:
    """Lists the packed leaves of a tree.

    Args:
      tree: What `pack` returned.
      batch: Rows of the products, where no implementation was chosen when packing.
      platform: "cpu", "gpu" or "tpu", for the same leaves; default: JAX's default backend.

    Returns:
      The rows; `print` shows them as a table.

    >>> from compressjax.runtime import As, pack
    >>> print(report(pack({"w": jnp.eye(64)}, {"w": As(block=(16, 16))}), platform="cpu"))
    path  shape  form             density  dense  packed  ratio  implementation  reason
    w     64x64  blocks (16, 16)  0.25     16384  4188    3.9    xla             first that can; not measured
    all                                    16384  4188    3.9
    """
    flat = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_packed)
    return Report(tuple(_row(trees.path_string(path), leaf, batch, platform) for path, leaf in flat if is_packed(leaf)))


def form_of(matrix: Any) -> str:
    """A packed matrix in words.

    >>> form_of(pk.Quantized.from_dense(jnp.ones((4, 2))))
    'int8'
    """
    match matrix:
        case pk.Sliced():
            return f"blocks {tuple(matrix.block)} in slices"
        case pk.BlockSparse():
            inner = f" of {form_of(matrix.values)}" if isinstance(matrix.values, pk.Quantized) else ""
            return f"blocks {tuple(matrix.block)}{inner}"
        case pk.NM():
            return f"{matrix.n}:{matrix.m}"
        case pk.Channels():
            return "channels " + "x".join(map(str, matrix.values.shape))
        case pk.Quantized():
            return f"int{matrix.bits}" if matrix.codebook is None else f"{matrix.bits}-bit codebook"
    return "dense"


def _row(path: str, leaf: Packed, batch: int, platform: str | None) -> Row:
    weights = leaf.weights
    if isinstance(leaf.matrix, pk.Prepared):
        implementation, reason = leaf.matrix.implementation, leaf.matrix.reason
    else:
        x = jax.ShapeDtypeStruct((batch, weights.shape[0]), weights.dtype)
        # Auto leaves out what is built on demand; see pallas_kernels.
        able = (name for name in pk.IMPLEMENTATIONS if name != "native")
        implementation = next(name for name in able if pk.refusal(name, "matmul", x, weights, platform) is None)
        reason = "first that can; not measured"
    return Row(
        path,
        leaf.shape,
        form_of(weights),
        float(getattr(weights, "density", 1.0)),
        math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize,
        leaf.nbytes,
        implementation,
        reason,
    )


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.path,
        "x".join(map(str, row.shape)),
        row.form,
        f"{row.density:.3g}",
        *_bytes(row.dense_bytes, row.packed_bytes),
        row.implementation,
        row.reason,
    )


def _bytes(dense: int, packed: int) -> tuple[str, str, str]:
    return str(dense), str(packed), f"{dense / packed:.1f}" if packed else "-"
