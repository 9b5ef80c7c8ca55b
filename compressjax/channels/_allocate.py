"""From scores to a keep set: how many members of every group stay, and which.

Two rankings::

    group    every group keeps the same share of its members, its best ones
    global   all members compete; before, the scores of each group are divided by their mean, because a layer's scale
             says nothing about its worth (without this one layer may lose everything)

Then widths are rounded to a multiple, no group falls below its floor rounded up to a multiple (or stays whole, where it
has not so many members), and within a group the highest scores stay; ties go to the lower number.  A larger share never
keeps less, so that a cost can be met by bisection over the share.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Array, Bool, Float

from compressjax.projections import GroupLike
from compressjax.projections._members import listed

RANKINGS = ("group", "global")
Vector = Float[np.ndarray, " members"] | Float[Array, " members"]


def allocate(
    groups: Iterable[GroupLike],
    scores: Mapping[str, Vector],
    share: float,
    *,
    ranking: str = "group",
    per_group: Mapping[str, float] | None = None,
    normalize: bool = True,
    multiple: int = 1,
    floor: float = 0.0,
) -> dict[str, Bool[np.ndarray, " members"]]:
    """Keeps a share of the members of all groups.

    Args:
      groups: Those that may lose members; others stay whole because the result does not name them.
      scores: Group name to the score of every member; larger stays longer.
      share: Share of the members to keep, in [0, 1].
      ranking: ``"group"`` or ``"global"``.
      per_group: Shares of single groups by name, instead of `share` (and out of the global competition).
      normalize: Whether a global ranking divides each group's scores by their mean.
      multiple: Widths are rounded to the nearest positive multiple of this, to the whole group where that is nearer.
      floor: Least share of every group; see `least_width`.

    Returns:
      Group name to Boolean vector over its members.

    Raises:
      ValueError: If scores are missing, of the wrong length or not finite, `groups` is no sequence of groups, or a
        number is out of range.

    >>> from compressjax.channels._net import Group
    >>> groups = (Group("g0", 4, (), ()), Group("g1", 2, (), ()))
    >>> scores = {"g0": np.array([1.0, 3.0, 2.0, 4.0]), "g1": np.array([9.0, 1.0])}
    >>> {name: kept.tolist() for name, kept in allocate(groups, scores, 0.5).items()}
    {'g0': [False, True, False, True], 'g1': [True, False]}
    """
    if ranking not in RANKINGS:
        raise ValueError(f"There is no ranking {ranking!r}; choose one of {', '.join(RANKINGS)}.")
    check_whole("multiple", multiple)
    groups = listed(groups)
    own = dict(per_group or {})
    sizes = {group.name: group.size for group in groups}
    for name in own:
        if name not in sizes:
            raise ValueError(f"per_group names {name!r}, which is none of the groups {', '.join(sizes)}.")
    for name, value in {"share": share, "floor": floor, **own}.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name}={value} is a share and must lie in [0, 1].")
    ranked = {name: checked_scores(name, size, scores) for name, size in sizes.items()}
    counts = {name: round_half_up(own.get(name, share) * size) for name, size in sizes.items()}
    if ranking == "global":
        free = [name for name in sizes if name not in own]
        counts |= _compete({name: ranked[name] for name in free}, share, normalize)
    keep = {}
    for name, size in sizes.items():
        rounded = size if size - counts[name] < multiple / 2 else multiple * round_half_up(counts[name] / multiple)
        width = min(size, max(rounded, least_width(size, int(np.ceil(floor * size)), multiple)))
        keep[name] = np.zeros(size, bool)
        keep[name][np.argsort(-ranked[name], kind="stable")[:width]] = True
    return keep


def round_half_up(value: float) -> int:
    """To the nearest whole number; Python's own rounding goes to even ones.

    >>> round_half_up(2.5), round_half_up(2.4)
    (3, 2)
    """
    return int(np.floor(value + 0.5))


def least_width(size: int, floor: int, multiple: int) -> int:
    """The fewest members that stay of a group: its floor rounded up to a positive multiple, or all where it has fewer.

    >>> least_width(16, 3, 4), least_width(8, 1, 16)
    (4, 8)
    """
    return min(size, multiple * max(1, -(-floor // multiple)))


def check_whole(what: str, value: Any) -> None:
    """Raises `ValueError` unless the value is a whole number, 1 or more."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{what}={value!r} must be a whole number, at least 1.")


def checked_scores(name: str, size: int, scores: Mapping[str, Any]) -> np.ndarray:
    """The scores of a group as float64.

    Raises:
      ValueError: If they are missing, of the wrong length or not finite.
    """
    if name not in scores:
        raise ValueError(f"There are no scores for group {name!r}; there are for {', '.join(scores) or 'none'}.")
    vector = np.asarray(scores[name], np.float64)
    if vector.shape != (size,):
        raise ValueError(f"The scores of group {name!r} have shape {vector.shape}, not ({size},).")
    if not np.isfinite(vector).all():
        raise ValueError(f"The scores of group {name!r} hold values that are not finite.")
    return vector


def _compete(ranked: Mapping[str, np.ndarray], share: float, normalize: bool) -> dict[str, int]:
    """How many members of each group are among the best of all."""
    if not ranked:
        return {}
    means = {name: np.mean(np.abs(vector)) for name, vector in ranked.items()}
    fair = {name: vector / means[name] if normalize and means[name] else vector for name, vector in ranked.items()}
    everything = np.concatenate(list(fair.values()))
    owner = np.repeat(np.arange(len(fair)), [len(vector) for vector in fair.values()])
    best = np.argsort(-everything, kind="stable")[: round_half_up(share * len(everything))]
    won = np.bincount(owner[best], minlength=len(fair))
    return {name: int(count) for name, count in zip(fair, won, strict=True)}
