r"""Programs: expressions in postfix order, as two arrays of fixed length.

    (gP - gQ)^2        gP gQ sub square . . .        tokens [length], padding at the end

With a_t the arity of token t, the height of the stack after it is h_t = h_{t-1} + 1 - a_t.  A program is valid if and
only if every h_t >= 1 and the last one is 1, and the subtree that ends at i starts at 1 + max{t < i : h_t < h_i}.
Everything here is index arithmetic over whole arrays, so that it runs under `jit` and `vmap`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from compressjax.search.expressions._language import PAPER, Language


class Programs(NamedTuple):
    """One program or many; a pytree, which evosax takes as a solution.

    Attributes:
      tokens: See `Language`; 0 is padding.
      consts: Values of the constants, 0 where the token is none.
    """

    tokens: Int[Any, "*population length"]
    consts: Float[Any, "*population length"]


def heights(tokens: Int[Array, "*population length"], language: Language = PAPER) -> Int[Array, "*population length"]:
    """How many values wait on the stack after every token.

    Args:
      tokens: Token numbers in range.
      language: What they mean.

    Returns:
      int32, constant over the padding.

    >>> heights(jnp.array([15, 16, 2, 0]))  # gP gQ sub
    Array([1, 2, 1, 1], dtype=int32)
    """
    arity = jnp.asarray(language.arity)[tokens]
    return jnp.cumsum(jnp.where(tokens > 0, 1 - arity, 0), axis=-1, dtype=jnp.int32)


def lengths(tokens: Int[Array, "*population length"]) -> Int[Array, "*population"]:
    """Number of tokens that are no padding.

    Args:
      tokens: Token numbers.

    Returns:
      int32.

    >>> lengths(jnp.array([15, 16, 2, 0]))
    Array(3, dtype=int32)
    """
    return jnp.sum(tokens > 0, axis=-1, dtype=jnp.int32)


def start(height: Int[Array, " length"], end: Int[Array, ""]) -> Int[Array, ""]:
    """Where the subtree that ends at `end` starts.

    Args:
      height: Of one program, from `heights`.
      end: Index of the last token of a subtree.

    Returns:
      Index of its first token.

    >>> start(jnp.array([1, 2, 1, 1]), jnp.int32(2))
    Array(0, dtype=int32)
    """
    place = jnp.arange(height.shape[0], dtype=jnp.int32)
    below = (place < end) & (height < height[end])
    return 1 + jnp.max(jnp.where(below, place, -1))


def valid(tokens: Int[Array, "*population length"], language: Language = PAPER) -> Bool[Array, "*population"]:
    """Which programs are whole: one value at the end, never none before, padding last, within the stack.

    Args:
      tokens: Any integers.
      language: What they mean.

    Returns:
      One truth value per program.

    >>> valid(jnp.array([[15, 16, 2, 0], [15, 2, 0, 0], [15, 0, 16, 2]]))
    Array([ True, False, False], dtype=bool)
    """
    known = (tokens >= 0) & (tokens < language.size)
    tokens = jnp.where(known, tokens, 0)
    height, used = heights(tokens, language), tokens > 0
    # A token finds its operands only if the height after it is at least 1.
    whole = (height >= 1) & (height <= language.stack)
    padded = jnp.all(used[..., :-1] | ~used[..., 1:], axis=-1)
    return jnp.all(known, axis=-1) & padded & jnp.all(whole, axis=-1) & (height[..., -1] == 1)


def check(programs: Programs, language: Language = PAPER) -> None:
    """Refuses programs that cannot be run, outside `jit`.

    Args:
      programs: One program or many.
      language: What the tokens mean.

    Raises:
      ValueError: Naming the first program and token that break a rule.

    >>> check(Programs(jnp.array([15, 2, 0]), jnp.zeros(3)))
    Traceback (most recent call last):
    ValueError: Token 1 (sub) of program 0 finds 1 values on the stack and needs 2.
    """
    tokens, consts = np.asarray(programs.tokens), np.asarray(programs.consts)
    if tokens.dtype.kind not in "iu" or tokens.ndim not in (1, 2) or tokens.shape != consts.shape or not tokens.size:
        raise ValueError(
            f"Programs have tokens {tokens.dtype} {tokens.shape} and constants {consts.shape}: both must be "
            "(length,) or (population, length), not empty, and tokens integers."
        )
    tokens, consts = np.atleast_2d(tokens), np.atleast_2d(consts)
    if bool(np.all(_valid_rows(tokens, language))) and bool(np.all(np.isfinite(consts))):
        return
    for number, row in enumerate(tokens):
        _check_one(number, row, consts[number], language)


def _valid_rows(tokens: np.ndarray, language: Language) -> Bool[np.ndarray, " population"]:
    """`valid` in NumPy: the host's paths need no compilation."""
    known = (tokens >= 0) & (tokens < language.size)
    inside = np.where(known, tokens, 0)
    used = inside > 0
    height = np.cumsum(np.where(used, 1 - language.arity[inside], 0), axis=1)
    whole = np.all((height >= 1) & (height <= language.stack), axis=1) & (height[:, -1] == 1)
    return np.all(known, axis=1) & np.all(used[:, :-1] | ~used[:, 1:], axis=1) & whole


def _check_one(number: int, row: np.ndarray, values: np.ndarray, language: Language) -> None:
    height, ended = 0, False
    for place, token in enumerate(row.tolist()):
        if not 0 <= token < language.size:
            raise ValueError(
                f"Token {place} of program {number} is {token}: the language has the tokens 0..{language.size - 1}."
            )
        if token == 0:
            ended = True
            continue
        name, needs = language.tokens[token], int(language.arity[token])
        if ended:
            raise ValueError(
                f"Token {place} ({name}) of program {number} follows padding, which must stand at the end."
            )
        if height < needs:
            raise ValueError(
                f"Token {place} ({name}) of program {number} finds {height} values on the stack and needs {needs}."
            )
        height += 1 - needs
        if height > language.stack:
            raise ValueError(
                f"Token {place} ({name}) of program {number} is value {height} on a stack of {language.stack}: raise "
                "the language's stack, or write deep operands first."
            )
        if token == language.constant and not np.isfinite(values[place]):
            raise ValueError(f"Token {place} of program {number} is the constant {values[place]}: it must be finite.")

    if height != 1:
        raise ValueError(f"Program {number} leaves {height} values: it must leave one.")


def stacked(programs: list[Programs], length: int) -> Programs:
    """Single programs as one population.

    Args:
      programs: Programs of any lengths.
      length: Of all programs of the population; padding is added or taken away.

    Returns:
      (population, length) arrays.

    Raises:
      ValueError: If there is no program, or one has more tokens than `length`.

    >>> stacked([Programs(jnp.array([15]), jnp.zeros(1))] * 2, 3).tokens
    Array([[15,  0,  0],
           [15,  0,  0]], dtype=int32)
    """
    if not programs:
        raise ValueError("There is no program to stack.")
    tokens = np.zeros((len(programs), length), np.int32)
    consts = np.zeros((len(programs), length), np.float32)
    for number, program in enumerate(programs):
        own = np.asarray(program.tokens)
        used = int(np.sum(own > 0))
        if used > length:
            raise ValueError(f"Program {number} has {used} tokens and length={length}: raise the length.")
        tokens[number, :used] = own[:used]
        consts[number, :used] = np.asarray(program.consts)[:used]
    return Programs(jnp.asarray(tokens), jnp.asarray(consts))


def single(programs: Programs, number: int) -> Programs:
    """One program of a population.

    Args:
      programs: (population, length) arrays.
      number: Which one.

    Returns:
      (length,) arrays.

    >>> single(Programs(jnp.array([[15], [16]]), jnp.zeros((2, 1))), 1).tokens
    Array([16], dtype=int32)
    """
    return jax.tree.map(lambda leaf: leaf[number], programs)
