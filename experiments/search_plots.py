"""The plots of searches: best and median per generation, and the front of several objectives.

Both take plain records, as `compressjax.search.to_json` makes them, and know nothing of the search that wrote them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.style import CYCLE, GREY, Record, legend, new_figure, styled


@styled
def fitness_by_generation(searches: Mapping[str, Sequence[Record]], label: str = "fitness") -> Figure | None:
    """Best so far and median per generation, one colour per search; failures and lower fidelities are left out.

    Args:
      searches: Name to records, plain.
      label: What the fitness is.

    Returns:
      The figure, evaluations along the x axis; None if nothing succeeded.
    """
    figure, axes = new_figure(5.6, 3.4)
    ax = axes[0, 0]
    drawn = False
    for i, (name, records) in enumerate(searches.items()):
        x, best, median = curves(records)
        if not len(x):
            continue
        drawn, colour = True, CYCLE[i % len(CYCLE)]
        ax.plot(x, best, "-", color=colour, linewidth=1.6, label=f"{name}, best so far")
        ax.plot(x, median, ":", color=colour, linewidth=1.1, label=f"{name}, median")
    if not drawn:
        return None
    ax.set_xlabel("candidates")
    ax.set_ylabel(label)
    legend(ax)
    return figure


@styled
def fronts(searches: Mapping[str, Sequence[Record]], labels: tuple[str, str]) -> Figure | None:
    """All candidates of two objectives in grey, and the front of each search.

    Args:
      searches: Name to records, plain, with two objectives each.
      labels: What the objectives are.

    Returns:
      The figure; None if nothing succeeded.
    """
    figure, axes = new_figure(5.0, 3.8)
    ax = axes[0, 0]
    drawn = False
    for i, (name, records) in enumerate(searches.items()):
        points = np.array([r["fitness"] for r in records if not r["failed"]]).reshape(-1, 2)
        if not len(points):
            continue
        drawn = True
        ax.plot(points[:, 0], points[:, 1], ".", color=GREY, markersize=2, alpha=0.4, zorder=1)
        best = points[on_front(points)]
        colour = CYCLE[i % len(CYCLE)]
        ax.step(best[:, 0], best[:, 1], where="post", color=colour, linewidth=1.2, zorder=2)
        ax.plot(
            best[:, 0], best[:, 1], "o", color=colour, markersize=3.5, label=f"{name}, {len(best)} points", zorder=3
        )
    if not drawn:
        return None
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])
    legend(ax)
    return figure


def curves(records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Candidates proposed until the end of each generation, the best fitness so far, and the generation's median.

    >>> plain = lambda g, f: {"generation": g, "fitness": [f], "fidelity": 0, "failed": False}
    >>> curves([plain(0, 3.0), plain(0, 1.0), plain(1, 2.0), plain(1, 4.0)])
    (array([2, 4]), array([1., 1.]), array([2., 3.]))
    """
    last = max((r["fidelity"] for r in records), default=0)
    seen, x = 0, list[int]()
    best, median = list[float](), list[float]()
    for generation in sorted({r["generation"] for r in records}):
        members = [r for r in records if r["generation"] == generation]
        seen += len(members)
        able = [r["fitness"][0] for r in members if not r["failed"] and r["fidelity"] == last]
        if able:
            x.append(seen)
            best.append(min(able + best[-1:]))
            median.append(float(np.median(able)))
    return np.array(x, int), np.array(best), np.array(median)


def on_front(points: np.ndarray) -> np.ndarray:
    """Numbers of the points of two objectives that none dominates, from left to right; one of equal points.

    >>> on_front(np.array([[2.0, 1.0], [1.0, 2.0], [2.0, 2.0]]))
    array([1, 0])
    """
    out, lowest = [], np.inf
    for i in np.lexsort((points[:, 1], points[:, 0])):
        if points[i, 1] < lowest:
            out.append(i)
            lowest = points[i, 1]
    return np.array(out, int)
