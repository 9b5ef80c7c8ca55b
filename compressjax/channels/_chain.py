"""Unit removal in a sequential network.

A *chain* names the layers of a network in the order in which data passes them; between two of them there may be a ReLU,
pooling within each channel, and a flattening with channels last.  Unit c of layer l is column c of its kernel and entry
c of its bias (what produces it) and every row of the kernel of layer l + 1 that reads it: row c of a dense or
convolution kernel, and after a flattening the rows c, C + c, 2C + c, ...

Importance of a unit, with K the kernels: I_c = ||K_l[..., c]||_2 * ||K_{l+1}[..., c, :]||_2.  A unit that reads
nothing or that nothing reads has importance 0, and scaling a unit's input by s and its output by 1/s, which in a ReLU
network changes nothing, leaves I_c as it is.

Surgery runs eagerly and in NumPy: the shapes that result depend on data.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Integer

from compressjax import trees

Tree = Any
Keep = Mapping[str, Integer[np.ndarray, " kept"]]


def _rows(kernel: np.ndarray, units: int) -> np.ndarray:
    """A reader's kernel as (..., units, out): a dense kernel after a flattening gets its positions as first axis."""
    return kernel.reshape(-1, units, kernel.shape[-1]) if kernel.ndim == 2 else kernel


def _kernels(params: Tree, chain: Sequence[str]) -> dict[str, np.ndarray]:
    """The kernels of a chain, checked for fitting together."""
    leaves = trees.leaves(params)
    if len(chain) < 2 or len(set(chain)) != len(chain):
        raise ValueError(f"A chain names two or more different layers in order, not {tuple(chain)}.")
    kernels = {}
    for layer in chain:
        path = f"{layer}/kernel"
        if path not in leaves:
            raise ValueError(
                f"The chain names the layer {layer!r}, but no leaf has the path {path!r}: {', '.join(leaves)}."
            )
        kernels[layer] = np.asarray(leaves[path])
        if kernels[layer].ndim < 2:
            raise ValueError(f"{path} has shape {kernels[layer].shape}: a kernel has two or more axes.")
    for layer, reader in itertools.pairwise(chain):
        units, inputs = kernels[layer].shape[-1], kernels[reader].shape[-2]
        flattened = kernels[layer].ndim > 2 and kernels[reader].ndim == 2
        if inputs % units if flattened else inputs != units:
            raise ValueError(
                f"{layer}/kernel {kernels[layer].shape} has {units} units, but {reader}/kernel {kernels[reader].shape} "
                f"reads {inputs} inputs: the chain skips a layer or the layers are not sequential."
            )
    return kernels


def _indices(layer: str, kept: np.ndarray, units: int) -> np.ndarray:
    """Checks one entry of a keep dictionary."""
    kept = np.asarray(kept)
    if not np.issubdtype(kept.dtype, np.integer) or kept.ndim != 1 or not len(kept):
        raise ValueError(f"keep[{layer!r}] must be a non-empty vector of unit numbers, not {kept.dtype}{kept.shape}.")
    kept = kept.astype(np.int64)  # differences of unsigned numbers are never negative
    if kept[0] < 0 or kept[-1] >= units or (np.diff(kept) <= 0).any():
        raise ValueError(f"keep[{layer!r}] must be increasing unit numbers in 0..{units - 1}, without repetition.")
    return kept


def _checked(params: Tree, chain: Sequence[str], keep: Keep) -> dict[str, tuple[str, np.ndarray, int]]:
    """Per layer of `keep`: who reads it, which units stay, and how many there are."""
    kernels = _kernels(params, chain)
    readers = dict(itertools.pairwise(chain))
    for layer in keep:
        if layer not in readers:
            raise ValueError(f"keep names {layer!r}, which is no hidden layer of the chain {tuple(chain)}.")
    units = {layer: kernels[layer].shape[-1] for layer in keep}
    return {layer: (readers[layer], _indices(layer, kept, units[layer]), units[layer]) for layer, kept in keep.items()}


def importance(params: Tree, chain: Sequence[str]) -> dict[str, Float[np.ndarray, " units"]]:
    """Importance of every hidden unit: the norm of its incoming times the norm of its outgoing weights.

    Args:
      params: Parameter tree with leaves ``layer/kernel``.
      chain: Layer names in order, output layer last.

    Returns:
      Per hidden layer, float64 (units,).

    Raises:
      ValueError: If a layer is missing or the layers do not fit together.

    >>> params = {"a": {"kernel": jnp.array([[3.0, 0.0], [4.0, 1.0]])}, "b": {"kernel": jnp.array([[2.0], [7.0]])}}
    >>> importance(params, ("a", "b"))["a"].tolist()
    [10.0, 7.0]
    """
    kernels = _kernels(params, chain)
    out = {}
    for layer, reader in itertools.pairwise(chain):
        incoming = kernels[layer].astype(np.float64).reshape(-1, kernels[layer].shape[-1])
        outgoing = np.moveaxis(_rows(kernels[reader].astype(np.float64), incoming.shape[-1]), -2, 0)
        out[layer] = np.linalg.norm(incoming, axis=0) * np.linalg.norm(outgoing.reshape(len(outgoing), -1), axis=1)
    return out


def take(tree: Tree, chain: Sequence[str], keep: Keep) -> Tree:
    """Keeps the named units of each layer and removes the others, with everything that reads them.

    Args:
      tree: Parameters, or any tree with the same kernels (masks, ADMM duals); biases may be missing.
      chain: Layer names in order, output layer last.
      keep: Per hidden layer the numbers of the units that stay, increasing; a layer without entry stays whole.

    Returns:
      The same tree with smaller leaves.

    Raises:
      ValueError: If `keep` names an unknown layer or unit, or the layers do not fit together.

    >>> params = {"a": {"kernel": jnp.ones((2, 3)), "bias": jnp.arange(3.0)}, "b": {"kernel": jnp.ones((3, 1))}}
    >>> small = take(params, ("a", "b"), {"a": np.array([0, 2])})
    >>> small["a"]["bias"].tolist(), small["b"]["kernel"].shape
    ([0.0, 2.0], (2, 1))
    """
    plan = _checked(tree, chain, keep)
    leaves = trees.leaves(tree)
    changed: dict[str, np.ndarray] = {}
    for layer, (reader, kept, units) in plan.items():
        for path in (f"{layer}/kernel", f"{layer}/bias"):
            if path in leaves:
                changed[path] = np.asarray(changed.get(path, leaves[path]))[..., kept]
        path = f"{reader}/kernel"
        kernel = np.asarray(changed.get(path, leaves[path]))
        rows = _rows(kernel, units)[..., kept, :]
        changed[path] = rows.reshape(-1, rows.shape[-1]) if kernel.ndim == 2 else rows
    return trees.update(tree, {path: jnp.asarray(value) for path, value in changed.items()})


def mask_units(params: Tree, chain: Sequence[str], keep: Keep) -> Tree:
    """The masked twin of `take`: removed units stay in place, with every slice that belongs to them set to zero.

    Args:
      params: Parameter tree.
      chain: Layer names in order, output layer last.
      keep: As for `take`.

    Returns:
      Parameters of the same shapes, which compute the same function as ``take(params, chain, keep)``.

    Raises:
      ValueError: As for `take`.

    >>> params = {"a": {"kernel": jnp.ones((1, 2)), "bias": jnp.ones(2)}, "b": {"kernel": jnp.ones((2, 1))}}
    >>> masked = mask_units(params, ("a", "b"), {"a": np.array([1])})
    >>> masked["a"]["bias"].tolist(), masked["b"]["kernel"].tolist()
    ([0.0, 1.0], [[0.0], [1.0]])
    """
    plan = _checked(params, chain, keep)
    leaves = trees.leaves(params)
    changed: dict[str, np.ndarray] = {}
    for layer, (reader, kept, units) in plan.items():
        gone = np.delete(np.arange(units), kept)
        for path in (f"{layer}/kernel", f"{layer}/bias"):
            if path in leaves:
                changed[path] = np.array(changed.get(path, leaves[path]))
                changed[path][..., gone] = 0
        path = f"{reader}/kernel"
        # In C order, so that the reshape inside `_rows` is a view and the assignment reaches the array.
        changed[path] = np.array(changed.get(path, leaves[path]), order="C")
        _rows(changed[path], units)[..., gone, :] = 0
    return trees.update(params, {path: jnp.asarray(value) for path, value in changed.items()})


def cut(params: Tree, chain: Sequence[str], widths: Sequence[int]) -> Tree:
    """Keeps the most important units of every hidden layer.

    All layers are judged on the uncut network; ties go to the lower unit number, and units stay in order.

    Args:
      params: Parameter tree.
      chain: Layer names in order, output layer last.
      widths: Units to keep in each hidden layer.

    Returns:
      The smaller tree: the parameters of the same network built with these widths.

    Raises:
      ValueError: If a width is not in 1..units, or the layers do not fit together.

    >>> params = {"a": {"kernel": jnp.array([[1.0, 5.0, 3.0]])}, "b": {"kernel": jnp.ones((3, 1))}}
    >>> cut(params, ("a", "b"), (2,))["a"]["kernel"].tolist()
    [[5.0, 3.0]]
    """
    scores = importance(params, chain)
    if len(widths) != len(scores):
        raise ValueError(f"The chain {tuple(chain)} has {len(scores)} hidden layers, not widths {tuple(widths)}.")
    keep = {}
    for (layer, score), width in zip(scores.items(), widths, strict=True):
        if not 1 <= width <= len(score):
            raise ValueError(f"Cannot keep {width} of the {len(score)} units of {layer!r}: ask for 1..{len(score)}.")
        keep[layer] = np.sort(np.argsort(-score, kind="stable")[:width])
    return take(params, chain, keep)


def remove_dead(
    params: Tree, chain: Sequence[str], masks: Mapping[str, Any] | None = None
) -> tuple[Tree, dict[str, Any]]:
    """Removes the units that cannot matter, without changing the function.

    A unit all of whose incoming weights are zero has the same value relu(bias) on every input and at every position; it
    moves into the next layer's bias.  A unit all of whose outgoing weights are zero is dropped.  Both repeat until
    nothing changes, because a removed unit can leave others dead.  One unit per layer always stays.

    Exact for chains with ReLU after every hidden layer, convolutions without padding and max or average pooling.

    Args:
      params: Parameter tree.  A layer without bias takes up no constants, so that units feeding it a constant stay.
      chain: Layer names in order, output layer last.
      masks: Leaf dictionary of Boolean masks to apply first.

    Returns:
      The smaller tree, and per hidden layer the numbers (int64) of the units that stayed: ``take(masks, chain, kept)``
      gives the masks that fit.

    Raises:
      ValueError: If the layers do not fit together.

    >>> params = {
    ...     "a": {"kernel": jnp.array([[1.0, 0.0, 2.0]]), "bias": jnp.array([0.0, 3.0, 0.0])},
    ...     "b": {"kernel": jnp.array([[1.0], [2.0], [0.0]]), "bias": jnp.zeros(1)},
    ... }
    >>> small, kept = remove_dead(params, ("a", "b"))
    >>> kept["a"].tolist(), small["b"]["bias"].tolist()
    ([0], [6.0])
    """
    masked = trees.map_leaves(lambda w, m: jnp.where(m, w, 0).astype(w.dtype), params, masks) if masks else params
    kept = {layer: np.arange(kernel.shape[-1]) for layer, kernel in _kernels(masked, chain).items()}
    del kept[chain[-1]]
    while True:
        folded, keep = _fold_once(masked, chain)
        if not keep:
            return masked, kept
        masked = take(folded, chain, keep)
        kept |= {layer: kept[layer][indices] for layer, indices in keep.items()}


def _fold_once(params: Tree, chain: Sequence[str]) -> tuple[Tree, dict[str, np.ndarray]]:
    """One pass: parameters with constants folded onward, and the units to keep in layers that lose some."""
    kernels = _kernels(params, chain)
    leaves = trees.leaves(params)
    biases = {layer: np.asarray(leaves[f"{layer}/bias"]) for layer in chain if f"{layer}/bias" in leaves}
    keep: dict[str, np.ndarray] = {}
    for layer, reader in itertools.pairwise(chain):
        units = kernels[layer].shape[-1]
        rows = _rows(kernels[reader], units)
        others = tuple(axis for axis in range(rows.ndim) if axis != rows.ndim - 2)
        unread = ~rows.any(axis=others)
        still = ~kernels[layer].reshape(-1, units).any(axis=0)
        value = np.maximum(biases[layer], 0) if layer in biases else np.zeros(units, kernels[layer].dtype)
        if reader not in biases:
            still &= value == 0
        dead = np.array(unread | still)
        if dead.all():
            dead[0] = False
        if not dead.any():
            continue
        constant = np.where(dead, value, 0).astype(np.float64)
        sums = rows.astype(np.float64).sum(axis=tuple(range(rows.ndim - 2)))
        if reader in biases:
            biases[reader] = (biases[reader] + constant @ sums).astype(biases[reader].dtype)
        keep[layer] = np.flatnonzero(~dead)
    return trees.update(params, {f"{layer}/bias": jnp.asarray(bias) for layer, bias in biases.items()}), keep
