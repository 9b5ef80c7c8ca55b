r"""What expressions are made of: operators, terminals, and one token for constants.

    token 0                     nothing: the padding at the end of a program
    tokens 1 .. O               operators, in the order of the table
    tokens O + 1 .. O + T       terminals
    token O + T + 1             a constant, whose value stands beside the token

Every value is an array [channels, classes, positions].  Operators are protected, so that a finite program on tame
terminals stays finite: division by b is division by sign(b) max(|b|, 1e-6), the root of x is that of |x|, and products,
quotients, squares, sums and variances are cut to +-1e6.  `mean`, `sum`, `std` and `var` go over positions, and their
result is the same at all of them.

Source: the operators and statistics of Liu, Kung, Wentzlaff, "Evolving Transferable Neural Pruning Functions", GECCO
2022 (arXiv 2110.10876), with the statistics of the feature matrices as terminals, and so without matrix operators.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

LIMIT = 1e6  # results are cut to +-LIMIT
TINY = 1e-6  # the least divisor
_BIG = np.float32(LIMIT)


@dataclass(frozen=True)
class Operator:
    """One operator.

    Attributes:
      name: What it is called in formulas.
      arity: 1 or 2.
      function: Of `arity` arrays of one shape [..., positions] to an array that broadcasts to it.
      symbol: Written between the operands, if it is not empty.
      commutative: Whether the operands may be exchanged.
      reduces: Whether the result is the same at all positions.
      host: The same in NumPy, positions on the first axis, writing to `out`; for the fast path on a CPU.  Without it
        that path goes through `function`.
    """

    name: str
    arity: int
    function: Callable[..., Float[Array, "..."]]
    symbol: str = ""
    commutative: bool = False
    reduces: bool = False
    host: Callable[..., Any] | None = None


@dataclass(frozen=True)
class Language:
    """The tokens of programs.

    Attributes:
      operators: Of one or two operands.
      terminals: Names of the arrays that formulas read.
      constants: Values from which random programs take their constants.
      alike: Terminals that are the same for all channels, such as numbers of samples.
      stack: How many values a program may have waiting for an operator.

    >>> PAPER.tokens[:4], PAPER.size
    (('', 'add', 'sub', 'mul'), 30)
    """

    operators: tuple[Operator, ...]
    terminals: tuple[str, ...]
    constants: tuple[float, ...] = (1e-4, 0.05, 0.5, 1.0, 2.0)
    alike: frozenset[str] = frozenset()
    stack: int = 8

    def __post_init__(self) -> None:
        names = [operator.name for operator in self.operators] + list(self.terminals)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"The language has two meanings of {', '.join(twice)}: give each token its own name.")
        wrong = [name for name in names if not name.isidentifier()]
        if wrong:
            raise ValueError(f"{wrong[0]!r} cannot be written in a formula: names are letters, digits and underscores.")
        for operator in self.operators:
            if operator.arity not in (1, 2):
                raise ValueError(f"Operator {operator.name} has arity {operator.arity}: it must be 1 or 2.")
        if not self.terminals:
            raise ValueError("The language has no terminals: programs would have nothing to read.")
        if not self.constants or not np.all(np.isfinite(self.constants)):
            raise ValueError(f"constants={self.constants} must be finite numbers, at least one.")
        if self.stack < 2:
            raise ValueError(f"stack={self.stack} must be at least 2, or no operator finds two operands.")

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The name of every token; the padding's is empty, the constant's ``"#"``."""
        return ("", *(operator.name for operator in self.operators), *self.terminals, "#")

    @property
    def size(self) -> int:
        """Number of tokens, the padding and the constant included."""
        return len(self.tokens)

    @property
    def first_terminal(self) -> int:
        """The token of the first terminal."""
        return 1 + len(self.operators)

    @property
    def constant(self) -> int:
        """The token of a constant."""
        return self.size - 1

    @cached_property
    def arity(self) -> Int[np.ndarray, " tokens"]:
        """Operands of every token, (size,) int32; -1 for the padding, which leaves nothing either."""
        leaves = [0] * (len(self.terminals) + 1)
        return np.array([-1, *(operator.arity for operator in self.operators), *leaves], np.int32)

    def token(self, name: str) -> int:
        """The token of an operator or a terminal.

        Args:
          name: As in the table.

        Returns:
          Its number.

        Raises:
          ValueError: If there is no such name.

        >>> PAPER.token("add")
        1
        """
        if name not in self.tokens[1:-1]:
            raise ValueError(f"There is no {name!r} in the language, which has {', '.join(self.tokens[1:-1])}.")
        return self.tokens.index(name)

    def only(self, terminals: Sequence[str]) -> "Language":
        """The language with some of its terminals.

        Args:
          terminals: Names that it has.

        Returns:
          A new language, whose tokens are numbered anew.

        Raises:
          ValueError: If it lacks one of them.

        >>> PAPER.only(["gP", "gQ"]).terminals
        ('gP', 'gQ')
        """
        for name in terminals:
            if name not in self.terminals:
                raise ValueError(f"There is no terminal {name!r} in the language; it has {', '.join(self.terminals)}.")
        return replace(self, terminals=tuple(terminals), alike=self.alike & set(terminals))


def _cut(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.clip(x, -LIMIT, LIMIT)


def _divide(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    return _cut(a / jnp.where(jnp.abs(b) < TINY, jnp.where(b < 0, -TINY, TINY), b))


def _mean(x: Float[Array, "..."]) -> Float[Array, "..."]:
    # Of deviations from the first value, so that the mean of equal values is that value and their variance zero.
    first = x[..., :1]
    return first + jnp.mean(x - first, axis=-1, keepdims=True)


def _variance(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.mean(jnp.square(x - _mean(x)), axis=-1, keepdims=True)


# NumPy forms: positions on the first axis, results into `out`, which is none of the operands.


def _host_cut(out: np.ndarray) -> None:
    # One fast product says that nothing is to be cut, which is the rule; what is not a number fails the comparison.
    if not np.vdot(out, out) < LIMIT**2:
        np.clip(out, -_BIG, _BIG, out=out)


def _host_multiply(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    np.multiply(a, b, out=out)
    _host_cut(out)


def _host_square(a: np.ndarray, out: np.ndarray) -> None:
    np.multiply(a, a, out=out)
    _host_cut(out)


def _host_divide(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    size = np.abs(b)
    if size.min() < TINY:
        b = np.where(size < TINY, np.where(b < 0, np.float32(-TINY), np.float32(TINY)), b)
    np.divide(a, b, out=out)
    _host_cut(out)


def _host_root(a: np.ndarray, out: np.ndarray) -> None:
    np.abs(a, out=out)
    np.sqrt(out, out=out)


def _host_mean(a: np.ndarray, out: np.ndarray) -> None:
    if a.strides[0] == 0:  # repeated along the positions
        out[...] = a[:1]
        return
    np.dot(_shares(a), a - a[:1], out=out[0])
    np.add(out, a[:1], out=out)


def _shares(a: np.ndarray) -> np.ndarray:
    """A product with these is a mean over positions, several times as fast as a reduction over the first axis."""
    return np.full(len(a), 1 / len(a), a.dtype)


def _host_sum(a: np.ndarray, out: np.ndarray) -> None:
    if a.strides[0] == 0:
        np.multiply(a[:1], a.dtype.type(len(a)), out=out)
    else:
        np.dot(np.ones(len(a), a.dtype), a, out=out[0])
    _host_cut(out)


def _host_variance(a: np.ndarray, out: np.ndarray) -> None:
    if a.strides[0] == 0:
        out.fill(0)
        return
    shares = _shares(a)
    apart = a - a[:1]
    np.dot(shares, apart, out=out[0])
    np.subtract(apart, out, out=apart)
    np.multiply(apart, apart, out=apart)
    np.dot(shares, apart, out=out[0])
    _host_cut(out)


def _host_deviation(a: np.ndarray, out: np.ndarray) -> None:
    _host_variance(a, out)
    np.sqrt(out, out=out)


def _plus(amount: float) -> dict[str, Any]:
    def host(a: np.ndarray, out: np.ndarray) -> None:
        np.add(a, a.dtype.type(amount), out=out)

    return {"function": lambda x: x + amount, "host": host}


OPERATORS = (
    Operator("add", 2, jnp.add, "+", commutative=True, host=np.add),
    Operator("sub", 2, jnp.subtract, "-", host=np.subtract),
    Operator("mul", 2, lambda a, b: _cut(a * b), "*", commutative=True, host=_host_multiply),
    Operator("div", 2, _divide, "/", host=_host_divide),
    Operator("neg", 1, jnp.negative, host=np.negative),
    Operator("abs", 1, jnp.abs, host=np.abs),
    Operator("square", 1, lambda x: _cut(x * x), host=_host_square),
    Operator("sqrt", 1, lambda x: jnp.sqrt(jnp.abs(x)), host=_host_root),
    Operator("eps", 1, **_plus(1e-4)),
    Operator("ridge", 1, **_plus(0.05)),
    Operator("mean", 1, _mean, reduces=True, host=_host_mean),
    Operator("sum", 1, lambda x: _cut(jnp.sum(x, axis=-1, keepdims=True)), reduces=True, host=_host_sum),
    Operator("std", 1, lambda x: jnp.sqrt(_cut(_variance(x))), reduces=True, host=_host_deviation),
    Operator("var", 1, lambda x: _cut(_variance(x)), reduces=True, host=_host_variance),
)
STATISTICS = ("gP", "gQ", "vP", "vQ", "sP", "sQ", "nP", "nQ", "mP", "mQ", "mX")
WEIGHTS = ("l1", "l2", "medoid")

PAPER = Language(OPERATORS, STATISTICS + WEIGHTS, alike=frozenset({"nP", "nQ"}))
