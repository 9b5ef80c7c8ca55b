"""Packing trees: leaves that rules name become packed matrices, the others stay as they are."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import pallas_kernels as pk
from compressjax import storage, trees
from compressjax.projections import Constraint, Joint
from compressjax.runtime._formats import As, candidates, matrix_shape
from compressjax.runtime._matrix import Matrix

Rows = int | Mapping[str, int]


@partial(jax.tree_util.register_dataclass, data_fields=["matrix"], meta_fields=["shape"])
@dataclass(frozen=True, eq=False)
class Packed:
    """A leaf of a parameter tree in packed form, itself a tree of arrays.

    Attributes:
      matrix: A format of `pallas_kernels` of shape [K, N], or what its `prepare` made of one.
      shape: Of the leaf: (K, N), or (kh, kw, in, out) with K = kh * kw * in.

    >>> packed = pack({"w": np.eye(4, dtype=np.float32)}, {"w": As(block=(2, 2))})["w"]
    >>> packed.shape, packed.nbytes, type(packed.matrix).__name__
    ((4, 4), 82, 'BlockSparse')
    """

    matrix: Any
    shape: tuple[int, ...]

    @property
    def dtype(self) -> Any:
        return self.matrix.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all its arrays."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self.matrix))

    @property
    def weights(self) -> Any:
        """The format, without what was chosen for it."""
        return self.matrix.weights if isinstance(self.matrix, pk.Prepared) else self.matrix

    def todense(self) -> Float[Array, "..."]:
        """The leaf, with zeros."""
        return self.matrix.todense().reshape(self.shape)


def is_packed(node: Any) -> bool:
    """Whether a node of a tree is a packed leaf: the `is_leaf` of functions that map over trees.

    >>> tree = pack({"a": np.eye(2, dtype=np.float32), "b": 1}, {"a": As()})
    >>> jax.tree.map(is_packed, tree, is_leaf=is_packed)
    {'a': True, 'b': False}
    """
    return isinstance(node, Packed)


def pack(
    params: trees.Tree,
    rules: Mapping[str, Any],
    *,
    batch: int | Mapping[str, int] | None = None,
    platform: str | None = None,
    calibration: pk.Calibration | None = None,
) -> trees.Tree:
    """Packs the leaves that rules name.

    Constraints with a structure name their form, all others and masks take the smallest form that holds the weights
    exactly, an `As` says it outright (see `As` and the page `docs/runtime.md`).  Packing needs concrete arrays: which
    blocks are zero decides shapes.

    Args:
      params: Parameters; any tree.
      rules: Ordered mapping from glob pattern to a constraint, a boolean mask of the leaf's shape, an `As`, or None to
        exempt (see `compressjax.trees`).  A leaf dictionary of masks works as it is.
      batch: Rows that the products will have, which for a convolution is the batch times the positions of the image;
        one number, or rules by path.  Each leaf is then laid out for the implementation that is predicted to be
        fastest, dense included, for inference (see `pallas_kernels.prepare`).  Left out, the weights stay in the form
        that the rule gave, and the first implementation that can is used.
      platform: "cpu", "gpu" or "tpu", for `batch`; default: JAX's default backend.
      calibration: Measurements that `batch` goes by; default: those that come with `pallas_kernels`.

    Returns:
      The tree with a `Packed` in the place of each such leaf.

    Raises:
      ValueError: In one sentence with the path: for rules without effect, leaves that are no matrix or convolution
        kernel or hold nan or inf, and weights that break their rule.

    >>> from compressjax.projections import Block
    >>> rule = Block((2, 2), 1)
    >>> params = {"fc": {"kernel": rule.project(jnp.arange(16.0).reshape(4, 4)), "bias": jnp.zeros(4)}}
    >>> packed = pack(params, {"*/kernel": rule})
    >>> packed["fc"]["kernel"].matrix.block, bool((unpack(packed)["fc"]["kernel"] == params["fc"]["kernel"]).all())
    ((2, 2), True)
    """
    _refuse_packed(params)
    known = trees.leaves(params)
    assigned = trees.assign(rules, params)
    rows = _rows(batch, params, assigned)
    return trees.update(
        params,
        {
            path: _prepare(_pack_leaf(known[path], rule, path), rows, platform, calibration, path)
            for path, rule in assigned.items()
        },
    )


def unpack(tree: trees.Tree) -> trees.Tree:
    """The tree with every packed leaf in its dense form again.

    Exact to the bit, for every form but codes of given `bits`, which are what the rounding left.  (But -0.0 is a zero
    like the others: it comes back as 0.0.)

    >>> tree = pack({"w": np.eye(3, dtype=np.float32)}, {"w": As(channels=True)})
    >>> unpack(tree)["w"].tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    return jax.tree.map(lambda node: node.todense() if is_packed(node) else node, tree, is_leaf=is_packed)


def from_artifact(
    data: bytes | str | Path,
    rules: Mapping[str, Any],
    *,
    batch: int | Mapping[str, int] | None = None,
    platform: str | None = None,
    calibration: pk.Calibration | None = None,
) -> dict[str, Any]:
    """Packs the leaves of a `.cjx` artefact, never unfolding those that become sparse.

    What was stored is what exists, so constraints are not checked again; N:M is, because its form cannot hold more.

    Args:
      data: Contents of the file, or its path.
      rules: As for `pack`.
      batch: As for `pack`.
      platform: As for `pack`.
      calibration: As for `pack`.

    Returns:
      Nested dictionary: a `Packed` for each leaf with a rule, arrays for the others.

    Raises:
      ValueError: As for `pack`, and for damaged files.

    >>> data = storage.encode({"w": np.eye(40, dtype=np.float32)})
    >>> from_artifact(data, {"w": As(block=(8, 8))})["w"].matrix.values.shape
    (5, 8, 8)
    """
    content = data if isinstance(data, bytes) else Path(data).read_bytes()
    try:
        leaves = storage.entries(content).leaves
    except ValueError as error:
        raise error if isinstance(data, bytes) else ValueError(f"{data}: {error}") from error
    names = _nested({path: path for path in leaves})
    assigned = trees.assign(rules, names)
    rows = _rows(batch, names, assigned)
    out: dict[str, Any] = {}
    for path, leaf in leaves.items():
        if path not in assigned:
            out[path] = jnp.asarray(leaf.array())
            continue
        shape = matrix_shape(leaf.shape, path)
        positions, values = leaf.positions, _weights(leaf.values, path)
        if positions is None:
            positions = np.arange(values.size)
        rule, alive = assigned[path], values != 0
        if _is_mask(rule):
            mask = _mask(rule, leaf.shape, path).reshape(-1)
            if (values[~mask[positions]] != 0).any():
                raise ValueError(_outside(path))
            held = np.flatnonzero(mask)
            place = np.searchsorted(held, positions[alive])
            filled = np.zeros(held.size, values.dtype)
            filled[place] = values[alive]
            entries = Matrix(shape, held, filled)
        else:
            entries = Matrix(shape, positions[alive], values[alive])
        out[path] = _prepare(_smallest(entries, rule, leaf.shape, path), rows, platform, calibration, path)
    return _nested(out)


def _pack_leaf(leaf: Any, rule: Any, path: str) -> Packed:
    if isinstance(leaf, jax.core.Tracer):
        raise ValueError(f"{path}: packing needs concrete weights: which are zero decides shapes; pack outside jit.")
    shape = matrix_shape(np.shape(leaf), path)
    weights = np.asarray(leaf)
    flat = _weights(weights.reshape(-1), path)
    if _is_mask(rule):
        exists = _mask(rule, weights.shape, path).reshape(-1)
        if (flat[~exists] != 0).any():
            raise ValueError(_outside(path))
    else:
        _check(rule, leaf, path)
        exists = flat != 0
    positions = np.flatnonzero(exists)
    return _smallest(Matrix(shape, positions, flat[positions]), rule, weights.shape, path)


def _smallest(entries: Matrix, rule: Any, shape: tuple[int, ...], path: str) -> Packed:
    forms = candidates(rule, shape, path)
    # Where there is no choice, what the form says is wrong is worth more than that none fits.
    sizes = {form: entries.size(form) for form in forms} if len(forms) > 1 else dict.fromkeys(forms, 0)
    best = min((form for form in forms if sizes[form] is not None), key=lambda form: sizes[form] or 0)
    try:
        return Packed(entries.pack(best), shape)
    except ValueError as error:
        raise ValueError(f"{path}: {rule} does not hold or does not fit: {error}.".replace("..", ".")) from error


def _check(rule: Any, leaf: Any, path: str) -> None:
    """Refuses weights that break their constraint."""
    if isinstance(rule, As):
        return
    if not isinstance(rule, Constraint):
        raise ValueError(f"{path}: {rule!r} is no constraint, boolean mask or As: it says nothing about packing.")
    if isinstance(rule, Joint):  # its budget is one of several leaves
        return
    try:
        holds = bool(rule.contains(jnp.asarray(leaf)))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not holds:
        raise ValueError(f"{path}: the weights do not lie in {rule}: project them first, or pack with an As.")


def _is_mask(rule: Any) -> bool:
    return isinstance(rule, (np.ndarray, jax.Array))


def _mask(rule: Any, shape: tuple[int, ...], path: str) -> np.ndarray:
    mask = np.asarray(rule)
    if mask.dtype != np.bool_ or mask.shape != shape:
        raise ValueError(f"{path}: a mask of {mask.dtype} {mask.shape} does not fit: a bool array {shape} is needed.")
    return mask


def _outside(path: str) -> str:
    return f"{path}: weights outside of the mask are not zero: apply the mask first (masks.apply)."


def _weights(flat: np.ndarray, path: str) -> np.ndarray:
    """Flat weights that products can use."""
    if not jnp.issubdtype(flat.dtype, jnp.floating):
        raise ValueError(f"{path}: weights of {flat.dtype} cannot be packed: cast them to a float dtype.")
    if jnp.asarray(flat[:0]).dtype != flat.dtype:
        raise ValueError(f"{path}: JAX would round weights of {flat.dtype} to 32 bits: cast them first.")
    if not np.isfinite(flat.astype(np.float32)).all():
        raise ValueError(f"{path}: the weights hold nan or inf: repair them before packing.")
    return flat


def _refuse_packed(params: trees.Tree) -> None:
    packed = [p for p, node in jax.tree_util.tree_leaves_with_path(params, is_leaf=is_packed) if is_packed(node)]
    if packed:
        raise ValueError(f"{trees.path_string(packed[0])}: the leaf is packed already: unpack the tree first.")


def _rows(batch: Rows | None, tree: trees.Tree, packed: Mapping[str, Any]) -> dict[str, int]:
    """Rows of the products by path."""
    if batch is None:
        return {}
    return trees.assign(batch, tree) if isinstance(batch, Mapping) else dict.fromkeys(packed, batch)


def _prepare(
    leaf: Packed, rows: Mapping[str, int], platform: str | None, calibration: pk.Calibration | None, path: str
) -> Packed:
    """Lays a packed leaf out for the machine, if its rows are known."""
    if path not in rows:
        return leaf
    try:
        prepared = pk.prepare(leaf.matrix, rows[path], platform=platform, calibration=calibration)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if len(leaf.shape) == 4 and isinstance(prepared.weights, pk.Dense):
        # XLA's convolution reads the inputs first.
        prepared = replace(prepared, weights=pk.Dense(prepared.todense()))
    return Packed(prepared, leaf.shape)


def _nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dictionary with these leaves."""
    out: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *folders, name = path.split("/")
        place = out
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = leaf
    return out
