"""Published figures that our results are set against, by data set and network.

A headline is often quoted without the accuracy it was reached at; then `accuracy` is None and the plots draw a line at
the ratio instead of a point.  ``kind`` says what the ratio counts: non-zero weights (``"pruning"``), the bits of their
values only (``"data"``), or values and positions (``"file"``).
"""

from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Published:
    label: str
    ratio: float
    accuracy: float | None
    kind: str


# The ratios of the ADMM line are stated in abstracts and releases.  The accuracies, except that of 71.2x, and the
# ratios with positions (33x, 623x) are those commonly quoted for these papers, not checked against their tables.
FIGURES = MappingProxyType(
    {
        ("mnist", "lenet5"): (
            Published("Han et al. 2015", 12.0, 0.992, "pruning"),
            Published("ADMM (ECCV 2018)", 71.2, 0.992, "pruning"),
            Published("ADMM-NN", 85.0, 0.992, "pruning"),
            Published("arXiv 1811.01907", 167.0, 0.990, "pruning"),
            Published("arXiv 1903.09769", 246.0, None, "pruning"),
            Published("ADMM-NN-S", 348.0, None, "pruning"),
            Published("arXiv 1811.01907", 1910.0, 0.990, "data"),
            Published("talk, June 2019", 4438.0, None, "data"),
            Published("Deep Compression", 33.0, 0.992, "file"),
            Published("arXiv 1811.01907", 623.0, 0.990, "file"),
        ),
    }
)


def published(dataset: str, model: str) -> list[dict[str, Any]]:
    """The figures for one data set and network, as plain dicts; empty where none is known.

    >>> published("mnist", "lenet5")[2]
    {'label': 'ADMM-NN', 'ratio': 85.0, 'accuracy': 0.992, 'kind': 'pruning'}
    >>> published("digits", "lenet5")
    []
    """
    return [asdict(figure) for figure in FIGURES.get((dataset, model), ())]
