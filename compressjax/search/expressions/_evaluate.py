r"""Evaluating programs with a stack, under `jit`: one compilation for all programs of a length.

    score_c = sum over classes and positions of the expression's value at channel c

A scalar, such as a variance, counts once per position before the sum, as in the published functions, where it is added
to vectors; so a formula without positions comes out as many times as there are positions, which ranks the same.

A population is a loop of programs on a CPU (`lax.map`, where `lax.switch` runs one operator), and one batch elsewhere
(`vmap`, where it runs all and selects).  The path for whole populations on a CPU is
`compressjax.search.expressions.shared`.

Source: the score is that of Liu, Kung, Wentzlaff, GECCO 2022 (arXiv 2110.10876).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from compressjax.search.expressions._language import PAPER, Language
from compressjax.search.expressions._programs import Programs, check
from compressjax.search.expressions._terminals import Terminals, check_terminals
from compressjax.trees import in_chunks


def evaluate(
    programs: Programs, terminals: Terminals, language: Language = PAPER, *, chunk: int | None = None
) -> Float[Array, "population channels"]:
    """Scores of all channels by all programs.

    Args:
      programs: (population, length) arrays.  Under `jit` they are not checked: use `valid`.
      terminals: Name to array (channels or 1, classes or 1, positions or 1), for all terminals of the language.
      language: What the tokens mean.
      chunk: Programs computed side by side (`vmap`); 1 is a loop (`lax.map`).  By default 1 on a CPU, all of them
        elsewhere: a program takes ``language.stack`` times channels x classes x positions numbers.

    Returns:
      float32 or wider.  What is not a number is minus infinity: such channels go first.

    Raises:
      ValueError: If a program is malformed, a terminal is missing, not finite, or does not broadcast, or `chunk` is no
        whole number of 1 or more.

    >>> from compressjax.search.expressions import parse, stacked
    >>> small = PAPER.only(["gP", "gQ"])
    >>> arrays = {"gP": jnp.array([[[3.0]], [[1.0]]]), "gQ": jnp.ones((2, 1, 1))}
    >>> evaluate(stacked([parse("square(gP - gQ)", small)], 8), arrays, small)
    Array([[4., 0.]], dtype=float32)
    """
    if np.ndim(programs.tokens) != 2:
        raise ValueError(
            f"Programs have the shape {np.shape(programs.tokens)}: give a population, (population, length)."
        )
    shape = check_terminals(terminals, language)
    if not isinstance(programs.tokens, jax.core.Tracer):
        check(programs, language)
    arrays = {name: jnp.asarray(terminals[name]) for name in language.terminals}
    tokens, consts = jnp.asarray(programs.tokens), jnp.asarray(programs.consts)
    return _run(tokens, consts, arrays, language, shape, chunk)


@partial(jax.jit, static_argnames=("language", "shape", "chunk"))
def _run(
    tokens: Int[Array, "population length"],
    consts: Float[Array, "population length"],
    arrays: dict[str, Float[Array, "_ _ _"]],
    language: Language,
    shape: tuple[int, int, int],
    chunk: int | None,
) -> Float[Array, "population channels"]:
    dtype = jnp.result_type(jnp.float32, *arrays.values())
    table = jnp.stack([jnp.broadcast_to(arrays[name], shape).astype(dtype) for name in language.terminals])
    arity = jnp.asarray(np.maximum(language.arity, 0))

    def one(program: tuple[Array, Array]) -> Float[Array, " channels"]:
        def step(carry: tuple[Array, Array], now: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
            stack, height = carry
            token, value = now
            # Of an operator with one operand, `below` is whatever lies under it.
            top, below = stack[height - 1], stack[jnp.maximum(height - 2, 0)]
            branches = [lambda: top]
            for operator in language.operators:
                operands = (top,) if operator.arity == 1 else (below, top)
                branches.append(partial(_applied, operator.function, operands))
            branches.append(lambda: table[jnp.clip(token - language.first_terminal, 0, len(table) - 1)])
            branches.append(lambda: jnp.broadcast_to(value.astype(dtype), shape))
            # Padding, the operators, one branch for all terminals, one for constants.
            branch = jnp.where(token >= language.first_terminal, language.first_terminal, token)
            branch = jnp.where(token == language.constant, language.first_terminal + 1, branch)
            out = jax.lax.switch(branch, branches)
            after = height + jnp.where(token > 0, 1 - arity[token], 0)
            return (stack.at[after - 1].set(out), after), None

        empty = jnp.zeros((language.stack, *shape), dtype)
        (stack, _), _ = jax.lax.scan(step, (empty, jnp.int32(0)), program)
        total = jnp.sum(stack[0], axis=(1, 2))
        return jnp.where(jnp.isnan(total), -jnp.inf, total)

    return in_chunks(chunk)(one)((tokens, consts))


def _applied(function: object, operands: tuple[Array, ...]) -> Array:
    """An operator on whole arrays; what is the same at all positions is repeated."""
    return jnp.broadcast_to(function(*operands), operands[0].shape)  # type: ignore[operator]
