r"""Trimming channels until a platform is fast enough: greedy, guided by a simulator, one group at a time.

Until the latency T meets the target T_0 / s::

    for every group: the largest width whose latency is <= T - step      (all widths at once)
    keep the candidate that is most accurate (after a short update)
    step <- decay * step

The first step is (T_0 - T_0 / s) / n.  The published form stops after n rounds, and with its decay of 0.96 then has not
reached s (1.30x instead of 1.5x after 18 rounds); here the rounds go on until the target is met, and the last step is
no longer than what is missing.  When no group can give a whole step any more, the step is halved.

Source: Li et al., "CompactNet: Platform-Aware Automatic Optimization for Convolutional Neural Networks", 2019 (arXiv
1905.11669), which is NetAdapt (Yang et al., ECCV 2018, arXiv 1804.03230) with a decaying step.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

Params = Any
Keep = Mapping[str, Bool[np.ndarray, " members"]]
Scores = Mapping[str, Float[Any, " members"]]
Widths = Mapping[str, Any]  # group -> number of members, an int or an array of a population


class Candidate(NamedTuple):
    """One group trimmed by one step: its new width, and what that costs and gives."""

    group: str
    width: int
    latency: float
    accuracy: float


class Step(NamedTuple):
    """One round: the state after it, and all candidates that were compared."""

    number: int
    params: Params
    keep: Keep
    latency: float
    chosen: Candidate
    candidates: tuple[Candidate, ...]


def trim(
    params: Params,
    sizes: Mapping[str, int],
    *,
    latency: Callable[[Widths], Float[Array, ""]],
    score: Callable[[Params], Scores],
    accuracy: Callable[[Params, Keep], float],
    tune: Callable[[Params, Keep], Params] = lambda params, keep: params,
    speedup: float,
    rounds: int = 18,
    decay: float = 0.96,
    floor: Mapping[str, int] | float = 1 / 8,
    multiple: int = 1,
) -> Iterator[Step]:
    """Trims groups of channels until the network is `speedup` times as fast on a platform.

    Args:
      params: Parameters of the untrimmed network; handed to `score`, `accuracy` and `tune`, and not looked into.
      sizes: Members of every group that may be trimmed.
      latency: Widths (group -> count, any dtype) -> latency in any unit; a pure JAX function, called under `jax.vmap`.
      score: Parameters -> per group the score of every member; the lowest go first.
      accuracy: (parameters, keep) -> accuracy on validation data of the network cut to `keep`.
      tune: (parameters, keep) -> parameters after a short update of the chosen network.
      speedup: Target, > 1.
      rounds: Rounds over which the reduction would be spread without decay.
      decay: Factor on the step from round to round.
      floor: Smallest width of every group, or a share of its size (at least 1 member stays).
      multiple: Widths tried are multiples of this (and the present width).

    Yields:
      One `Step` per round; the last one meets the target.

    Raises:
      ValueError: If the arguments are out of range, or with all groups at their floor the target is still missed.

    >>> steps = list(
    ...     trim(
    ...         None,
    ...         {"a": 8, "b": 8},
    ...         latency=lambda widths: 3.0 * widths["a"] + 1.0 * widths["b"],
    ...         score=lambda params: {"a": np.arange(8.0), "b": np.arange(8.0)},
    ...         accuracy=lambda params, keep: 1.0 - 0.01 * float((~keep["a"]).sum() + 2 * (~keep["b"]).sum()),
    ...         speedup=2.0,
    ...         rounds=4,
    ...     )
    ... )
    >>> steps[-1].latency <= 16.0, steps[0].chosen.group
    (True, 'a')
    """
    if not speedup > 1 or rounds < 1 or not 0 < decay <= 1 or multiple < 1:
        raise ValueError(
            f"speedup={speedup} must exceed 1, rounds={rounds} and multiple={multiple} be at least 1, and "
            f"decay={decay} lie in (0, 1]."
        )
    least = _floors(sizes, floor)
    longest = max(sizes.values())
    costs = jax.jit(jax.vmap(latency))

    def sweep(widths: Mapping[str, int], group: str) -> np.ndarray:
        """Latency with 1 .. longest members of a group, the others as they are; always the same shapes."""
        population = {name: jnp.full((longest,), width) for name, width in widths.items()}
        population[group] = jnp.minimum(jnp.arange(1, longest + 1), widths[group])
        return np.asarray(costs(population), np.float64)

    keep: dict[str, np.ndarray] = {name: np.ones(size, bool) for name, size in sizes.items()}
    begin = now = float(sweep(dict(sizes), next(iter(sizes)))[sizes[next(iter(sizes))] - 1])
    target = begin / speedup
    step = (begin - target) / rounds
    number = 0
    scores, scored = score(params), params
    while now > target * (1 + 1e-6):  # latencies may be float32
        if scored is not params:
            scores, scored = score(params), params
        widths = {name: int(kept.sum()) for name, kept in keep.items()}
        needed = now - min(step, now - target)
        candidates, kept_by = [], {}
        for group in sizes:
            times = sweep(widths, group)
            allowed = np.arange(1, longest + 1)
            fits = (times <= needed * (1 + 1e-6)) & (allowed >= least[group]) & (allowed < widths[group])
            fits &= (allowed % multiple == 0) | (allowed == least[group])
            if fits.any():
                width = int(allowed[fits][-1])
                kept_by[group] = {**keep, group: _best(scores[group], keep[group], width)}
                found = float(accuracy(params, kept_by[group]))
                candidates.append(Candidate(group, width, float(times[width - 1]), found))
        if not candidates:
            step /= 2
            if step < (begin - target) * 1e-4:
                raise ValueError(
                    f"A speed-up of {speedup} cannot be met: with every group at its floor it is {begin / now:.3f}. "
                    "Lower the floors or the target."
                )
            continue
        # Not-a-number never wins; ties go to the faster network.
        chosen = max(candidates, key=lambda c: (-np.inf if np.isnan(c.accuracy) else c.accuracy, -c.latency))
        keep, now = kept_by[chosen.group], chosen.latency
        params = tune(params, keep)
        number += 1
        step *= decay
        yield Step(number, params, keep, now, chosen, tuple(candidates))


def at_cost(
    keep_at: Callable[[float], Keep],
    cost: Callable[[Widths], Float[Array, ""]],
    target: float,
    *,
    iterations: int = 40,
) -> Keep:
    """The largest keep set of a one-parameter family that costs at most `target`, by bisection.

    Args:
      keep_at: Share of channels to keep, in [0, 1] -> keep set; larger shares must not cost less.
      cost: Widths (group -> count) -> cost.
      target: In the unit of `cost`.
      iterations: Halvings of the interval of shares.

    Returns:
      The keep set.

    Raises:
      ValueError: If even the smallest keep set costs more than `target`.

    >>> family = lambda share: {"a": np.arange(10) < round(10 * share)}
    >>> int(at_cost(family, lambda widths: widths["a"] ** 2.0, 30.0)["a"].sum())
    5
    """

    def price(keep: Keep) -> float:
        return float(cost({name: int(np.sum(kept)) for name, kept in keep.items()}))

    low, high = 0.0, 1.0
    best = keep_at(low)
    if (least := price(best)) > target:
        raise ValueError(f"The smallest network of this family costs {least:.6g}, more than the target {target:.6g}.")
    if price(whole := keep_at(high)) <= target:
        return whole
    for _ in range(iterations):
        middle = (low + high) / 2
        keep = keep_at(middle)
        if price(keep) <= target:
            low, best = middle, keep
        else:
            high = middle
    return best


def _floors(sizes: Mapping[str, int], floor: Mapping[str, int] | float) -> dict[str, int]:
    if not sizes:
        raise ValueError("There is no group to trim.")
    if not isinstance(floor, Mapping):
        if not 0 <= floor <= 1:
            raise ValueError(f"floor={floor} is a share and must lie in [0, 1].")
        return {name: max(1, int(np.ceil(floor * size))) for name, size in sizes.items()}
    for name, size in sizes.items():
        if not 1 <= floor.get(name, 0) <= size:
            raise ValueError(f"floor of group {name!r} must lie in 1..{size}.")
    return dict(floor)


def _best(scores: Any, kept: np.ndarray, width: int) -> np.ndarray:
    """The `width` highest scores among the kept members; ties go to the lower number."""
    order = np.argsort(-np.where(kept, np.asarray(scores, np.float64), -np.inf), kind="stable")
    out = np.zeros(kept.shape, bool)
    out[order[:width]] = True
    return out
