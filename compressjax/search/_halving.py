r"""Successive halving inside a generation: cheap evaluators first, and only the best go on to the dear ones.

All candidates see the first evaluator, the best ``survivors[0]`` of them the second, and so on; failures never go on.
Fitness of different fidelities is not compared: a candidate is told as no better than any that went further.

Source: Jamieson and Talwalkar, AISTATS 2016 (arXiv 1502.07943).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from compressjax.search._evaluate import FAILED, Evaluator, Known, rows, seeds_of


class Judged(NamedTuple):
    """A population's evaluation.

    Attributes:
      told: Fitness in the order that the strategy is to see, (members, objectives).
      failed: (members,) bool.
      cached: (members,) bool, at the last fidelity that a member saw.
      trails: Per member its fitness at each fidelity that it saw.
      seeds: Per member the key data of its evaluation.
      computed: Evaluations that were made.
    """

    told: np.ndarray
    failed: np.ndarray
    cached: np.ndarray
    trails: Sequence[tuple[tuple[float, ...], ...]]
    seeds: Sequence[tuple[int, ...]]
    computed: int


def judge(
    evaluators: Sequence[Evaluator],
    survivors: Sequence[int],
    objectives: int,
    designs: Mapping[str, np.ndarray],
    key: Array,
    known: Known,
    penalty: np.ndarray,
) -> Judged:
    """All fidelities, each on the survivors of the one before.

    Args:
      evaluators: The fidelities.
      survivors: How many go on after each but the last.
      objectives: Numbers per candidate.
      designs: The population's designs, name to (members, ...).
      key: Of this generation.
      known: What caching evaluators know.
      penalty: Added to what is told of a member that did not fail, (members,).

    Returns:
      A `Judged`.
    """
    names = rows(designs)
    count = len(names)
    trails: list[tuple[tuple[float, ...], ...]] = [()] * count
    seeds: list[tuple[int, ...]] = [()] * count
    failed, cached, computed = np.zeros(count, bool), np.zeros(count, bool), 0
    fitness = np.full((count, objectives), FAILED, jnp.result_type(float))
    active = np.arange(count)
    for level, (evaluator, size) in enumerate(zip(evaluators, (count, *survivors), strict=True)):
        if level:
            order = active[np.argsort(fitness[active, 0], kind="stable")]
            active = np.sort(order[~failed[order]][:size])
        if not len(active):
            break
        data = seeds_of(key, [names[i] for i in active], evaluator.common)
        outcome = evaluator.run(
            {name: value[active] for name, value in designs.items()},
            data,
            objectives=objectives,
            size=size,
            known=known,
            fidelity=level,
        )
        fitness[active], failed[active], cached[active] = outcome
        computed += int(np.sum(~outcome.cached))
        for row, i in enumerate(active):
            trails[i] += (tuple(outcome.fitness[row].tolist()),)
            seeds[i] = tuple(data[row].tolist())
    reached = np.array([len(trail) for trail in trails])
    told = fitness + np.where(failed, 0, penalty)[:, None].astype(fitness.dtype)
    return Judged(_ordered(told, reached, failed), failed, cached, trails, seeds, computed)


def _ordered(fitness: np.ndarray, reached: np.ndarray, failed: np.ndarray) -> np.ndarray:
    """Fitness to tell: nobody is better than one who went further; failures stay what they are."""
    told, worst = fitness.copy(), -np.inf
    for level in range(reached.max(), 0, -1):
        here = (reached == level) & ~failed
        told[here] = np.maximum(told[here], worst)
        worst = max(worst, told[here].max(initial=-np.inf))
    return told
