"""Fine-tuning the level table: weights that share a level are one trainable number.

Reference: the centroid fine-tuning of Han et al., "Deep Compression", ICLR 2016 (arXiv 1510.00149).  With fixed codes
c in {0, ..., L}, where 0 means a pruned weight::

    w_i = 0            if c_i = 0            d loss / d level_j = sum over { i : c_i = j } of d loss / d w_i
    w_i = level[c_i]   otherwise

Positions and codes do not change, so neither does the size of the artefact.
"""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt

from compressjax import trees
from compressjax.quantizers import Quantizer


def tie(
    params: trees.Tree,
    rules: trees.Rules[Quantizer | None],
    levels: Mapping[str, Float[Array, "levels"]] | None = None,
) -> tuple[dict[str, Float[Array, "levels"]], dict[str, UInt[Array, "..."]]]:
    """Splits quantized leaves into their level tables and the codes of their weights.

    Args:
      params: Parameters; those under a rule should be on their levels already, others are snapped.
      rules: Glob to quantizer.
      levels: Level values to use instead of fitting them, such as ``levels`` of a `GradualFreezeState`.

    Returns:
      The level tables, leaf dictionary of (levels,) arrays in the leaves' dtypes: train these.  And the codes, leaf
      dictionary of unsigned integers in the leaves' shapes: 0 for an exact zero, ``j + 1`` for ``levels[j]``.

    Raises:
      ValueError: If a rule has no effect, or `levels` lacks a leaf.

    >>> from compressjax.quantizers import Binary
    >>> table, codes = tie({"w": jnp.array([0.5, 0.0, -0.5])}, {"w": Binary()})
    >>> table["w"], codes["w"]
    (Array([-0.5,  0.5], dtype=float32), Array([2, 0, 1], dtype=uint8))
    """
    known = trees.leaves(params)
    tables, codes = {}, {}
    for path, quantizer in trees.assign(rules, params).items():
        weights = jnp.asarray(known[path])
        if levels is not None and path not in levels:
            raise ValueError(f"tie: no levels given for {path!r}; pass a table for every leaf under a rule.")
        table = jnp.array(quantizer.fit(weights) if levels is None else levels[path], weights.dtype)
        snapped = quantizer.snap(weights, table)
        # Matching against the snapped value, not the weight, keeps the quantizer's own rule for ties.
        code = jnp.searchsorted(table, snapped) + 1
        narrow = jnp.uint8 if table.size < 256 else jnp.uint16 if table.size < 65536 else jnp.uint32
        tables[path] = table
        codes[path] = jnp.where(snapped == 0, 0, code).astype(narrow)
    return tables, codes


def untie(
    params: trees.Tree,
    levels: Mapping[str, Float[Array, "levels"]],
    codes: Mapping[str, UInt[Array, "..."]],
) -> trees.Tree:
    """Writes level tables and codes back into a parameter tree; differentiable in `levels` and `params`.

    Args:
      params: Tree that supplies all other leaves.
      levels: Leaf dictionary of (levels,) arrays.
      codes: Leaf dictionary of unsigned integers as made by `tie`.

    Returns:
      `params` with the leaves of `codes` set to their levels, pruned weights exactly zero, in the tables' dtypes.

    Raises:
      ValueError: If a leaf of `codes` is not in `params` or not in `levels`.

    >>> import jax
    >>> codes = {"w": jnp.array([2, 0, 1, 2], jnp.uint8)}
    >>> loss = lambda levels: untie({"w": jnp.zeros(4)}, levels, codes)["w"] @ jnp.array([1.0, 1.0, 1.0, 4.0])
    >>> jax.value_and_grad(loss)({"w": jnp.array([-0.5, 0.5])})
    (Array(2., dtype=float32), {'w': Array([1., 5.], dtype=float32)})
    """
    for path in codes:
        if path not in levels:
            raise ValueError(f"untie: no levels given for {path!r}; pass a table for every leaf with codes.")
    return trees.update(params, {path: _lookup(levels[path], code) for path, code in codes.items()})


def _lookup(table: Float[Array, "levels"], codes: UInt[Array, "..."]) -> Float[Array, "..."]:
    """The level of each code, zero for code 0."""
    return jnp.concatenate([jnp.zeros((1,), table.dtype), table])[codes]
