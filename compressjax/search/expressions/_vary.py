r"""Variation: random programs, subtree crossover, subtree mutation and moved constants, all under `jit`.

With i and j random tokens of A and B, and s(.) the start of the subtree that ends there, a child is one gather:

    crossover     A[: s(i)]  B[s(j) : j + 1]  A[i + 1 :]
    mutation      the same, with a random tree of height 0 .. 4 for B

A child that is longer than the arrays or higher than the language's stack is rejected, and A kept.  So every child of
valid programs is valid.

Random trees are drawn from the root: a node that may still have r levels below it is an operator if r > 0 (full trees)
or by chance (grown ones), and an operator of two operands only if there is room for the leaves that are still owed.
Read backwards, this is postfix.

Source: Koza, "Genetic Programming", 1992; full trees of height 0 to 4 as in Liu, Kung, Wentzlaff, GECCO 2022.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from compressjax.search.expressions._language import PAPER, Language
from compressjax.search.expressions._programs import Programs, heights, lengths, start

HEIGHTS = (0, 4)  # of the random trees of mutation


def random_programs(
    key: PRNGKeyArray,
    population: int,
    length: int,
    language: Language = PAPER,
    *,
    least: int = 1,
    most: int = 4,
    grow: bool = True,
) -> Programs:
    """Random programs, half of them full trees and half grown, or all full.

    Args:
      key: A random key.
      population: How many.
      length: Of the arrays.
      language: Tokens to choose from; leaves are terminals and constants with equal chances.
      least: Lowest height.
      most: Highest height; heights are uniform between them, as far as the length allows.
      grow: Whether every second one is grown, its branches ending at any height, or all are full.

    Returns:
      Valid programs.

    Raises:
      ValueError: If a size is out of range.

    >>> from compressjax.search.expressions import valid
    >>> bool(valid(random_programs(jax.random.key(0), 100, 16).tokens).all())
    True
    """
    if population < 1 or length < 1 or not 0 <= least <= most:
        raise ValueError(
            f"population={population} and length={length} must be at least 1, and 0 <= least={least} <= most={most}."
        )
    return _random_programs(key, population, length, language, least, most, grow)


@partial(jax.jit, static_argnums=(1, 2, 3, 4, 5, 6))
def _random_programs(
    key: PRNGKeyArray, population: int, length: int, language: Language, least: int, most: int, grow: bool
) -> Programs:
    key_height, key_tree = jax.random.split(key)
    tall = jax.random.randint(key_height, (population,), least, most + 1, jnp.int32)
    grown = (jnp.arange(population) % 2 == 1) & grow
    return trees(key_tree, tall, grown, length, most, language)


def trees(
    key: PRNGKeyArray,
    tall: Int[Array, " population"],
    grown: Bool[Array, " population"],
    length: int,
    most: int,
    language: Language,
) -> Programs:
    """Random trees of given heights; pure, for use inside `jit`.

    Args:
      key: A random key.
      tall: Height of every tree.
      grown: Which may end their branches earlier.
      length: Of the arrays (static).
      most: No height is above it (static).
      language: Tokens to choose from (static).

    Returns:
      Valid programs.

    >>> two = trees(jax.random.key(0), jnp.array([0, 1]), jnp.zeros(2, bool), 4, 1, PAPER)
    >>> [int(n) for n in (two.tokens > 0).sum(axis=1)][0]
    1
    """
    population = tall.shape[0]
    binary = np.array([number + 1 for number, o in enumerate(language.operators) if o.arity == 2], np.int32)
    unary = np.array([number + 1 for number, o in enumerate(language.operators) if o.arity == 1], np.int32)
    every = np.concatenate([unary, binary])  # the first ones need less room
    leaves = len(language.terminals) + 1
    share = leaves / (leaves + len(every))  # of leaves among all tokens
    # Postfix backwards: a tree's own stack stays as low as its height allows, one value per level.
    longest = min(length, 2 ** (most + 1) - 1)
    most = min(most, language.stack - 1)
    draws = jax.random.bits(key, (3, longest, population), jnp.uint32)

    def step(carry: tuple[Array, Array, Array], draw: Array) -> tuple[tuple[Array, Array, Array], tuple[Array, Array]]:
        levels, waiting, written = carry  # levels still allowed below every waiting node; how many wait
        place = jnp.arange(levels.shape[0])[:, None]
        top = jnp.sum(jnp.where(place == waiting[None] - 1, levels, 0), axis=0, dtype=jnp.int32)
        going = waiting > 0
        chance = (draw[0] >> 8).astype(jnp.float32) / 2**24
        room = longest - written - waiting  # tokens that are owed to nobody
        fits = (room >= 1) if len(unary) else (room >= 2)
        inner = going & (top > 0) & fits & ~(grown & (chance < share))
        kinds = jnp.where(room >= 2, len(every), max(len(unary), 1))
        operator = jnp.asarray(every)[(draw[1] % kinds.astype(jnp.uint32)).astype(jnp.int32)]
        leaf = language.first_terminal + (draw[1] % leaves).astype(jnp.int32)
        token = jnp.where(inner, operator, leaf)
        needs = jnp.asarray(np.maximum(language.arity, 0))[token]
        value = jnp.asarray(language.constants, jnp.float32)[(draw[2] % len(language.constants)).astype(jnp.int32)]
        # The node gives way to its operands, which may have one level less.
        new = (place >= waiting[None] - 1) & (place < waiting[None] - 1 + needs[None])
        levels = jnp.where(new & going[None], top[None] - 1, levels)
        waiting = waiting + jnp.where(going, needs - 1, 0)
        out = (jnp.where(going, token, 0), jnp.where(going & (token == language.constant), value, 0.0))
        return (levels, waiting, written + going), out

    first = jnp.zeros((most + 2, population), jnp.int32).at[0].set(jnp.minimum(tall, most))
    begin = (first, jnp.ones(population, jnp.int32), jnp.zeros(population, jnp.int32))
    _, (tokens, values) = jax.lax.scan(step, begin, jnp.moveaxis(draws, 1, 0))
    tokens, values = tokens.T, values.T
    # Backwards, and to the front.
    count = lengths(tokens)[:, None]
    place = jnp.arange(length)[None]
    there = jnp.maximum(count - 1 - place, 0)
    turned = [jnp.where(place < count, jnp.take_along_axis(array, there, axis=1), 0) for array in (tokens, values)]
    return Programs(turned[0], turned[1])


def crossover(
    key: PRNGKeyArray, first: Programs, second: Programs, language: Language = PAPER
) -> tuple[Programs, Programs]:
    """Exchanges a random subtree of one program with one of another, for many pairs.

    Args:
      key: A random key.
      first: Valid programs.
      second: As many.
      language: What the tokens mean (static).

    Returns:
      Two children per pair; where a child has no room, its own parent.

    >>> from compressjax.search.expressions import valid
    >>> one, two = (random_programs(jax.random.key(i), 3, 16) for i in (0, 1))
    >>> child, _ = crossover(jax.random.key(2), one, two)
    >>> bool(valid(child.tokens).all())
    True
    """
    return _crossover(key, first, second, language)


@partial(jax.jit, static_argnames="language")
def _crossover(key: PRNGKeyArray, first: Programs, second: Programs, language: Language) -> tuple[Programs, Programs]:
    ends = [_ends(k, programs.tokens) for k, programs in zip(jax.random.split(key), (first, second), strict=True)]
    splices = jax.vmap(partial(_splice, language=language))
    return splices(first, ends[0], second, ends[1]), splices(second, ends[1], first, ends[0])


def mutate(key: PRNGKeyArray, programs: Programs, language: Language = PAPER) -> Programs:
    """Replaces a random subtree of every program by a random full tree of height 0 to 4.

    Args:
      key: A random key.
      programs: Valid programs.
      language: What the tokens mean (static).

    Returns:
      A child of each; where it has no room, its parent.

    >>> from compressjax.search.expressions import valid
    >>> bool(valid(mutate(jax.random.key(1), random_programs(jax.random.key(0), 3, 16)).tokens).all())
    True
    """
    return _mutate(key, programs, language)


@partial(jax.jit, static_argnames="language")
def _mutate(key: PRNGKeyArray, programs: Programs, language: Language) -> Programs:
    population, length = programs.tokens.shape
    key_end, key_height, key_tree = jax.random.split(key, 3)
    tall = jax.random.randint(key_height, (population,), HEIGHTS[0], HEIGHTS[1] + 1, jnp.int32)
    new = trees(key_tree, tall, jnp.zeros(population, bool), length, HEIGHTS[1], language)
    splices = jax.vmap(partial(_splice, language=language))
    return splices(programs, _ends(key_end, programs.tokens), new, lengths(new.tokens) - 1)


def move_constants(
    key: PRNGKeyArray,
    programs: Programs,
    language: Language = PAPER,
    *,
    rate: float | Float[Array, ""] = 0.5,
    std: float | Float[Array, ""] = 0.1,
) -> Programs:
    """Point mutation: multiplies constants by exp(std normal), so that they keep their sign.

    Args:
      key: A random key.
      programs: Valid programs.
      language: What the tokens mean (static).
      rate: Chance that a constant moves.
      std: Of the logarithm.

    Returns:
      The same programs with other constants.

    >>> from compressjax.search.expressions import parse, stacked
    >>> moved = move_constants(jax.random.key(0), stacked([parse("gP * 2")], 4), rate=1.0)
    >>> bool(moved.consts[0, 1] != 2.0), bool(moved.consts[0, 1] > 0)
    (True, True)
    """
    return _move(key, programs, language, rate, std)


@partial(jax.jit, static_argnames="language")
def _move(
    key: PRNGKeyArray, programs: Programs, language: Language, rate: float | Array, std: float | Array
) -> Programs:
    key_which, key_how = jax.random.split(key)
    shape = programs.tokens.shape
    moves = (programs.tokens == language.constant) & (jax.random.uniform(key_which, shape) < rate)
    moved = (programs.consts * jnp.exp(std * jax.random.normal(key_how, shape))).astype(programs.consts.dtype)
    return Programs(programs.tokens, jnp.where(moves & jnp.isfinite(moved), moved, programs.consts))


def _ends(key: PRNGKeyArray, tokens: Int[Array, "population length"]) -> Int[Array, " population"]:
    """A random token of every program."""
    return jax.random.randint(key, tokens.shape[:1], 0, lengths(tokens), jnp.int32)


def _splice(
    host: Programs, end: Int[Array, ""], guest: Programs, guest_end: Int[Array, ""], *, language: Language
) -> Programs:
    """The host with the subtree at `end` replaced by the guest's at `guest_end`; the host itself if it has no room."""
    size = host.tokens.shape[0]
    own = heights(host.tokens, language)
    begin, guest_begin = start(own, end), start(heights(guest.tokens, language), guest_end)
    inserted = guest_end + 1 - guest_begin
    total = lengths(host.tokens) - (end + 1 - begin) + inserted
    place = jnp.arange(size)
    # Where every token of the child stands in host and guest, one after the other.
    source = jnp.where(
        place < begin,
        place,
        jnp.where(place < begin + inserted, size + guest_begin + place - begin, place - inserted + end + 1 - begin),
    )
    kept = place < total
    both = Programs(*(jnp.concatenate(pair) for pair in zip(host, guest, strict=True)))
    # One gather for both arrays would need one dtype; the indices are the same.
    child = Programs(*(jnp.where(kept, leaf[jnp.clip(source, 0, 2 * size - 1)], 0) for leaf in both))
    fits = (total <= size) & jnp.all(heights(child.tokens, language) <= language.stack)
    return Programs(*(jnp.where(fits, new, old) for new, old in zip(child, host, strict=True)))
