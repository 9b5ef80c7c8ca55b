"""Spaces: named design variables as one real vector, which any continuous strategy can search."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from jaxtyping import Float as Floats

from compressjax.search._variables import Category, Float, Int, Mask

Design = Mapping[str, Any]  # name -> array; batch axes first, then the variable's own axis if it has one


@dataclass(frozen=True, eq=False)
class Space:
    """Named variables, and the genomes that stand for them.

    Attributes:
      variables: Name to `Float`, `Int`, `Category` or `Mask`; the genome holds them in this order.

    Raises:
      ValueError: If there is no variable, or one is of another kind.

    >>> from compressjax.search import Category, Float, Int, Mask
    >>> space = Space({"ratio": Float(0.1, 1.0), "bits": Int(2, 8), "op": Category(("a", "b")), "keep": Mask(3)})
    >>> space.size
    7
    >>> design = space.decode(jnp.zeros(7))
    >>> design["bits"], space.label(design)
    (Array(5, dtype=int32), {'ratio': 0.550000011920929, 'bits': 5, 'op': 'a', 'keep': [False, False, False]})
    >>> bool(jnp.array_equal(space.decode(space.encode(design))["keep"], design["keep"]))
    True
    """

    variables: Mapping[str, Any]  # of Variable, checked below by name

    def __post_init__(self) -> None:
        if not self.variables:
            raise ValueError("A space needs at least one variable.")
        for name, variable in self.variables.items():
            if not isinstance(variable, Float | Int | Category | Mask):
                raise ValueError(f"Variable {name!r} is {variable!r}: it must be a Float, Int, Category or Mask.")
        object.__setattr__(self, "variables", dict(self.variables))

    @property
    def size(self) -> int:
        """Length of a genome."""
        return sum(variable.length for variable in self.variables.values())

    @property
    def places(self) -> dict[str, slice]:
        """Where each variable lies in a genome."""
        out, begin = {}, 0
        for name, variable in self.variables.items():
            out[name] = slice(begin, begin + variable.length)
            begin += variable.length
        return out

    def decode(self, genome: Floats[Array, "*batch size"]) -> dict[str, Array]:
        """The design that a genome stands for; pure, under `jit` and `vmap` too.

        Args:
          genome: Any real numbers, (..., size).

        Returns:
          Name to array: (...) for single variables, (..., size of the variable) for others.  Floats are float32
          (float64 with x64), `Int` and the indices of `Category` int32, `Mask` bool.

        Raises:
          ValueError: If the last axis is not `size` long.
        """
        if genome.shape[-1] != self.size:
            raise ValueError(f"The genome has the shape {genome.shape}: its last axis must have {self.size} numbers.")
        return {name: self.variables[name].decode(genome[..., place]) for name, place in self.places.items()}

    def encode(self, design: Design) -> Floats[Array, "*batch size"]:
        """A genome of a design: ``decode(encode(design)) == design``, up to rounding of floats.

        Args:
          design: As from `decode`.

        Returns:
          In [-1, 1], (..., size); whole numbers lie in the centres of their bins.

        Raises:
          ValueError: If a variable is missing or one is unknown.
        """
        if set(design) != set(self.variables):
            raise ValueError(f"The design has {', '.join(design)}: it must have {', '.join(self.variables)}.")
        return jnp.concatenate([v.encode(design[name]) for name, v in self.variables.items()], axis=-1)

    def sample(self, key: Array, count: int) -> Floats[Array, "count size"]:
        """Genomes of random designs: floats and integers uniform in their range, options and places equally likely.

        Args:
          key: Random key.
          count: How many.

        Returns:
          Uniform in [-1, 1), (count, size).
        """
        return jax.random.uniform(key, (count, self.size), minval=-1.0, maxval=1.0)

    def label(self, design: Design) -> dict[str, Any]:
        """One design in plain Python values, options by name: for reports.

        Args:
          design: One design without batch axes.

        Returns:
          Name to number, list, bool or option.
        """
        out = {}
        for name, variable in self.variables.items():
            value = np.asarray(design[name]).tolist()
            if isinstance(variable, Category):
                options = variable.options
                value = [options[i] for i in value] if isinstance(value, list) else options[value]
            out[name] = value
        return out


def check_design(space: Space, design: Design) -> None:
    """Raises if a value of one design has a wrong shape or lies outside of its range, where `encode` would fold it."""
    if set(design) != set(space.variables):
        raise ValueError(f"The design has {', '.join(design)}: it must have {', '.join(space.variables)}.")
    for name, variable in space.variables.items():
        value = np.asarray(design[name])
        shape = () if variable.size is None else (variable.size,)
        if value.shape != shape:
            raise ValueError(f"{name!r} of the design has the shape {value.shape}: it must be {shape}.")
        if isinstance(variable, Float):
            real = jnp.result_type(float)  # that of the design, to which the ends may be rounded
            low, high, value = real.type(variable.low), real.type(variable.high), value.astype(real)
            fits, wanted = (value >= low) & (value <= high), f"lie in [{variable.low}, {variable.high}]"
        elif isinstance(variable, Mask):
            fits, wanted = (value == 0) | (value == 1), "be True or False"
        else:
            ends = (0, len(variable.options) - 1) if isinstance(variable, Category) else (variable.low, variable.high)
            fits = (value >= ends[0]) & (value <= ends[1]) & (value == np.round(value))
            wanted = f"be a whole number in {ends[0]}..{ends[1]}"
        if not np.all(fits):
            raise ValueError(f"{name!r} of the design is {value.tolist()}: it must {wanted}.")
