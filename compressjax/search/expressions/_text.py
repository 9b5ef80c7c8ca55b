r"""Programs as formulas, formulas as programs, and programs as compiled functions.

    formula  =  sum of products of factors, with + - * / and brackets, left to right
    factor   =  name | number | name(formula) | (formula)

A name before a bracket is an operator of one operand, ``eps(x)`` is x + 1e-4 and ``ridge(x)`` is x + 0.05.  Formulas
without a symbol of their own are written as calls.  `parse(unparse(program))` is the program.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from compressjax.search.expressions._language import PAPER, Language
from compressjax.search.expressions._programs import Programs, check
from compressjax.search.expressions._terminals import Terminals, check_terminals

_PIECE = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<sign>[-+*/(),]))"
)
_BINDING = {"+": 1, "-": 1, "*": 2, "/": 2}
_LONGEST = 1000  # pieces of a formula; nesting is bounded by it


def unparse(program: Programs, language: Language = PAPER) -> str:
    """The formula of one program.

    Args:
      program: (length,) arrays.
      language: What the tokens mean.

    Returns:
      Text that `parse` takes back to the same program.

    Raises:
      ValueError: If the program is malformed.

    >>> unparse(parse("square(gP - gQ) / (vP + vQ + 0.05)"))
    'square(gP - gQ) / (vP + vQ + 0.05)'
    """
    _check_single(program, language)
    values: list[tuple[str, int]] = []  # formula and how tightly it binds
    for token, value in zip(np.asarray(program.tokens).tolist(), np.asarray(program.consts, np.float32), strict=True):
        if token == 0:
            break
        if token == language.constant:
            values.append((str(value), 3))
        elif token >= language.first_terminal:
            values.append((language.tokens[token], 3))
        else:
            operator = language.operators[token - 1]
            operands = [values.pop() for _ in range(operator.arity)][::-1]
            if operator.symbol:
                binds = _BINDING[operator.symbol]
                left, right = (
                    text if own >= least else f"({text})"
                    for (text, own), least in zip(operands, (binds, binds + 1), strict=True)
                )
                values.append((f"{left} {operator.symbol} {right}", binds))
            else:
                values.append((f"{operator.name}({', '.join(text for text, _ in operands)})", 3))
    return values[0][0]


def parse(formula: str, language: Language = PAPER) -> Programs:
    """The program of one formula.

    Args:
      formula: Such as ``"abs(gP - gQ) / (sP + sQ + 1e-4)"``.
      language: Names that it may use.

    Returns:
      (tokens,) arrays without padding; `stacked` makes populations of them.

    Raises:
      ValueError: If the formula cannot be read, saying where.

    >>> parse("gP - gQ").tokens
    Array([15, 16,  2], dtype=int32)
    """
    pieces = _pieces(formula)
    if len(pieces) > _LONGEST:
        raise ValueError(f"The formula has {len(pieces)} pieces, more than {_LONGEST}.")
    tokens: list[int] = []
    consts: list[float] = []
    symbols = {operator.symbol: language.token(operator.name) for operator in language.operators if operator.symbol}
    place = 0

    def wrong(rule: str) -> ValueError:
        at = pieces[place] if place < len(pieces) else "its end"
        return ValueError(f"The formula {formula!r} has {at!r} as piece {place}, where {rule}.")

    def emit(token: int, value: float = 0.0) -> None:
        tokens.append(token)
        consts.append(value)

    def take(expected: str) -> None:
        nonlocal place
        if place >= len(pieces) or pieces[place] != expected:
            raise wrong(f"{expected!r} is needed")
        place += 1

    def factor() -> None:
        nonlocal place
        if place >= len(pieces):
            raise wrong("a name, a number or a bracket is needed")
        piece = pieces[place]
        negative = piece == "-" and place + 1 < len(pieces) and pieces[place + 1][0] in "0123456789."
        if negative or piece[0] in "0123456789.":
            place += 1 + negative
            exact = float(("-" if negative else "") + pieces[place - 1])
            if not abs(exact) <= float(np.finfo(np.float32).max):
                place -= 1
                raise wrong("a number that float32 can hold is needed")
            emit(language.constant, exact)
        elif piece == "(":
            place += 1
            sums(1)
            take(")")
        elif piece in language.terminals:
            place += 1
            emit(language.token(piece))
        elif piece.isidentifier():
            if piece not in language.tokens[1:-1]:
                raise wrong(f"only {', '.join(language.tokens[1:-1])} are known")
            token = language.token(piece)
            place += 1
            take("(")
            for number in range(int(language.arity[token])):
                if number:
                    take(",")
                sums(1)
            take(")")
            emit(token)
        else:
            raise wrong("a name, a number or a bracket is needed")

    def sums(least: int) -> None:
        nonlocal place
        factor()
        while place < len(pieces) and pieces[place] in symbols and _BINDING[pieces[place]] >= least:
            symbol = pieces[place]
            place += 1
            sums(_BINDING[symbol] + 1)
            emit(symbols[symbol])

    try:
        sums(1)
    except RecursionError:
        raise ValueError(f"The formula of {len(pieces)} pieces is nested too deeply.") from None
    if place < len(pieces):
        raise wrong("an operator, or the end, is needed")
    program = Programs(jnp.asarray(tokens, jnp.int32), jnp.asarray(consts, jnp.float32))
    check(program, language)
    return program


def _pieces(formula: str) -> list[str]:
    out, place, end = [], 0, len(formula.rstrip())
    while place < end:
        found = _PIECE.match(formula, place)
        if not found:
            raise ValueError(
                f"The formula {formula!r} cannot be read at character {place}: {formula[place:].lstrip()[:1]!r}."
            )
        out.append(found[0].strip())
        place = found.end()
    return out


def to_function(program: Programs, language: Language = PAPER) -> Callable[[Terminals], Float[Array, " channels"]]:
    """One program as a compiled function: for a formula that is used for good, on any backend.

    Args:
      program: (length,) arrays.
      language: What the tokens mean.

    Returns:
      A jitted function of the terminals to the scores of `evaluate`.

    Raises:
      ValueError: If the program is malformed; from the function, if terminals are missing or do not broadcast.

    >>> small = PAPER.only(["gP"])
    >>> to_function(parse("gP * 2", small), small)({"gP": jnp.ones((3, 2, 1))})
    Array([4., 4., 4.], dtype=float32)
    """
    _check_single(program, language)
    tokens = np.asarray(program.tokens).tolist()
    consts = np.asarray(program.consts, np.float32).tolist()

    @jax.jit
    def score(arrays: dict[str, Any]) -> Float[Array, " channels"]:
        shape = check_terminals(arrays, language)
        dtype = jnp.result_type(jnp.float32, *(arrays[name] for name in language.terminals))
        values: list[Array] = []
        for token, value in zip(tokens, consts, strict=True):
            if token == 0:
                break
            if token == language.constant:
                values.append(jnp.full((1, 1, 1), value, dtype))
            elif token >= language.first_terminal:
                values.append(jnp.asarray(arrays[language.tokens[token]], dtype))
            else:
                operator = language.operators[token - 1]
                operands = [values.pop() for _ in range(operator.arity)][::-1]
                if operator.reduces:  # a sum over positions counts them all
                    operands = [jnp.broadcast_to(x, (*x.shape[:2], shape[2])) for x in operands]
                values.append(operator.function(*operands))
        total = jnp.sum(jnp.broadcast_to(values[0], shape), axis=(1, 2))
        return jnp.where(jnp.isnan(total), -jnp.inf, total)

    def named(terminals: Terminals) -> Float[Array, " channels"]:
        check_terminals(terminals, language)
        return score({name: terminals[name] for name in language.terminals})

    return named


def _check_single(program: Programs, language: Language) -> None:
    if np.ndim(program.tokens) != 1:
        raise ValueError(
            f"The program has the shape {np.shape(program.tokens)}: give one, such as single(programs, 0)."
        )
    check(program, language)
