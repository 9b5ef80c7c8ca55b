"""The probability of the next bit, from counts of the bits before it in several contexts.

A bit belongs to several *contexts*: its row, its column, its kernel position ...  Each context k counts the ones and
zeros among its own bits so far, n1 and n0; with N1 and N0 those of all bits so far it says

    x_k = log2((n1 + 1) / (n0 + N0/N1)) - log2(N1 / N0),     0 as long as it is empty

that is, by how much the odds of a one are higher here than elsewhere, when one imagined one is shared with the whole.
The log-odds of the bit are the weighted sum

    x = w_0 log2(N1 / N0) + sum_k w_k x_k

and after each bit the weights move along the gradient of its code length, w_k <- w_k + eta (bit - p) x_k.  Everything
is integer arithmetic (`_logistic`), so a decoder on another machine finds the same probabilities.

Sources: Mahoney, "Adaptive Weighing of Context Models for Lossless Data Compression", Florida Tech CS-2005-16, for
the mixing; Krichevsky, Trofimov, "The performance of universal encoding", IEEE Trans. Inf. Theory 1981, for the counts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import no_type_check

from compressjax.storage._logistic import CERTAIN, LOGARITHMS, UNIT, probability

WEIGHT = 1 << 16  # a weight of one


@dataclass(frozen=True)
class Kind:
    """How one kind of bit is predicted.

    Attributes:
      name: Of the kind, under which its weights are remembered from leaf to leaf.
      contexts: How many contexts such a bit has.
      belief: Weight of every context at the start of a file, in units of 2^-16.
      ones: Ones counted before the first bit of a leaf, in halves.
      zeros: Likewise zeros.
      slowness: eta is 2^-slowness.
    """

    name: str
    contexts: int
    belief: int
    ones: int
    zeros: int
    slowness: int


# bit(kind, value, probability of a one in units of 2^-16) -> the bit: a writer returns the value, a reader ignores it.
Bit = Callable[[Kind, int, int], int]


class Predictor:
    """Predicts the bits of one kind in one leaf.

    Args:
      kind: Which.
      weights: w_0 and one weight per context, as an earlier leaf left them; None at the start of a file.
    """

    def __init__(self, kind: Kind, weights: Sequence[int] | None = None):
        self.kind = kind
        self.weights = list(weights or [WEIGHT] + [kind.belief] * kind.contexts)
        self._ones, self._zeros = kind.ones, kind.zeros
        self._counts: list[dict[int, list[int]]] = [{} for _ in range(kind.contexts)]

    @no_type_check  # by far the most called function of the room
    def code(self, value: int, contexts: Sequence[int], bit: Bit) -> int:
        """Takes one bit through `bit` under its predicted probability, and learns from it.

        One long function, because every entry of a leaf passes through it: logarithms are spelt out as in
        `_logistic.log2`, and contexts are looked up once.
        """
        ones, zeros, weights = self._ones, self._zeros, self.weights
        whole = ones.bit_length() - 1
        prior = whole * UNIT + LOGARITHMS[((ones << 8) >> whole) & 255]
        whole = zeros.bit_length() - 1
        base = prior - whole * UNIT - LOGARITHMS[((zeros << 8) >> whole) & 255]
        total = weights[0] * base
        inputs, seen = [base], []
        for place, number in enumerate(contexts, start=1):
            counts = self._counts[place - 1]
            if number in counts:
                found = counts[number]
                many, few = found[0] * ones + zeros, found[1] + 1
                whole = few.bit_length() - 1
                x = prior - base + whole * UNIT + LOGARITHMS[((few << 8) >> whole) & 255]
                whole = many.bit_length() - 1
                x -= whole * UNIT + LOGARITHMS[((many << 8) >> whole) & 255]
                total += weights[place] * x
            else:
                found = counts[number] = [0, 0]
                x = 0
            inputs.append(x)
            seen.append(found)
        one = probability(total // WEIGHT)
        value = bit(self.kind, value, one)
        error = CERTAIN * value - one
        shift = self.kind.slowness + 10  # a probability times log-odds comes in units of 2^-26
        for place, x in enumerate(inputs):
            if x:
                weights[place] += error * x >> shift
        for found in seen:
            found[value] += 1
        if value:
            self._ones += 2
        else:
            self._zeros += 2
        return value
