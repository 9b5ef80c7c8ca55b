r"""Terminals: the arrays that formulas read, one value per channel, class and position, or fewer that broadcast.

    gP gQ  vP vQ  sP sQ    mean, variance and standard deviation over samples and positions; of the class, of the rest
    nP nQ                  numbers of samples
    mP mQ  mX              mean over samples, per position; mX over all classes
    l1 l2  medoid          of a channel's own weights: norms, and distance to the layer's medoid

The medoid is the channel whose weights have the smallest summed distance to all others'; the released code calls it the
geometric median.

Source: Liu, Kung, Wentzlaff, GECCO 2022 (arXiv 2110.10876).
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from compressjax.search.expressions._language import Language

Terminals = Mapping[str, Any]  # name -> array [channels or 1, classes or 1, positions or 1]


@runtime_checkable
class StatisticsLike(Protocol):
    """What is known of the feature maps of a layer's channels, one class against the rest."""

    @property
    def mean_p(self) -> Any: ...
    @property
    def mean_q(self) -> Any: ...
    @property
    def var_p(self) -> Any: ...
    @property
    def var_q(self) -> Any: ...
    @property
    def count_p(self) -> Any: ...
    @property
    def count_q(self) -> Any: ...
    @property
    def vector_p(self) -> Any: ...
    @property
    def vector_q(self) -> Any: ...
    @property
    def vector(self) -> Any: ...


def terminals(
    statistics: StatisticsLike, weights: Float[Array, "channels weights"] | None = None
) -> dict[str, Float[Array, "_ _ _"]]:
    """The terminals of one layer.

    Args:
      statistics: Such as `compressjax.scores.OneVsRest`: means and variances (channels, classes), counts (classes,),
        vectors (channels, classes, positions), and the vector of all samples (channels, positions).
      weights: One row per channel, for the terminals of weights; without it they are left out, and the language must be
        ``PAPER.only(STATISTICS)``.

    Returns:
      Name to array of three axes, (channels or 1, classes or 1, positions or 1).

    Raises:
      ValueError: If shapes disagree, or a value is not finite.

    >>> from types import SimpleNamespace as Plain
    >>> table, counts, vectors = jnp.ones((4, 3)), jnp.ones(3), jnp.ones((4, 3, 2))
    >>> statistics = Plain(
    ...     **dict.fromkeys(["mean_p", "mean_q", "var_p", "var_q"], table),
    ...     **dict.fromkeys(["count_p", "count_q"], counts),
    ...     **dict.fromkeys(["vector_p", "vector_q"], vectors),
    ...     vector=jnp.ones((4, 2)),
    ... )
    >>> {name: array.shape for name, array in terminals(statistics).items() if name in ("gP", "nQ", "mP", "mX")}
    {'gP': (4, 3, 1), 'nQ': (1, 3, 1), 'mP': (4, 3, 2), 'mX': (4, 1, 2)}
    """
    channels, classes, positions = np.shape(statistics.vector_p)
    wanted = {
        "mean_p": (channels, classes),
        "mean_q": (channels, classes),
        "var_p": (channels, classes),
        "var_q": (channels, classes),
        "count_p": (classes,),
        "count_q": (classes,),
        "vector_q": (channels, classes, positions),
        "vector": (channels, positions),
    }
    for name, shape in wanted.items():
        if np.shape(getattr(statistics, name)) != shape:
            raise ValueError(
                f"statistics.{name} has the shape {np.shape(getattr(statistics, name))}: beside vector_p of the shape "
                f"{(channels, classes, positions)} it must be {shape}."
            )
    s = statistics
    found = {
        "gP": s.mean_p[:, :, None],
        "gQ": s.mean_q[:, :, None],
        "vP": s.var_p[:, :, None],
        "vQ": s.var_q[:, :, None],
        "sP": jnp.sqrt(s.var_p)[:, :, None],
        "sQ": jnp.sqrt(s.var_q)[:, :, None],
        "nP": s.count_p[None, :, None],
        "nQ": s.count_q[None, :, None],
        "mP": s.vector_p,
        "mQ": s.vector_q,
        "mX": s.vector[:, None, :],
    }
    if weights is not None:
        if weights.shape[0] != channels:
            raise ValueError(f"weights has {weights.shape[0]} rows for {channels} channels: give one row per channel.")
        found |= {
            "l1": jnp.sum(jnp.abs(weights), axis=1)[:, None, None],
            "l2": jnp.sqrt(jnp.sum(jnp.square(weights), axis=1))[:, None, None],
            "medoid": _to_medoid(weights)[:, None, None],
        }
    out = {
        name: jnp.asarray(array, jnp.promote_types(jnp.asarray(array).dtype, jnp.float32))
        for name, array in found.items()
    }
    for name, array in out.items():
        check_finite(name, array)
    return out


def _to_medoid(rows: Float[Array, "channels weights"]) -> Float[Array, " channels"]:
    """Distance of every row to the one nearest to all; a Gram matrix would lose small distances to rounding."""

    def apart(row: Float[Array, " weights"]) -> Float[Array, " channels"]:
        return jnp.sqrt(jnp.sum(jnp.square(rows - row[None]), axis=1))

    distances = jax.lax.map(apart, rows)
    return distances[jnp.argmin(jnp.sum(distances, axis=1))]


def check_finite(name: str, array: Any) -> None:
    """Refuses what is not finite, where values are known (outside `jit`)."""
    if isinstance(array, jax.core.Tracer):
        return
    if not np.all(np.isfinite(np.asarray(array))):
        raise ValueError(
            f"Terminal {name} has {int(np.sum(~np.isfinite(np.asarray(array))))} values that are not finite: look at "
            "the features it comes from; a class without samples has no mean."
        )


def check_terminals(arrays: Terminals, language: Language) -> tuple[int, int, int]:
    """(channels, classes, positions) of terminals that fit a language."""
    for name in language.terminals:
        if name not in arrays:
            raise ValueError(
                f"Terminal {name!r} of the language is not given, only {', '.join(arrays)}: give it, or use "
                "language.only(...)."
            )
    sizes = [1, 1, 1]
    for name in language.terminals:
        shape = np.shape(arrays[name])
        if len(shape) != 3:
            raise ValueError(
                f"Terminal {name} has the shape {shape}: it needs three axes, channels, classes, positions."
            )
        sizes = [max(size, own) for size, own in zip(sizes, shape, strict=True)]
    for name in language.terminals:
        shape = np.shape(arrays[name])
        if any(own not in (1, size) for own, size in zip(shape, sizes, strict=True)):
            raise ValueError(f"Terminal {name} has the shape {shape}, which does not broadcast to {tuple(sizes)}.")
        check_finite(name, arrays[name])
    return sizes[0], sizes[1], sizes[2]
