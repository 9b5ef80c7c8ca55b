r"""Whole populations on a CPU: every distinct subexpression is computed once, in arrays that stay in the cache.

    plan    subtrees bottom up; equal ones (operator, operands) get one number, operands of commutative operators sorted
    run     for tiles of channels, the nodes in the order in which the programs need them: one NumPy call each, results
            into a few buffers that are used again as soon as nobody needs them

Two kinds of values are kept apart: those that are the same at all positions, as most statistics are, take no more room
or time than [classes, channels]; the others are [positions, classes, channels].  Results agree with `evaluate` up to
rounding, because sums run in another order.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from compressjax.search.expressions._language import PAPER, Language
from compressjax.search.expressions._programs import Programs, check
from compressjax.search.expressions._terminals import Terminals, check_terminals

TILE = 40_960  # entries of one value, 160 KiB of float32: smaller tiles spend more on calls, larger ones on the cache


class Plan(NamedTuple):
    """The distinct subexpressions of a population, operands before what needs them.

    Attributes:
      token: Of every node, (nodes,).
      value: Of the constants, (nodes,) float32.
      left: First operand, a node; -1 for terminals and constants.
      right: Second operand; -1 if there is none.
      roots: The node of every program, (population,).
    """

    token: Int[np.ndarray, " nodes"]
    value: Float[np.ndarray, " nodes"]
    left: Int[np.ndarray, " nodes"]
    right: Int[np.ndarray, " nodes"]
    roots: Int[np.ndarray, " population"]


def plan(programs: Programs, language: Language = PAPER) -> Plan:
    """Finds the distinct subexpressions of a population, by hashing bottom up.

    Args:
      programs: (population, length) arrays.
      language: What the tokens mean.

    Returns:
      One node per distinct subexpression.

    Raises:
      ValueError: If a program is malformed.

    >>> from compressjax.search.expressions import parse, stacked
    >>> both = stacked([parse("square(gP + gQ)"), parse("abs(gQ + gP)")], 8)
    >>> [PAPER.tokens[token] for token in plan(both).token]
    ['gP', 'gQ', 'add', 'square', 'abs']
    """
    check(programs, language)
    tokens = np.atleast_2d(np.asarray(programs.tokens))
    used = tokens > 0
    count = used.sum(axis=1)
    last = np.cumsum(count) - 1  # of every program, among all tokens in one row
    token = tokens[used]
    consts = np.where(token == language.constant, np.atleast_2d(np.asarray(programs.consts, np.float32))[used], 0)
    arity = np.maximum(language.arity, 0)[token]
    right, left = _operands(token, arity, count, language)

    # Bottom up: all nodes whose operands have numbers get theirs together.
    size = len(token)
    number = np.full(size + 1, -1)  # the last entry stands for no operand
    number[size] = size
    swap = np.array([False, *(operator.commutative for operator in language.operators)])
    swap = np.append(swap, np.zeros(language.size - len(swap), bool))[token]
    bits = (consts + np.float32(0)).view(np.int32).astype(np.int64)  # -0 and 0 are one constant
    pending = np.arange(size)
    firsts: list[np.ndarray] = []
    total = 0
    leaf = arity == 0
    while len(pending):
        ready = leaf[pending] if not firsts else (number[left[pending]] >= 0) & (number[right[pending]] >= 0)
        now, pending = pending[ready], pending[~ready]
        if not firsts:
            key = (token[now].astype(np.int64) << 32) + (bits[now] & 0xFFFFFFFF)
        else:
            a, b = number[left[now]], number[right[now]]
            exchange = swap[now] & (a > b)
            a, b = np.where(exchange, b, a), np.where(exchange, a, b)
            key = (token[now].astype(np.int64) * (size + 1) + a) * (size + 1) + b
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        number[now] = total + inverse
        total += len(first)
        firsts.append(now[first])
    first = np.concatenate(firsts)
    order = np.argsort(first)  # where a node is needed first; its operands stand before it
    rank = np.empty(total + 1, np.int64)
    rank[order] = np.arange(total)
    rank[total] = -1
    first = first[order]

    def renumbered(operand: np.ndarray) -> np.ndarray:
        there = operand[first]
        return np.where(there == size, -1, rank[np.where(there == size, total, number[there])])

    return Plan(token[first], consts[first], renumbered(left), renumbered(right), rank[number[last]])


def _operands(
    token: np.ndarray, arity: np.ndarray, count: np.ndarray, language: Language
) -> tuple[Int[np.ndarray, " tokens"], Int[np.ndarray, " tokens"]]:
    """Second and first operand of every token, as places among all tokens; their number where there is none.

    The last operand ends just before its operator.  The first of two ends at the nearest place before where the stack
    was as high as after the operator.
    """
    size = len(token)
    place = np.arange(size)
    program = np.repeat(np.arange(len(count)), count)
    run = np.cumsum(1 - arity)  # every program leaves one value, so what came before is known
    height = run - program
    order = np.argsort(program * (language.stack + 1) + height, kind="stable")
    before = np.empty(size, np.int64)
    before[order[1:]] = order[:-1]
    left = np.where(arity == 2, before, np.where(arity == 1, place - 1, size))
    right = np.where(arity == 2, place - 1, size)
    return right, left


def shared(
    programs: Programs, terminals: Terminals, language: Language = PAPER, *, tile: int = TILE
) -> Float[np.ndarray, "population channels"]:
    """Scores of all channels by all programs: `evaluate` on the host, with common subexpressions computed once.

    Args:
      programs: (population, length) arrays.
      terminals: Name to array (channels or 1, classes or 1, positions or 1), for all terminals of the language.
      language: What the tokens mean.
      tile: Entries of one value that are computed at a time; whole channels, at least one.

    Returns:
      float32; minus infinity for what is not a number.

    Raises:
      ValueError: If a program is malformed, or a terminal is missing, not finite, or does not broadcast.

    >>> from compressjax.search.expressions import parse, stacked
    >>> small = PAPER.only(["gP", "gQ"])
    >>> arrays = {"gP": jnp.array([[[3.0]], [[1.0]]]), "gQ": jnp.ones((2, 1, 1))}
    >>> shared(stacked([parse("square(gP - gQ)", small)], 8), arrays, small)
    array([[4., 0.]], dtype=float32)
    """
    channels, classes, positions = check_terminals(terminals, language)
    found = plan(programs, language)
    wide = [_by_position(terminals[name], classes) for name in language.terminals]
    width = min(channels, max(1, tile // (classes * positions)))
    code, inputs, totals = _code(found, wide, language, width, classes, positions)
    out = np.empty((len(totals), channels), np.float32)
    with np.errstate(all="ignore"):  # what overflows is cut or scores minus infinity
        for begin in range(0, channels, width):
            end = min(begin + width, channels)
            for buffer, source in inputs:
                buffer[..., : end - begin] = source if source.shape[-1] == 1 else source[..., begin:end]
            for function, operands, target in code:
                function(*operands, target)
            out[:, begin:end] = totals[:, : end - begin]
    out[np.isnan(out)] = -np.inf
    # `totals` has one row per distinct root, in the order of the nodes.
    _, rows = np.unique(found.roots, return_inverse=True)
    return out[rows]


def _by_position(array: Any, classes: int) -> Float[np.ndarray, "_ classes _"]:
    """An array [channels, classes, positions] as [positions or 1, classes, channels or 1]."""
    turned = np.asarray(array, np.float32).transpose(2, 1, 0)
    return np.broadcast_to(turned, (turned.shape[0], classes, turned.shape[2]))


def _code(
    found: Plan, wide: list[np.ndarray], language: Language, width: int, classes: int, positions: int
) -> tuple[list[tuple[Any, tuple[np.ndarray, ...], Any]], list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """The plan as calls on buffers: (function, operands, result), what to fill first, and where the sums end up."""
    nodes = len(found.token)
    is_root = np.zeros(nodes, bool)
    is_root[found.roots] = True
    last = np.arange(nodes)  # the last node that needs a value; written in ascending order, so that the last one stays
    for operand in (found.left, found.right):
        there = operand >= 0
        np.maximum.at(last, operand[there], np.flatnonzero(there))
    free: dict[bool, list[np.ndarray]] = {True: [], False: []}
    row = classes * width
    buffers: list[Any] = [None] * nodes
    full = [False] * nodes
    code: list[tuple[Any, tuple[np.ndarray, ...], Any]] = []
    inputs: list[tuple[np.ndarray, np.ndarray]] = []
    totals = np.zeros((int(is_root.sum()), width), np.float32)
    # Sums over positions and classes as one product with ones; what has no positions counts once for each.
    ones = np.ones(positions * classes, np.float32)
    each = np.full(classes, positions, np.float32)
    roots = 0
    first_terminal, constant = language.first_terminal, language.constant
    functions = [_host(operator) for operator in language.operators]
    reduces = [operator.reduces for operator in language.operators]
    lists = (found.token.tolist(), found.left.tolist(), found.right.tolist(), last.tolist(), is_root.tolist())
    last_use = lists[3]
    for node, (token, left, right, end, root) in enumerate(zip(*lists, strict=True)):
        if token >= first_terminal:
            if token == constant:
                buffer = np.full((1, row), found.value[node], np.float32)
            else:
                source = wide[token - first_terminal]
                buffer = np.ones((len(source), row), np.float32)
                inputs.append((buffer.reshape(len(source), classes, width), source))
                full[node] = len(source) > 1
        else:
            reduce = reduces[token - 1]
            is_full = full[left] or (right >= 0 and full[right])
            needs = (left,) if right < 0 else (left, right)
            operands = tuple(buffers[of] for of in needs)
            if reduce:
                if not is_full:
                    operands = tuple(np.broadcast_to(operand, (positions, row)) for operand in operands)
                is_full = False
            pool = free[is_full]
            buffer = pool.pop() if pool else np.empty((positions if is_full else 1, row), np.float32)
            full[node] = is_full
            code.append((functions[token - 1], operands, buffer))
            # Leaves keep their buffers: they are filled once per tile.
            if last_use[left] == node and found.left[left] >= 0:
                free[full[left]].append(buffers[left])
            if right >= 0 and right != left and last_use[right] == node and found.left[right] >= 0:
                free[full[right]].append(buffers[right])
        buffers[node] = buffer
        if root:
            summed = (ones, buffer.reshape(-1, width)) if full[node] else (each, buffer.reshape(classes, width))
            code.append((np.dot, summed, totals[roots]))
            roots += 1
            if token < first_terminal and end == node:
                free[full[node]].append(buffer)
    return code, inputs, totals


def _host(operator: Any) -> Any:
    """The operator on NumPy arrays with positions on the first axis."""
    if operator.host is not None:
        return operator.host

    def through_jax(*operands_and_out: np.ndarray) -> None:
        *operands, out = operands_and_out
        result = operator.function(*(jnp.asarray(np.moveaxis(np.atleast_2d(x), 0, -1)) for x in operands))
        out[...] = np.moveaxis(np.asarray(result), -1, 0)

    return through_jax
