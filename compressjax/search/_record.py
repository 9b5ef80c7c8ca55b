"""Records: what a search writes down about every candidate, and their plain form for files."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from compressjax.search._space import Space
from compressjax.search._variables import Category, Float, Int, Mask


@dataclass(frozen=True, eq=False)
class Record:
    """One candidate, evaluated once.

    Attributes:
      generation: Counts from 0.
      index: Within the generation.
      genome: As the strategy asked for it, (size,).
      design: Decoded and repaired: what was evaluated; name to array.
      cost: Of the repaired design; None if the search has no cost.
      fitness: One number per objective, smaller is better; `FAILED` for a failure.
      trail: The fitness at every fidelity that it passed, the cheapest first; the last one is `fitness`.
      told: What the strategy was told: fitness plus the repair's penalty, ordered over fidelities.
      fidelity: Number of the last evaluator that saw it; 0 is the cheapest.
      cached: Whether an equal design was known, so that nothing was computed.
      failed: Whether it is a failure.
      seed: Key data of the evaluation; ``jax.random.wrap_key_data`` makes the key of it.

    >>> Record(
    ...     2, 0, np.zeros(1), {"x": np.float32(1)}, None, (3.0,), ((3.0,),), (3.0,), 0, False, False, (0, 1)
    ... ).generation
    2
    """

    generation: int
    index: int
    genome: Any
    design: Mapping[str, Any]
    cost: float | None
    fitness: tuple[float, ...]
    trail: tuple[tuple[float, ...], ...]
    told: tuple[float, ...]
    fidelity: int
    cached: bool
    failed: bool
    seed: tuple[int, ...]


def to_json(record: Record) -> dict[str, Any]:
    """A record in plain numbers and lists, exact: `from_json` gives it back bit for bit.

    Args:
      record: From a search.

    Returns:
      Ready for ``json.dumps``; a genome or design that is not finite needs its ``allow_nan``.

    >>> genome, design = np.array([0.5], np.float32), {"x": np.float32(0.75)}
    >>> record = Record(0, 3, genome, design, None, (2.0,), ((2.0,),), (2.0,), 0, False, False, (0, 1))
    >>> plain = to_json(record)
    >>> plain["index"], plain["design"]
    (3, {'x': 0.75})
    >>> to_json(from_json(plain, Space({"x": Float(0.0, 1.0)}))) == plain
    True
    """
    plain = dict(vars(record))
    plain["genome"] = np.asarray(record.genome).tolist()
    plain["design"] = {name: np.asarray(value).tolist() for name, value in record.design.items()}
    plain["trail"] = [list(value) for value in record.trail]
    return plain | {name: list(plain[name]) for name in ("fitness", "told", "seed")}


def from_json(plain: Mapping[str, Any], space: Space) -> Record:
    """The record of a plain form.

    Args:
      plain: From `to_json`, also through a file.
      space: The space of the search, which knows the types of the design.

    Returns:
      The record.

    Raises:
      ValueError: If a field is missing or the design is of another space.

    >>> space = Space({"bits": Int(2, 8)})
    >>> record = Record(0, 0, np.zeros(1), {"bits": np.int32(4)}, 1.0, (2.0,), ((2.0,),), (2.0,), 0, True, False, (0,))
    >>> from_json(to_json(record), space).design["bits"].dtype
    dtype('int32')
    """
    if missing := [name for name in _names() if name not in plain]:
        raise ValueError(f"The record has no field {missing[0]!r}: it must come from to_json.")
    if set(plain["design"]) != set(space.variables):
        raise ValueError(
            f"The record's design has {', '.join(plain['design'])}: the space has {', '.join(space.variables)}."
        )
    real = _real()
    kinds = {Float: real, Int: np.int32, Category: np.int32, Mask: np.bool_}
    design = {
        name: np.asarray(plain["design"][name], kinds[type(variable)]) for name, variable in space.variables.items()
    }
    found = {name: plain[name] for name in _names()}
    found |= {name: tuple(plain[name]) for name in ("fitness", "told", "seed")}
    found["trail"] = tuple(tuple(value) for value in plain["trail"])
    return Record(**found | {"genome": np.asarray(plain["genome"], real), "design": design})


def _names() -> tuple[str, ...]:
    return tuple(field.name for field in fields(Record))


def _real() -> Any:
    """The default float type: float32, or float64 under x64."""
    import jax.numpy as jnp

    return jnp.result_type(float)
