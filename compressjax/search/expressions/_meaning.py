r"""What programs mean for pruning: equal rankings are equal designs.

    normalized     x + c, c + x, x - c, x * k, k * x, x / k, eps(x), ridge(x), mean(x), sum(x)  ->  x    at the root

with k a positive constant and c the same for all channels: constants, numbers of samples and what is made of them.  The
score sums over classes and positions, so these move or scale all scores of a layer alike.  Other monotone functions
do not: a sum of roots does not rank as the sum.

    induced        which channels are left at given cuts; programs that leave the same have the same fitness
    distance       share of the pairs of channels that two rankings put in different order, ties counting half

Source: Kendall, "A New Measure of Rank Correlation", Biometrika 1938.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from compressjax.search.expressions._language import PAPER, TINY, Language
from compressjax.search.expressions._programs import Programs, check

_SHIFTS = ("eps", "ridge")
_SCALES = ("mean", "sum")


def normalized(program: Programs, language: Language = PAPER) -> Programs:
    """Takes off the root what changes no ranking within a layer, up to rounding and the cut of large values.

    Args:
      program: (length,) arrays.
      language: What the tokens mean; operators go by the names of `PAPER`.

    Returns:
      A program of the same length; numbers of samples alone are left as they are, and so are constants.

    Raises:
      ValueError: If the program is malformed.

    >>> from compressjax.search.expressions import parse, unparse
    >>> unparse(normalized(parse("ridge(2 * (abs(gP - gQ) + nP / nQ))")))
    'abs(gP - gQ)'
    """
    if np.ndim(program.tokens) != 1:
        raise ValueError(
            f"The program has the shape {np.shape(program.tokens)}: give one, such as single(programs, 0)."
        )
    check(program, language)
    tokens, consts = np.asarray(program.tokens), np.asarray(program.consts)
    begin, end = 0, int(np.sum(tokens > 0))
    starts = _starts(tokens[:end], language)
    same = _alike(tokens[:end], starts, language)
    while True:
        root = end - 1
        name = language.tokens[tokens[root]]
        arity = int(language.arity[tokens[root]])
        if same[root]:
            break
        if arity == 1 and name in _SHIFTS + _SCALES:
            end -= 1
            continue
        if arity == 2 and name in ("add", "sub", "mul", "div"):
            right = (int(starts[root - 1]), root)
            left = (int(starts[right[0] - 1]), right[0])
            goes = _scale if name in ("mul", "div") else _shift
            if goes(right, tokens, consts, same, language):
                begin, end = left
                continue
            if name in ("add", "mul") and goes(left, tokens, consts, same, language):
                begin, end = right
                continue
        break
    out = np.zeros_like(tokens), np.zeros_like(consts)
    for whole, part in zip(out, (tokens, consts), strict=True):
        whole[: end - begin] = part[begin:end]
    return Programs(jnp.asarray(out[0]), jnp.asarray(out[1]))


def _starts(tokens: np.ndarray, language: Language) -> np.ndarray:
    """First token of the subtree that ends at every token."""
    out = np.zeros(len(tokens), int)
    stack: list[int] = []
    for place, token in enumerate(tokens):
        operands = [stack.pop() for _ in range(int(language.arity[token]))]
        out[place] = operands[-1] if operands else place
        stack.append(int(out[place]))
    return out


def _alike(tokens: np.ndarray, starts: np.ndarray, language: Language) -> Bool[np.ndarray, " tokens"]:
    """Whether the subtree that ends at every token is the same for all channels."""
    differ = np.array([name not in language.alike and name != "#" for name in language.tokens])
    differ[: language.first_terminal] = False
    before = np.append(0, np.cumsum(differ[tokens]))
    return before[1:] == before[starts]


def _shift(part: tuple[int, int], tokens: Any, consts: Any, same: Any, language: Language) -> bool:
    return bool(same[part[1] - 1])


def _scale(part: tuple[int, int], tokens: Any, consts: Any, same: Any, language: Language) -> bool:
    last = part[1] - 1
    return bool(part[1] - part[0] == 1 and tokens[last] == language.constant and consts[last] > TINY)


def kept(scores: Float[Any, "population channels"], keep: int) -> Bool[np.ndarray, "population channels"]:
    """The channels that every program keeps: the highest scores, ties to the lower number.

    Args:
      scores: From `evaluate` or `shared`; not-a-number ranks last.
      keep: How many.

    Returns:
      Truth values.

    Raises:
      ValueError: If `keep` is out of range.

    >>> kept(np.array([[1.0, 3.0, 3.0, np.nan]]), 1)
    array([[False,  True, False, False]])
    """
    scores = np.asarray(scores)
    if not 0 <= keep <= scores.shape[1]:
        raise ValueError(f"keep={keep} must lie in 0..{scores.shape[1]}, the number of channels.")
    ranked = np.argsort(-np.where(np.isnan(scores), -np.inf, scores), axis=1, kind="stable")
    out = np.zeros(scores.shape, bool)
    np.put_along_axis(out, ranked[:, :keep], True, axis=1)
    return out


def induced(scores: Mapping[str, Float[Any, "population channels"]], keep: Mapping[str, int]) -> list[str]:
    """A key per program of what it keeps everywhere: programs with equal keys prune to the same network.

    Args:
      scores: Layer to scores of one population.
      keep: Layer to the number of channels that stay.

    Returns:
      One hexadecimal digest per program, to look up fitness by.

    Raises:
      ValueError: If the layers or the populations differ, or a cut is out of range.

    >>> one, other, same = induced({"conv": np.array([[1.0, 2.0], [2.0, 1.0], [0.0, 9.0]])}, {"conv": 1})
    >>> one == same, one == other
    (True, False)
    """
    if not scores or scores.keys() != keep.keys():
        raise ValueError(f"scores has the layers {list(scores)} and keep has {list(keep)}: they must be the same.")
    counts = {name: np.shape(array)[0] for name, array in scores.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"The layers have scores of different numbers of programs: {counts}.")
    rows = np.concatenate([kept(scores[name], keep[name]) for name in sorted(scores)], axis=1)
    return [hashlib.sha256(row.tobytes()).hexdigest()[:32] for row in np.packbits(rows, axis=1)]


def distances(scores: Float[Any, "population channels"]) -> Float[Array, "population population"]:
    """Kendall's distance between the rankings of all pairs of programs.

    Args:
      scores: From `evaluate` or `shared`, at least two channels; memory grows with population x channels^2.

    Returns:
      0 for the same order, 1 for the reverse, 0.5 for unrelated ones, and for a pair of which one is tied.

    Raises:
      ValueError: If there are fewer than two channels.

    >>> distances(jnp.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    scores = jnp.asarray(scores)
    channels = scores.shape[1]
    if channels < 2:
        raise ValueError(f"A ranking of {channels} channels has no pairs: give at least 2.")
    first, second = np.triu_indices(channels, 1)
    # Comparing twice and not subtracting: infinite scores are tied with each other.
    signs = (scores[:, first] > scores[:, second]).astype(jnp.float32) - (scores[:, first] < scores[:, second])
    ties = jnp.einsum("ip,jp->ij", 1 - jnp.abs(signs), 1 - jnp.abs(signs))
    agreement = jnp.einsum("ip,jp->ij", signs, signs) + ties  # a pair that both tie is one on which they agree
    return (1 - agreement / len(first)) / 2
