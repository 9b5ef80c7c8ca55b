"""Probability models of value codes: uniform, a coarse histogram, or a one-parameter bell.

All are small integers or exactly reproducible float64 products, so that encoder and decoder build the same table on any
machine (no `exp`, no `pow`):

    uniform     p(s) = 1/n                     nothing stored
    histogram   p(s) ~ w_s                     w_s a 4-bit or 8-bit floating-point count per symbol
    laplace     p(s) ~ t^|j_s|                 one of 32 values of t; needs integer levels j_s
    gauss       p(s) ~ t^(j_s^2)
"""

from dataclasses import dataclass

import numpy as np

from compressjax.storage._coder import Reader, Writer, information

_KINDS = np.array([4, 4, 2, 2, 2], np.float64)  # prior over the five models, in the order below
UNIFORM, HISTOGRAM4, HISTOGRAM8, LAPLACE, GAUSS = range(5)
_LARGEST_HISTOGRAM = 1024
_DECAYS = 32


@dataclass(frozen=True, eq=False)
class Model:
    """A probability model and what it costs.

    Attributes:
      kind: One of the module's five constants.
      parameters: Integers to store: histogram codes, or the decay's index.
      weights: Unnormalised probabilities, float64.
      side_bits: Bits to store the model.
      data_bits: Bits of the data it was fitted to.
    """

    kind: int
    parameters: np.ndarray
    weights: np.ndarray
    side_bits: float
    data_bits: float


def histogram_weights(codes: np.ndarray, width: int) -> np.ndarray:
    """Counts from floating-point codes: 0 -> 0, else (2^m + c mod 2^m) 2^(c div 2^m), m = 1 (4 bits) or 4 (8 bits).

    >>> histogram_weights(np.array([0, 1, 2, 3, 4, 15]), 4)
    array([  0.,   3.,   4.,   6.,   8., 384.])
    """
    m = 1 if width == 4 else 4
    codes = codes.astype(np.int64)
    return np.where(codes > 0, ((1 << m) + codes % (1 << m)) * 2.0 ** (codes >> m), 0.0)


def _histogram_codes(counts: np.ndarray, width: int) -> np.ndarray:
    """The nearest code of every count, relative to the largest count; absent symbols get code 0."""
    grid = histogram_weights(np.arange(1 << width), width)
    scaled = counts * (grid[-1] / counts.max())
    # Nearest on a log scale, with the geometric mean of neighbours as border.
    codes = 1 + np.searchsorted(np.sqrt(grid[1:-1] * grid[2:]), scaled)
    return np.where(counts > 0, codes, 0)


def bell_weights(levels: np.ndarray, kind: int, decay: int) -> np.ndarray:
    """t^|j| or t^(j^2) for integer levels j, floored at 2^-20, with 1 - t = (2 + d mod 2) / 2^(2 + d div 2).

    >>> bell_weights(np.array([-1, 0, 2]), LAPLACE, 0)
    array([0.5 , 1.  , 0.25])
    """
    t = 1.0 - (2 + decay % 2) / 2.0 ** (2 + decay // 2)
    size = int(np.abs(levels).max()) + 1
    powers = np.cumprod(np.concatenate([[1.0], np.full(size - 1, t)]))  # t^j by repeated multiplication
    if kind == GAUSS:  # j^2 = 1 + 3 + ... + (2j - 1)
        steps = np.concatenate([[1.0], powers[1:] * powers[:-1]])
        powers = np.cumprod(steps)
    return np.maximum(powers[np.abs(levels)], 2.0**-20)


def fit(counts: np.ndarray, levels: np.ndarray | None) -> Model:
    """The cheapest model, its own storage included, for symbols that occur `counts` times.

    Args:
      counts: Occurrences of each symbol, with at least one non-zero.
      levels: The integers the symbols stand for, if they are integers; enables the bells.

    Returns:
      The model; of equals the simplest.
    """
    counts = counts.astype(np.float64)
    kinds = information(_KINDS)
    none = np.zeros(0, np.int64)
    flat = np.ones(counts.size)
    best = Model(UNIFORM, none, flat, kinds[UNIFORM], float(counts.sum() * np.log2(counts.size)))

    def consider(kind: int, parameters: np.ndarray, weights: np.ndarray, side: float) -> None:
        nonlocal best
        data = float(counts @ information(weights))
        if side + kinds[kind] + data < best.side_bits + best.data_bits:
            best = Model(kind, parameters, weights, side + float(kinds[kind]), data)

    if 1 < counts.size <= _LARGEST_HISTOGRAM:
        for kind, width in ((HISTOGRAM4, 4), (HISTOGRAM8, 8)):
            codes = _histogram_codes(counts, width)
            consider(kind, codes, histogram_weights(codes, width), float(width * counts.size))
    if levels is not None and counts.size > 2:
        for kind in (LAPLACE, GAUSS):
            for decay in range(_DECAYS):
                consider(kind, np.array([decay]), bell_weights(levels, kind, decay), 5.0)
    return best


def write(writer: Writer, model: Model) -> None:
    """Stores the model."""
    writer.symbol(model.kind, _KINDS)
    if model.kind in (HISTOGRAM4, HISTOGRAM8):
        writer.uniform(model.parameters, 16 if model.kind == HISTOGRAM4 else 256)
    elif model.kind in (LAPLACE, GAUSS):
        writer.integer(int(model.parameters[0]), _DECAYS)


def read(reader: Reader, size: int, levels: np.ndarray | None) -> np.ndarray:
    """The weights of a stored model over `size` symbols."""
    kind = reader.symbol(_KINDS)
    if kind == UNIFORM:
        return np.ones(size)
    if kind in (HISTOGRAM4, HISTOGRAM8):
        if not 1 < size <= _LARGEST_HISTOGRAM:
            raise ValueError(f"The artefact has a histogram over {size} symbols: it is damaged.")
        width = 4 if kind == HISTOGRAM4 else 8
        weights = histogram_weights(reader.uniform(size, 1 << width), width)
        if not weights.any():
            raise ValueError("The artefact has an empty histogram: it is damaged.")
        return weights
    if levels is None:
        raise ValueError("The artefact has a bell-shaped model over a table: it is damaged.")
    return bell_weights(levels, kind, reader.integer(_DECAYS))
