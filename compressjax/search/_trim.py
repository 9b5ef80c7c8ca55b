r"""Trimming channels until a platform is fast enough: greedy, guided by a simulator, one group at a time.

Until the latency T meets the target T_0 / s::

    for every group: the largest width whose latency is <= T - step      (all widths at once)
    keep the candidate that is most accurate (after a short update)
    step <- decay * step

The first step is (T_0 - T_0 / s) / n.  The published form stops after n rounds, and with its decay of 0.96 then has not
reached s (1.30x instead of 1.5x after 18 rounds); here the rounds go on until the target is met, and the last step is
no longer than what is missing.  When no group can give a whole step any more, the step is halved.

A latency that is not a number is an error wherever the search may go; infinity says that a width cannot be had.

Source: Li et al., "CompactNet: Platform-Aware Automatic Optimization for Convolutional Neural Networks", 2019 (arXiv
1905.11669), which is NetAdapt (Yang et al., ECCV 2018, arXiv 1804.03230) with a decaying step.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from compressjax.channels._allocate import check_whole, checked_scores, least_width

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
        Infinite at widths that cannot be had.
      score: Parameters -> per group the score of every member; the lowest go first.
      accuracy: (parameters, keep) -> accuracy on validation data of the network cut to `keep`; not-a-number never wins.
      tune: (parameters, keep) -> parameters after a short update of the chosen network.
      speedup: Target, > 1.
      rounds: Rounds over which the reduction would be spread without decay.
      decay: Factor on the step from round to round.
      floor: Smallest width of every group, or a share of its size (at least 1 member stays).
      multiple: Widths are multiples of this: floors are rounded up to one, and a group that has not so many members
        stays whole, as in `compressjax.channels.allocate`.

    Yields:
      One `Step` per round; the last one meets the target.

    Raises:
      ValueError: At the first step, if an argument is out of range; at any step, if scores are missing, of the wrong
        length or not finite, a latency or every accuracy is not-a-number, or with all groups at their floor the target
        is still missed.

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
    if not speedup > 1 or not 0 < decay <= 1:
        raise ValueError(f"speedup={speedup} must exceed 1, and decay={decay} lie in (0, 1].")
    check_whole("rounds", rounds)
    check_whole("multiple", multiple)
    least = {name: least_width(sizes[name], width, multiple) for name, width in floors(sizes, floor).items()}
    longest = max(sizes.values())
    costs = jax.jit(jax.vmap(latency))

    def sweep(widths: Mapping[str, int], group: str) -> np.ndarray:
        """Latency with 1 .. longest members of a group, the others as they are; always the same shapes."""
        population = {name: jnp.full((longest,), width) for name, width in widths.items()}
        population[group] = jnp.minimum(jnp.arange(1, longest + 1), widths[group])
        return np.asarray(costs(population), np.float64)

    def ranked(params: Params) -> dict[str, np.ndarray]:
        found = score(params)
        return {name: checked_scores(name, size, found) for name, size in sizes.items()}

    keep: dict[str, np.ndarray] = {name: np.ones(size, bool) for name, size in sizes.items()}
    begin = now = _begin(sweep(dict(sizes), next(iter(sizes))), longest)
    target = begin / speedup
    step = (begin - target) / rounds
    number = 0
    scores, scored = ranked(params), params
    while now > target * (1 + 1e-6):  # latencies may be float32
        if scored is not params:
            scores, scored = ranked(params), params
        widths = {name: int(kept.sum()) for name, kept in keep.items()}
        needed = now - min(step, now - target)
        candidates, kept_by = [], {}
        for group in sizes:
            times = sweep(widths, group)
            allowed = range(least[group], widths[group], multiple)  # a floor is a multiple, or the whole group
            for width in allowed:
                if np.isnan(times[width - 1]):
                    raise ValueError(
                        f"latency is nan at widths {widths | {group: width}}: return inf for what cannot be had, or "
                        "raise the floor."
                    )
            fits = [width for width in allowed if times[width - 1] <= needed * (1 + 1e-6)]
            if fits:
                width = fits[-1]
                kept_by[group] = {**keep, group: highest(scores[group], keep[group], width)}
                found = float(accuracy(params, kept_by[group]))
                candidates.append(Candidate(group, width, float(times[width - 1]), found))
        if not candidates:
            step /= 2
            if step < (begin - target) * 1e-4:
                raise ValueError(
                    f"A speed-up of {speedup} cannot be met: with every group at its floor it is {begin / now:.3f}. "
                    "Lower the floors, the multiple or the target."
                )
            continue
        if all(np.isnan(candidate.accuracy) for candidate in candidates):
            raise ValueError(
                f"accuracy is nan for all candidates of round {number + 1} "
                f"({', '.join(f'{c.group} at {c.width}' for c in candidates)}): none can be chosen."
            )
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
      ValueError: If even the smallest keep set costs more than `target`, or `target` or a cost is not-a-number.

    >>> family = lambda share: {"a": np.arange(10) < round(10 * share)}
    >>> int(at_cost(family, lambda widths: widths["a"] ** 2.0, 30.0)["a"].sum())
    5
    """

    def price(keep: Keep) -> float:
        widths = {name: int(np.sum(kept)) for name, kept in keep.items()}
        found = float(cost(widths))
        if np.isnan(found):
            raise ValueError(f"cost is nan at widths {widths}: it must be a number.")
        return found

    if np.isnan(target):
        raise ValueError(f"target={target} must be a number.")

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


def _begin(times: np.ndarray, longest: int) -> float:
    """Latency of the untrimmed network, the last of a sweep."""
    if times.shape != (longest,):
        raise ValueError(f"latency returns arrays of shape {times.shape[1:]}: it must return one number per network.")
    if not 0 < times[-1] < np.inf:
        raise ValueError(f"latency of the untrimmed network is {times[-1]}: it must be finite and above 0.")
    return float(times[-1])


def floors(sizes: Mapping[str, int], floor: Mapping[str, int] | float) -> dict[str, int]:
    if not sizes:
        raise ValueError("There is no group to trim.")
    for name, size in sizes.items():
        check_whole(f"size of group {name!r}", size)
    if not isinstance(floor, Mapping):
        if not 0 <= floor <= 1:
            raise ValueError(f"floor={floor} is a share and must lie in [0, 1].")
        return {name: max(1, int(np.ceil(floor * size))) for name, size in sizes.items()}
    for name in floor:
        if name not in sizes:
            raise ValueError(f"floor names {name!r}, which is none of the groups {', '.join(sizes)}.")
    for name, size in sizes.items():
        if name not in floor:
            raise ValueError(f"floor has nothing for group {name!r}: it must lie in 1..{size}.")
        check_whole(f"floor of group {name!r}", floor[name])
        if floor[name] > size:
            raise ValueError(f"floor of group {name!r} is {floor[name]}: it must lie in 1..{size}.")
    return dict(floor)


def highest(scores: Any, kept: np.ndarray, width: int) -> np.ndarray:
    """The `width` highest scores among the kept members; ties go to the lower number."""
    order = np.argsort(-np.where(kept, np.asarray(scores, np.float64), -np.inf), kind="stable")
    out = np.zeros(kept.shape, bool)
    out[order[:width]] = True
    return out
