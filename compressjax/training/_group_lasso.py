r"""Group lasso: groups of weights that the loss can spare shrink until they are exactly zero.

    minimise  f(W) + lambda sum_g gamma_g sqrt(|g|) ||W_g||_2

|g| is the number of weights of group g, and gamma_g is 1 unless groups are reweighted.  After each step of the inner
optimizer follows the proximal step of the penalty, with step size eta::

    W_g <- W_g max(0, 1 - eta lambda gamma_g sqrt(|g|) / ||W_g||)

Unlike a gradient of the penalty it reaches zero, and adaptive optimizers do not rescale it.

Reweighted: every few steps the penalty moves from groups that are large to groups that are small, so that the ones are
not shrunk for nothing and the others vanish; how many groups stay in which layer comes out by itself::

    gamma_g <- m / (e_g + delta m),     e_g = ||W_g||^2 / |g|,     m = mean of e over the leaf or coupled group

This is 1 / (||W_g||^2 + delta) of the source in units of the mean, so that lambda means the same with and without it.

Sources: Wen, Wu, Wang, Chen, Li, "Learning Structured Sparsity in Deep Neural Networks", NeurIPS 2016 (arXiv
1608.03665); proximal form: Yuan, Lin, "Model Selection and Estimation in Regression with Grouped Variables", JRSS B,
2006; reweighting: Li et al., "BLK-REW", 2020 (arXiv 2001.08357), after Candes, Wakin, Boyd, 2008.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from compressjax import trees
from compressjax.projections import GroupLike, Groups
from compressjax.projections._members import check_groups, entries, member_sums, spread
from compressjax.training._common import Number, Schedule, landed, require_params, require_steps


class GroupLassoState(NamedTuple):
    """State of `group_lasso`.

    Attributes:
      count: Steps taken, () int32.
      weights: gamma of every group, float32, by leaf path or group name; empty without reweighting.
      inner: State of the inner optimizer.
    """

    count: Int[Array, ""]  # type: ignore[assignment] # shadows tuple.count, as optax states do
    weights: dict[str, Float[Array, "..."]]
    inner: optax.OptState


@dataclass(frozen=True)
class Reweight:
    """How `group_lasso` reweights groups.

    Args:
      every: Steps between refreshes; the first weights come from the parameters at the start.
      delta: What is added to a group's energy, as a share of the mean energy.  A vanished group is penalised 1 / delta
        times as much as an average one.

    Raises:
      ValueError: If either is not positive.

    >>> Reweight(every=400)
    Reweight(every=400, delta=0.1)
    """

    every: int
    delta: float = 0.1

    def __post_init__(self) -> None:
        require_steps("Reweight", every=self.every)
        if not self.delta > 0:
            raise ValueError(f"Reweight: delta={self.delta} must be positive.")


def group_lasso(
    inner: optax.GradientTransformation,
    groups: trees.Rules[Groups | None] | Sequence[GroupLike],
    strength: Number | Schedule,
    *,
    step_size: Number | Schedule,
    scale: trees.Rules[float] | None = None,
    reweight: Reweight | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Shrinks groups of weights after every step of the inner optimizer, the weakest to exactly zero.

    Groups come in two kinds.  *Rules* name a grouping per leaf: ``{"conv*/kernel": Filters()}``, and likewise
    `Channels`, `Columns` (filter shapes), `Block`, `BlockPunched`, `BlockRows` and `BlockColumns`.  *Coupled groups*
    (from `compressjax.channels`, or `compressjax.projections.whole` for layers and residual branches) shrink all places
    of a member together, by the norm over all of them, so that what is zero can be removed.

    Where coupled groups overlap, as a kernel's rows and columns do, all factors are computed from the same weights and
    multiplied; that is the usual splitting, not the exact proximal step of the sum.

    It must be the outermost transform, but for `masked`.  A zero group may come back when the loss pulls more strongly
    than the penalty; remove the zeros, or fix them with `masked`, before training on without it.

    Args:
      inner: Any optimizer; its weight decay acts as usual.
      groups: Glob to grouping, whose `keep` plays no part, or coupled groups.
      strength: lambda: a number, or a schedule of the optimizer step count.
      step_size: eta, the learning rate of `inner`: a number, or the schedule that `inner` follows.
      scale: Glob to a positive factor on the strength for single leaves or groups, by path or name.
      reweight: Refreshes gamma; None leaves all at 1.

    Returns:
      An optax transform whose `update` needs `params`; its state is a `GroupLassoState`.

    Raises:
      ValueError: If a rule has no effect, groups do not fit their leaves, a number is negative, or `params` is missing.

    >>> from compressjax.projections import Filters
    >>> params = {"kernel": jnp.array([[3.0, 0.1], [4.0, 0.2], [0.0, 0.3], [0.0, 0.4]])}
    >>> optimizer = group_lasso(optax.sgd(0.25), {"kernel": Filters()}, 5.0, step_size=0.25)
    >>> updates, _ = optimizer.update({"kernel": jnp.zeros((4, 2))}, optimizer.init(params), params)
    >>> optax.apply_updates(params, updates)["kernel"].T
    Array([[1.5, 2. , 0. , 0. ],
           [0. , 0. , 0. , 0. ]], dtype=float32)
    """
    for name, value in (("strength", strength), ("step_size", step_size)):
        if isinstance(value, int | float) and not value >= 0:
            raise ValueError(f"group_lasso: {name}={value} must not be negative.")
    inner = optax.with_extra_args_support(inner)

    def init_fn(params: trees.Tree) -> GroupLassoState:
        known = trees.leaves(params)
        structures = _structures(groups, params)
        _factors(scale, structures)
        weights = {s.name: _gamma(s.energies(known) / s.entries, reweight) for s in structures} if reweight else {}
        return GroupLassoState(jnp.zeros((), jnp.int32), weights, inner.init(params))

    def update_fn(
        updates: optax.Updates, state: GroupLassoState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, GroupLassoState]:
        require_params(params, "group_lasso")
        structures = _structures(groups, params)
        factors = _factors(scale, structures)
        updates, inner_state = inner.update(updates, state.inner, params, **extra_args)
        steps, before = trees.leaves(updates), trees.leaves(params)
        paths = {path for structure in structures for path in structure.paths}
        after = {path: landed(before[path], steps[path]) for path in before if path in paths}
        eta = _at(step_size, state.count) * _at(strength, state.count)
        count = optax.safe_increment(state.count)

        shares: dict[str, Array] = {}
        weights = dict(state.weights)
        for structure in structures:
            energies = structure.energies(after)
            threshold = eta * factors[structure.name] * structure.entries**0.5
            if reweight:
                threshold = threshold * state.weights[structure.name]
            share = _share(jnp.sqrt(energies), threshold)
            for path, value in structure.spread(share).items():
                shares[path] = shares[path] * value if path in shares else value
            if reweight:
                fresh = _gamma(energies * jnp.square(share) / structure.entries, reweight)
                weights[structure.name] = jnp.where(count % reweight.every == 0, fresh, state.weights[structure.name])
        shrunk = {path: _shrink(steps[path], before[path], after[path], share) for path, share in shares.items()}
        return trees.update(updates, shrunk), GroupLassoState(count, weights, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


@dataclass(frozen=True)
class _Structure:
    """The groups of one leaf, or one coupled group: how to read their energies and how to spread their factors."""

    name: str
    paths: tuple[str, ...]
    entries: float | Float[np.ndarray, " size"]  # weights per group
    energies: Callable[[Mapping[str, Array]], Array]
    spread: Callable[[Array], dict[str, Array]]


def _structures(groups: trees.Rules[Groups | None] | Sequence[GroupLike], params: trees.Tree) -> list[_Structure]:
    known = {path: jnp.asarray(leaf) for path, leaf in trees.leaves(params).items()}
    if isinstance(groups, Mapping):
        return [_per_leaf(path, known[path], kind) for path, kind in trees.assign(groups, params).items()]
    shapes = trees.shapes(known)
    return [_coupled(group, shapes) for group in check_groups(groups, known)]


def _per_leaf(path: str, leaf: Array, kind: Groups) -> _Structure:
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        raise ValueError(f"group_lasso: {path} holds {leaf.dtype}, no floating-point numbers: exempt it.")
    shape = leaf.shape
    try:
        size = math.prod(shape) / kind.groups(shape)
    except ValueError as error:
        raise ValueError(f"group_lasso: {path}: {error}") from error
    return _Structure(
        path,
        (path,),
        size,
        lambda known: kind.energies(known[path]),
        lambda f: {path: kind.spread(f, shape)},
    )


def _coupled(group: GroupLike, shapes: Mapping[str, tuple[int, ...]]) -> _Structure:
    def laid_out(values: Array) -> dict[str, Array]:
        out: dict[str, Array] = {}
        for member in group.members:
            along = spread(values, member, len(shapes[member.path]))
            out[member.path] = out[member.path] * along if member.path in out else along
        return out

    paths = tuple(dict.fromkeys(member.path for member in group.members))
    # At least 1, because energies are divided by it; a member without weights has energy 0 anyway.
    size = np.maximum(entries(group, shapes), 1).astype(np.float32)
    return _Structure(group.name, paths, size, lambda known: member_sums(jnp.square, group, known), laid_out)


def _factors(scale: trees.Rules[float] | None, structures: Sequence[_Structure]) -> dict[str, float]:
    """Factor on the strength by name, 1 where no rule applies."""
    own = trees.assign(scale, {structure.name: 0 for structure in structures}) if scale else {}
    for name, value in own.items():
        if not value > 0:
            raise ValueError(f"group_lasso: the scale of {name!r} is {value}; it must be positive.")
    return {structure.name: own.get(structure.name, 1.0) for structure in structures}


def _at(value: Number | Schedule, count: Int[Array, ""]) -> Float[Array, ""]:
    return jnp.asarray(value(count) if callable(value) else value, jnp.float32)


def _gamma(energies: Float[Array, "..."], reweight: Reweight) -> Float[Array, "..."]:
    """Penalty weights from energies per entry."""
    mean = jnp.mean(energies)
    weights = mean / (energies + reweight.delta * jnp.where(mean == 0, 1.0, mean))
    # Where everything has vanished, everything is as far below the mean as can be.
    return jnp.where(mean == 0, 1.0 / reweight.delta, weights)


def _share(norm: Float[Array, "..."], threshold: Float[Array, "..."]) -> Float[Array, "..."]:
    """What remains of a group: max(0, 1 - threshold / norm); NaN stays NaN."""
    return jnp.where(norm <= threshold, 0.0, 1.0 - threshold / jnp.where(norm == 0, 1.0, norm))


def _shrink(step: Array, before: Array, after: Array, share: Array) -> Array:
    """The update that lands on ``share * after``: exactly on 0 for no share, unchanged for all of it."""
    update = jnp.where(share == 0, -before.astype(share.dtype), step - (1.0 - share) * after)
    return update.astype(jnp.promote_types(step.dtype, before.dtype))
