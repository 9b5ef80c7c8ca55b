"""Leaves by path: the one addressing scheme of the library.

Every leaf of a parameter tree has a *path*, its keys joined by ``/`` (``"conv1/kernel"``).  What concerns only some
leaves -- constraints, masks, scores, ADMM duals -- is a plain dictionary from path to value, called a *leaf
dictionary*.  It looks the same whether the tree is a Linen dict, a ``FrozenDict``, an ``nnx.State``, a tuple or a
registered dataclass, and it is itself a tree that `jax.jit`, `jax.vmap` and Orbax understand.

*Rules* say what applies where: an ordered mapping from glob pattern to value.  The first pattern that matches a path
decides; a value of ``None`` exempts the leaf; a pattern that decides for no leaf at all is an error.

A tree whose leaves have one axis in front is a population of trees; `in_chunks` maps over it.
"""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import jax
import numpy as np
from jax.tree_util import GetAttrKey, KeyPath

__all__ = ["assign", "in_chunks", "leaves", "map_leaves", "path_string", "shapes", "update"]

T = TypeVar("T")
Tree = Any
Rules = Mapping[str, T]


def path_string(path: KeyPath) -> str:
    """Joins the keys of a JAX key path with ``/``.

    The trailing ``.value`` with which `nnx.State` wraps each variable is dropped, so that the same rule serves a Linen
    dict and an NNX state.

    >>> path_string((jax.tree_util.DictKey("conv1"), jax.tree_util.DictKey("kernel")))
    'conv1/kernel'
    """
    if len(path) > 1 and isinstance(path[-1], GetAttrKey) and path[-1].name in ("value", "raw_value"):
        path = path[:-1]
    return jax.tree_util.keystr(path, simple=True, separator="/")


def leaves(tree: Tree) -> dict[str, Any]:
    """The leaves of a tree as a leaf dictionary, in the tree's flattening order.

    Args:
      tree: Any pytree.

    Returns:
      Path to leaf.

    Raises:
      ValueError: If two leaves share a path.

    >>> leaves({"fc": {"kernel": 1, "bias": 2}, "norm": (3,)})
    {'fc/bias': 2, 'fc/kernel': 1, 'norm/0': 3}
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    out = {path_string(path): leaf for path, leaf in flat}
    if len(out) != len(flat):
        seen = [path_string(path) for path, _ in flat]
        twice = sorted({path for path in seen if seen.count(path) > 1})
        raise ValueError(f"Two leaves of the tree share the path {twice[0]!r}: rename one of them.")
    return out


def shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
    """Shape of every leaf by path.

    Args:
      tree: Any pytree of arrays, numbers, or `jax.ShapeDtypeStruct`.

    Returns:
      Path to shape, () for a Python number.

    >>> shapes({"fc": {"kernel": jax.ShapeDtypeStruct((3, 2), "float32")}, "temperature": 2.0})
    {'fc/kernel': (3, 2), 'temperature': ()}
    """
    return {path: tuple(np.shape(leaf)) for path, leaf in leaves(tree).items()}


def update(tree: Tree, changes: Mapping[str, Any]) -> Tree:
    """Returns `tree` with the leaves named in `changes` replaced; the structure stays.

    Raises:
      ValueError: If a path of `changes` is not a leaf of `tree`.

    >>> update({"fc": {"kernel": 1, "bias": 2}}, {"fc/bias": 5})
    {'fc': {'bias': 5, 'kernel': 1}}
    """
    known = leaves(tree)
    unknown = [path for path in changes if path not in known]
    if unknown:
        raise ValueError(f"No leaf has the path {unknown[0]!r}. Leaves: {', '.join(known)}.")
    treedef = jax.tree.structure(tree)
    return jax.tree.unflatten(treedef, [changes.get(path, leaf) for path, leaf in known.items()])


def map_leaves(function: Callable[..., Any], tree: Tree, *dictionaries: Mapping[str, Any]) -> Tree:
    """Applies ``function(leaf, *values)`` to the leaves that all `dictionaries` name; other leaves pass through.

    >>> map_leaves(lambda w, m: w * m, {"kernel": 3, "bias": 2}, {"kernel": 0})
    {'bias': 2, 'kernel': 0}
    """
    if not dictionaries:
        return jax.tree.map(function, tree)
    known = leaves(tree)
    common = [path for path in dictionaries[0] if all(path in d for d in dictionaries)]
    missing = [path for path in common if path not in known]
    if missing:
        raise ValueError(f"No leaf has the path {missing[0]!r}. Leaves: {', '.join(known)}.")
    return update(tree, {path: function(known[path], *(d[path] for d in dictionaries)) for path in common})


def assign(rules: "Rules[T | None]", tree: Tree) -> dict[str, T]:
    """Resolves rules on a tree: which value applies to which leaf.

    Args:
      rules: Ordered mapping from glob pattern (``*`` matches ``/`` too) to a value, or to ``None`` to exempt.
      tree: Any pytree; only its structure is read.

    Returns:
      Leaf dictionary of the values, without exempted leaves, in the tree's order.

    Raises:
      ValueError: If a pattern decides for no leaf, because it matches none or an earlier pattern takes them all.

    >>> params = {"conv1": {"kernel": 0, "bias": 0}, "conv2": {"kernel": 0, "bias": 0}}
    >>> assign({"conv1/kernel": None, "*/kernel": "keep half"}, params)
    {'conv2/kernel': 'keep half'}
    """
    paths = list(leaves(tree))
    used: set[str] = set()
    out: dict[str, T] = {}
    for path in paths:
        for pattern, value in rules.items():
            if fnmatchcase(path, pattern):
                used.add(pattern)
                if value is not None:
                    out[path] = value
                break
    for pattern in rules:
        if pattern not in used:
            matched = [path for path in paths if fnmatchcase(path, pattern)]
            reason = "earlier rules already decide for all its leaves" if matched else "it matches no leaf"
            raise ValueError(f"Rule {pattern!r} has no effect: {reason}. Leaves: {', '.join(paths)}.")
    return out


def in_chunks(chunk: int | None = None) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    """A `jax.vmap` for populations, whose memory is that of `chunk` members.

    Args:
      chunk: Members computed side by side; 1 is a loop (`lax.map`).  By default 1 on a CPU, where batched convolutions
        and `lax.switch` under `vmap` are slower, and all of them elsewhere.

    Returns:
      Turns a function of one tree into one of a tree whose leaves have an axis over members in front, as its results
      then have.

    Raises:
      ValueError: If `chunk` is no whole number of 1 or more.

    >>> add = in_chunks(2)(lambda pair: pair["a"] + pair["b"])
    >>> add({"a": np.arange(3), "b": np.ones(3, int)}).tolist()
    [1, 2, 3]
    """
    if chunk is not None and (isinstance(chunk, bool) or not isinstance(chunk, (int, np.integer)) or chunk < 1):
        raise ValueError(f"chunk={chunk!r} must be a whole number, at least 1, or None for the backend's own choice.")

    def vmap(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def mapped(members: Tree) -> Any:
            count = len(jax.tree.leaves(members)[0])
            size = chunk if chunk is not None else 1 if jax.default_backend() == "cpu" else count
            if 1 < size < count:
                return jax.lax.map(function, members, batch_size=int(size))
            return jax.lax.map(function, members) if size == 1 else jax.vmap(function)(members)

        return mapped

    return vmap
