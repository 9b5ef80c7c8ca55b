"""Budgets over layers: from one density to a count of kept weights per leaf.

    uniform:  every leaf keeps the same share
    erk:      density_l proportional to (n_1 + ... + n_d) / (n_1 * ... * n_d) of the leaf's shape, capped at 1
    global_:  one threshold for all leaves, so the counts follow from the scores

Source: ERK (Erdos-Renyi-kernel): Evci, Gale, Menick, Castro, Elsen, "Rigging the Lottery", ICML 2020
(arXiv 1911.11134).
"""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from compressjax.masks._apply import top_k_mask

Shapes = Mapping[str, tuple[int, ...]]


def uniform(shapes: Shapes, density: float) -> dict[str, int]:
    """Every leaf keeps `density` of its entries, rounded down, but at least one.

    Args:
      shapes: Leaf dictionary of shapes.
      density: Share to keep, in (0, 1].

    Returns:
      Leaf dictionary of counts.

    Raises:
      ValueError: If `density` is out of range or a leaf is empty.

    >>> uniform({"conv": (3, 3, 1, 8), "fc": (100, 10)}, 0.1)
    {'conv': 7, 'fc': 100}
    """
    exact = _check(shapes, density)
    return {path: max(1, math.floor(exact * math.prod(shape))) for path, shape in shapes.items()}


def erk(shapes: Shapes, density: float) -> dict[str, int]:
    """Small and narrow leaves keep more: density in proportion to the sum over the product of the shape.

    A leaf whose share would exceed 1 stays dense and the others share the rest.  The total is the overall density
    rounded down (each leaf keeps at least one); shares are rounded to it by largest remainder, ties in leaf order.

    Args:
      shapes: Leaf dictionary of shapes.
      density: Overall share to keep, in (0, 1].

    Returns:
      Leaf dictionary of counts.

    Raises:
      ValueError: If `density` is out of range or a leaf is empty.

    >>> erk({"conv": (3, 3, 1, 8), "fc": (100, 10)}, 0.2)
    {'conv': 26, 'fc': 188}
    """
    exact = _check(shapes, density)
    size = {path: math.prod(shape) for path, shape in shapes.items()}
    total = max(len(shapes), math.floor(exact * sum(size.values())))
    dense: set[str] = set()
    while True:
        # The product of density and size is the sum of the shape, up to the common factor.
        weight = {path: sum(shape) for path, shape in shapes.items() if path not in dense}
        rest = total - sum(size[path] for path in dense)
        share = {path: Fraction(rest * w, sum(weight.values())) for path, w in weight.items()}
        full = {path for path, value in share.items() if value >= size[path]}
        if not full:
            break
        dense |= full
    counts = {path: size[path] if path in dense else max(1, math.floor(share[path])) for path in shapes}
    missing = total - sum(counts.values())
    for path in sorted(share, key=lambda path: math.floor(share[path]) - share[path])[: max(0, missing)]:
        counts[path] += 1
    return counts


def global_(scores: Mapping[str, Shaped[Array, "..."]], count: int | Int[Array, ""]) -> dict[str, Int[Array, ""]]:
    """How many of the `count` largest scores of all leaves together fall into each leaf.

    With these counts `from_scores` keeps exactly the globally best entries, ties in leaf order, then by index.

    Args:
      scores: Leaf dictionary of scores of one dtype.
      count: How many entries to keep in total; a traced count is clipped to what is there.

    Returns:
      Leaf dictionary of int32 scalars, traced under `jax.jit`.

    Raises:
      ValueError: If there are no scores or an int `count` exceeds their number.

    >>> {path: int(n) for path, n in global_({"a": jnp.array([5.0, 1.0]), "b": jnp.array([4.0, 3.0])}, 3).items()}
    {'a': 1, 'b': 2}
    """
    if not scores:
        raise ValueError("global_ needs the scores of at least one leaf.")
    mask = top_k_mask(jnp.concatenate([score.reshape(-1) for score in scores.values()]), count)
    out, start = {}, 0
    for path, score in scores.items():
        out[path] = jnp.sum(mask[start : start + score.size], dtype=jnp.int32)
        start += score.size
    return out


def allocate(shapes: Shapes, density: float, method: Literal["uniform", "erk"] = "uniform") -> dict[str, int]:
    """The counts of a named method that needs shapes only; see `uniform` and `erk`.

    Raises:
      ValueError: If the method is unknown, or as the method does.

    >>> allocate({"fc": (10, 10)}, 0.5, method="erk")
    {'fc': 50}
    """
    methods: dict[str, Callable[[Shapes, float], dict[str, int]]] = {"uniform": uniform, "erk": erk}
    if method not in methods:
        raise ValueError(f"Unknown allocation {method!r}: use one of {', '.join(methods)}, or `global_` on scores.")
    return methods[method](shapes, density)


def _check(shapes: Shapes, density: float) -> Fraction:
    if not 0 < density <= 1:
        raise ValueError(f"density={density} must lie in (0, 1].")
    for path, shape in shapes.items():
        if math.prod(shape) == 0:
            raise ValueError(f"{path}: shape {shape} has no entries: leave it out.")
    if not shapes:
        raise ValueError("No leaves to allocate to.")
    return Fraction(repr(float(density)))
