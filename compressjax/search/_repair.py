r"""Repairs: the nearest affordable design, by rules that are pure functions.

`to_budget` makes a design fit a budget for a cost that grows with every variable it may touch::

    1. floats:    x <- max(low, t x) with one factor t for all, the largest that fits, by bisection
    2. integers:  from the last to the first and round again, one lower each, until the cost fits

Floats first; integers only where all floats at their lower ends still cost too much (or there are none).

Sources: He et al., "AMC", ECCV 2018 (arXiv 1802.03494) and Li et al., "CompactNet", 2019 (arXiv 1905.11669) scale
ratios towards a target; Wang et al., "HAQ", CVPR 2019 (arXiv 1811.08886) lowers bits backward through the layers.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from compressjax.search._space import Design, Space
from compressjax.search._variables import Float, Int

Repair = Callable[[Design], Design]


def to_budget(
    space: Space,
    cost: Callable[[Design], Array],
    budget: float | int,
    *,
    names: Iterable[str] | None = None,
    iterations: int = 40,
) -> Repair:
    """A repair that lowers floats and integers until a cost fits.

    Args:
      space: The space of the designs.
      cost: One design -> cost, a scalar; pure JAX.  It must not fall when a named variable grows.
      budget: Greatest cost, in its unit.
      names: Variables that may be lowered; all `Float` and `Int` ones by default.
      iterations: Bisections of the factor; each is one call of `cost`.

    Returns:
      One design -> one design with the cost at most `budget`, unchanged where it fits already; pure, for `jit` and
      `vmap`.  Where even the lowest values cost too much (because of variables that are not named), these are returned.

    Raises:
      ValueError: If a name is unknown or cannot be lowered, `budget` is not a number, or the cheapest design, where it
        is certain, does not fit.

    >>> space = Space({"ratio": Float(0.1, 1.0, size=2)})
    >>> repair = to_budget(space, lambda design: 100 * design["ratio"].sum(), 60.0)
    >>> repair({"ratio": jnp.array([0.8, 0.4])})["ratio"].round(3)
    Array([0.4, 0.2], dtype=float32)
    """
    chosen = [n for n, v in space.variables.items() if isinstance(v, Float | Int)] if names is None else list(names)
    for name in chosen:
        if not isinstance(space.variables.get(name), Float | Int):
            raise ValueError(f"names has {name!r}, which is no Float or Int of the space: only those can be lowered.")
    if not chosen:
        raise ValueError("There is no Float or Int that could be lowered: write a repair of your own for this space.")
    if negative := [name for name in chosen if isinstance(v := space.variables[name], Float) and v.low < 0]:
        raise ValueError(f"{negative[0]!r} has negative values, which a factor does not lower: leave it out of names.")
    if np.isnan(budget):
        raise ValueError(f"budget={budget} must be a number.")
    floats = {name: v for name, v in space.variables.items() if name in chosen and isinstance(v, Float)}
    ints = {name: v for name, v in space.variables.items() if name in chosen and isinstance(v, Int)}
    if set(chosen) == set(space.variables):
        lowered: list[tuple[str, Float | Int]] = [*floats.items(), *ints.items()]
        low = {name: jnp.full(() if v.size is None else (v.size,), v.low) for name, v in lowered}
        least = float(cost(low))
        if not least <= budget:
            raise ValueError(f"The cheapest design costs {least:.6g}, more than the budget {budget:.6g}: raise it.")

    def repair(design: Design) -> Design:
        found: Any = design
        if floats:
            found = _scaled(found, floats, cost, budget, iterations)
        if ints:
            found = _lowered(found, ints, cost, budget)
        return found

    return repair


def _scaled(
    design: Design, floats: dict[str, Float], cost: Callable[[Design], Array], budget: float | int, iterations: int
) -> dict[str, Array]:
    """The largest common factor that fits; 0 (all at their lower ends) if none does."""

    def at(factor: Array) -> dict[str, Array]:
        return dict(design) | {
            name: jnp.where(factor < 1, jnp.maximum(v.low, factor * design[name]), design[name]).astype(
                jnp.asarray(design[name]).dtype
            )
            for name, v in floats.items()
        }

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        fits = cost(at(middle)) <= budget
        return jnp.where(fits, middle, low), jnp.where(fits, high, middle)

    low, _ = jax.lax.fori_loop(0, iterations, halve, (jnp.zeros(()), jnp.ones(())))
    return at(jnp.where(cost(at(jnp.ones(()))) <= budget, 1.0, low))


def _lowered(
    design: Design, ints: dict[str, Int], cost: Callable[[Design], Array], budget: float | int
) -> dict[str, Array]:
    """One lower at a time, backward, round and round, until it fits or all are at their least."""
    flat = jnp.concatenate([jnp.atleast_1d(jnp.asarray(design[name])) for name in ints])
    least = jnp.concatenate([jnp.full(v.length, v.low) for v in ints.values()]).astype(flat.dtype)
    ends = np.cumsum([v.length for v in ints.values()])

    def rebuilt(values: Array) -> dict[str, Array]:
        parts = jnp.split(values, ends[:-1])
        return dict(design) | {
            name: part[0] if v.size is None else part for (name, v), part in zip(ints.items(), parts, strict=True)
        }

    def above(carry: tuple[Array, Array]) -> Array:
        values, _ = carry
        return ~(cost(rebuilt(values)) <= budget) & jnp.any(values > least)

    def lower(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        values, place = carry
        return jnp.maximum(values.at[place].add(-1), least), (place - 1) % flat.size

    values, _ = jax.lax.while_loop(above, lower, (flat, jnp.int32(flat.size - 1)))
    return rebuilt(values)
