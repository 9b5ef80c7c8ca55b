"""Logarithms and the logistic function in integers: the same bits on every machine.

Log-odds are integers in units of 1/1024 bit, probabilities integers in units of 2^-16.  The tables are made from exact
integer square roots, 2^(1/2), 2^(1/4) .. 2^(1/64), so that nothing depends on a floating-point library.
"""

from math import isqrt
from typing import no_type_check

UNIT = 1024  # log-odds per bit (a factor of two in the odds)
CERTAIN = 1 << 16  # a probability of one
_FINE = 64  # table entries per bit
_FURTHEST = 12  # bits; the table ends at odds of 2^12
_LEAST = 16  # no probability is smaller: 2^-12


def _powers() -> list[int]:
    """2^(k/64) for k = 0..63, in units of 2^-32."""
    root = 2 << 96
    for _ in range(6):  # six square roots of 2
        root = isqrt(root << 96)
    out = [1 << 96]
    for _ in range(_FINE - 1):
        out.append(out[-1] * root >> 96)
    return [value >> 64 for value in out]


def _logarithms() -> list[int]:
    """log2(1 + k/256) for k = 0..255, in units of 1/1024, bit by bit: squaring doubles a logarithm."""
    out = []
    for k in range(256):
        x, bits = (256 + k) << 56, 0
        for _ in range(10):
            x = x * x >> 64
            carry = x >> 65
            x >>= carry
            bits = 2 * bits + carry
        out.append(bits)
    return out


_POWERS = _powers()
LOGARITHMS = _logarithms()
_SMALLER = [
    max(_LEAST, (CERTAIN << 32) // ((1 << 32) + (_POWERS[i % _FINE] << i // _FINE)))
    for i in range(_FINE * _FURTHEST + 1)
]


def log2(number: int) -> int:
    """log2 of a positive integer in units of 1/1024, within 4 of them (its nine leading bits count).

    >>> log2(1), log2(3), log2(1 << 70)
    (0, 1623, 71680)
    """
    whole = number.bit_length() - 1
    return whole * UNIT + LOGARITHMS[((number << 8) >> whole) & 255]


@no_type_check  # called once per bit
def probability(log_odds: int) -> int:
    """1 / (1 + 2^-x) for log-odds x in units of 1/1024; never nearer to 0 or 1 than 2^-12.

    >>> probability(0), probability(1024), probability(-(10**9))
    (32768, 43691, 16)
    """
    smaller = _SMALLER[min(abs(log_odds) * _FINE // UNIT, _FINE * _FURTHEST)]
    return CERTAIN - smaller if log_odds > 0 else smaller
