r"""Automatic amounts by FLOPs: prune in every round the groups that bear it best, at equal savings.

One round, until the cost C meets C_0 / s::

    dF_l = C(widths) - C(widths, one member less in l)           what one member of group l costs
    n_l  = max(1, floor(amount * max_j dF_j / dF_l))             members that together cost about the same
    A_l  = accuracy with the n_l lowest-scored members of l masked, nothing retrained
    prune n_l members of each of the `layers` groups with the highest A_l, then tune

A cheap group is tried with many members, a dear one with few, so that the accuracies compare like with like.  In the
last round groups are pruned, best first, only until the target is met.  Where fewer than n_l members stand above the
floor, those are tried.

The released code stops after a number of rounds, and its n_l may be 0; here the rounds go on until the target is met,
and at least one member is tried.

Source: the automatic mode by FLOPs of class-discriminative compression (CDC), as in its released code.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from compressjax.channels._allocate import check_whole, checked_scores, least_width
from compressjax.search._trim import Keep, Params, Scores, Widths, floors, highest


class Trial(NamedTuple):
    """One group tried alone: members masked, the width left, the cost then, and the accuracy without retraining."""

    group: str
    removed: int
    width: int
    cost: float
    accuracy: float


class Round(NamedTuple):
    """One round: the state after it, the groups that were pruned (best first), and all that were tried."""

    number: int
    params: Params
    keep: Keep
    cost: float
    chosen: tuple[Trial, ...]
    trials: tuple[Trial, ...]


def sensitivity(
    params: Params,
    sizes: Mapping[str, int],
    *,
    cost: Callable[[Widths], Float[Array, ""]],
    score: Callable[[Params], Scores],
    accuracy: Callable[[Params, Keep], float],
    tune: Callable[[Params, Keep], Params] = lambda params, keep: params,
    speedup: float,
    layers: int = 1,
    amount: float = 1.0,
    floor: Mapping[str, int] | float = 1 / 8,
    multiple: int = 1,
) -> Iterator[Round]:
    """Prunes groups in rounds, chosen by masked accuracy at equal savings, until the cost is a `speedup`-th.

    Args:
      params: Parameters of the whole network; handed to `score`, `accuracy` and `tune`, and not looked into.
      sizes: Members of every group that may be pruned.
      cost: Widths (group -> count, any dtype) -> cost such as multiply-adds; a pure JAX function, called under
        `jax.vmap`.  It must rise with every width.
      score: Parameters -> per group the score of every member; the lowest go first.
      accuracy: (parameters, keep) -> accuracy on validation data with all but `keep` masked; not-a-number never wins.
      tune: (parameters, keep) -> parameters after a short retraining of the pruned network.
      speedup: Target: the cost divided by this, > 1.
      layers: Groups pruned per round.
      amount: Scale of the amounts: about how many members of the dearest group go at a time, > 0.
      floor: Smallest width of every group, or a share of its size (at least 1 member stays).
      multiple: Widths are multiples of this, amounts rounded up; a smaller group stays whole, as in `trim`.

    Yields:
      One `Round` after another; the last one meets the target.

    Raises:
      ValueError: At the first round, if an argument is out of range; at any round, if scores are missing, of the wrong
        length or not finite, a cost is not finite or does not rise with a width, every accuracy is not-a-number, or
        with all groups at their floor the target is still missed.

    >>> rounds = list(
    ...     sensitivity(
    ...         None,
    ...         {"a": 8, "b": 16},
    ...         cost=lambda widths: 4.0 * widths["a"] + 1.0 * widths["b"],
    ...         score=lambda params: {"a": np.arange(8.0), "b": np.arange(16.0)},
    ...         accuracy=lambda params, keep: 1.0 - 0.01 * float((~keep["a"]).sum() + (~keep["b"]).sum()),
    ...         speedup=1.5,
    ...     )
    ... )
    >>> [(trial.group, trial.removed) for trial in rounds[0].trials]
    [('a', 1), ('b', 4)]
    >>> rounds[-1].cost <= 48 / 1.5, rounds[0].chosen[0].group
    (True, 'a')
    """
    if not speedup > 1 or not amount > 0 or not np.isfinite(amount):
        raise ValueError(f"speedup={speedup} must exceed 1, and amount={amount} be finite and above 0.")
    check_whole("layers", layers)
    check_whole("multiple", multiple)
    least = {name: least_width(sizes[name], width, multiple) for name, width in floors(sizes, floor).items()}
    names = list(sizes)
    prices = jax.jit(jax.vmap(cost))

    def price(networks: list[dict[str, int]]) -> np.ndarray:
        """Costs of some networks; always as many, so that one program does."""
        rows = [*networks, *[networks[0]] * (1 + len(names) - len(networks))]
        found = np.asarray(prices({name: jnp.asarray([row[name] for row in rows]) for name in names}), np.float64)
        if found.shape != (len(rows),):
            raise ValueError(f"cost returns arrays of shape {found.shape[1:]}: it must return one number per network.")
        for row, value in zip(rows, found, strict=True):
            if not np.isfinite(value):
                raise ValueError(f"cost is {value} at widths {row}: it must be a finite number.")
        return found[: len(networks)]

    keep: dict[str, np.ndarray] = {name: np.ones(size, bool) for name, size in sizes.items()}
    begin = now = float(price([dict(sizes)])[0])
    if not begin > 0:
        raise ValueError(f"cost of the whole network is {begin}: it must be above 0.")
    target = begin / speedup * (1 + 1e-6)  # costs may be float32
    number = 0
    while now > target:
        found = score(params)
        ranked = {name: checked_scores(name, size, found) for name, size in sizes.items()}
        widths = {name: int(kept.sum()) for name, kept in keep.items()}
        able = [name for name in names if least[name] < widths[name]]
        if not able:
            raise ValueError(
                f"A speed-up of {speedup} cannot be met: with every group at its floor it is {begin / now:.3f}. "
                "Lower the floors, the multiple or the target."
            )
        one_less = price([widths, *(widths | {name: widths[name] - 1} for name in able)])
        amounts = _amounts(able, one_less[0] - one_less[1:], amount)
        tried = {}
        for name in able:
            allowed = range(least[name], widths[name], multiple)  # a floor is a multiple, or the whole group
            fits = [width for width in allowed if width <= widths[name] - amounts[name]]
            tried[name] = fits[-1] if fits else allowed[0]
        costs = price([widths | {name: width} for name, width in tried.items()])
        kept_by = {name: highest(ranked[name], keep[name], width) for name, width in tried.items()}
        trials = [
            Trial(name, widths[name] - width, width, float(at), float(accuracy(params, {**keep, name: kept_by[name]})))
            for (name, width), at in zip(tried.items(), costs, strict=True)
        ]
        known = [trial for trial in trials if not np.isnan(trial.accuracy)]
        if not known:
            raise ValueError(
                f"accuracy is nan for all groups tried in round {number + 1} "
                f"({', '.join(f'{t.group} at {t.width}' for t in trials)}): none can be chosen."
            )
        chosen: list[Trial] = []
        # Ties go to the cheaper network.
        for trial in sorted(known, key=lambda t: (-t.accuracy, t.cost))[:layers]:
            if now <= target:
                break
            keep = {**keep, trial.group: kept_by[trial.group]}
            widths = widths | {trial.group: trial.width}
            now = float(price([widths])[0])
            chosen.append(trial)
        params = tune(params, keep)
        number += 1
        yield Round(number, params, keep, now, tuple(chosen), tuple(trials))


def _amounts(names: list[str], saved: np.ndarray, amount: float) -> dict[str, int]:
    """How many members of each group cost about as much as `amount` of the dearest ones."""
    for name, value in zip(names, saved, strict=True):
        if not value > 0:
            raise ValueError(
                f"One member less of {name!r} saves {value:.6g}: the cost must rise with every width. Count "
                "multiply-adds or parameters; for platforms with plateaus there is search.trim."
            )
    # A ratio of 4 - 1e-7, from costs in float32, is 4.
    wanted = np.maximum(1, np.floor(amount * saved.max() / saved * (1 + 1e-5)))
    return {name: int(n) for name, n in zip(names, wanted, strict=True)}
