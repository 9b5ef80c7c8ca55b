r"""ADMM training: minimise f(W) subject to W in S, as a transform around any optimizer.

Reference: Zhang et al., "A Systematic DNN Weight Pruning Framework using ADMM", ECCV 2018 (arXiv 1804.03294); Ren et
al., "ADMM-NN", ASPLOS 2019 (arXiv 1812.11677); frequent refreshes with a penalty ramp as in SAFE (ICML 2025).

With Z the feasible copy of the weights, U the scaled dual and rho the penalty::

    every step       g     <- grad f(W) + rho (W - Z + U)        then the inner optimizer's step on g
    every refresh    V     <- W + U
                     Z     <- project(V)
                     U     <- V - Z
                     rho'  <- rho(count)
                     U     <- U rho / rho'                       the multiplier rho U does not jump with rho

At the end the weights are near the set, not in it: project them, then retrain with `masked`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from compressjax import trees
from compressjax.projections import Constraint, project
from compressjax.training._admm_q import Approach
from compressjax.training._common import Schedule, landed, require_params, require_steps


class AdmmState(NamedTuple):
    """State of `admm`.  The dictionaries hold the constrained leaves only.

    Attributes:
      count: Steps taken, () int32.
      z: Feasible copy of each constrained leaf (near the set only, with an `approach`), shape and dtype of the leaf.
      u: Scaled dual of each constrained leaf, shape and dtype of the leaf.
      rho: Penalty now in force, () float32.
      primal: ||W - Z|| / ||W|| at the last refresh (at the start before it), () float32 per leaf.
      dual: rho ||Z' - Z|| / ||rho U|| at the last refresh (infinite before it), () float32 per leaf.
      inner: State of the inner optimizer.
    """

    count: Int[Array, ""]  # type: ignore[assignment] # shadows tuple.count, as optax states do
    z: dict[str, Float[Array, "..."]]
    u: dict[str, Float[Array, "..."]]
    rho: Float[Array, ""]
    primal: dict[str, Float[Array, ""]]
    dual: dict[str, Float[Array, ""]]
    inner: optax.OptState


def admm(
    inner: optax.GradientTransformation,
    rules: trees.Rules[Constraint | None],
    *,
    rho: float | Schedule,
    every: int,
    rescale_dual: bool = True,
    reset_inner: bool = False,
    scale: trees.Rules[float] | None = None,
    approach: Approach | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Pulls constrained leaves towards their sets while the inner optimizer minimises the loss.

    Args:
      inner: Any optimizer.  It sees the gradient with the penalty's added.  Its weight decay acts as usual.
      rules: Glob to constraint; leaves without one are trained by `inner` alone.
      rho: Penalty: a number, or a schedule of the *optimizer step count*.  It is evaluated at the start and at
        refreshes, and stays put between them.
      every: Steps between refreshes of Z and U.
      rescale_dual: Keep the multiplier rho U when rho changes.  Switching it off is for ablations only.
      reset_inner: Start the inner optimizer afresh after each refresh, its step count and so its learning-rate
        schedule included; for the published coarse schedule, where Z jumps.
      scale: Glob to a positive factor on rho for single leaves, such as ``{"fc1/kernel": 10.0}``.
      approach: How Z follows the projection at refreshes: `SoftProjection` or `RandomProjection`, for discrete sets;
        None puts it there.

    Returns:
      An optax transform whose `update` needs `params`; its state is an `AdmmState`.

    Raises:
      ValueError: If a rule has no effect or does not fit its leaf, `every` or `scale` is not positive, `rho` is
        negative, or `params` is missing.

    Source: scaled-form ADMM; Boyd et al., "Distributed Optimization and Statistical Learning via ADMM", section 3.

    >>> from compressjax.projections import Cardinality
    >>> params = {"w": jnp.array([1.0, 2.0, 3.0])}
    >>> optimizer = admm(optax.sgd(0.1), {"w": Cardinality(1)}, rho=1.0, every=2)
    >>> state = optimizer.init(params)
    >>> state.z["w"]
    Array([0., 0., 3.], dtype=float32)
    >>> updates, state = optimizer.update({"w": jnp.zeros(3)}, state, params)
    >>> optax.apply_updates(params, updates)["w"]
    Array([0.9, 1.8, 3. ], dtype=float32)
    """
    require_steps("admm", every=every)
    if isinstance(rho, int | float) and not rho >= 0:
        raise ValueError(f"admm: rho={rho} must not be negative.")
    inner = optax.with_extra_args_support(inner)

    def penalty(count: Int[Array, ""]) -> Float[Array, ""]:
        return jnp.asarray(rho(count) if callable(rho) else rho, jnp.float32)

    def factors(assigned: dict[str, Constraint], tree: trees.Tree) -> dict[str, float]:
        own = {} if scale is None else trees.assign(scale, tree)
        for path, value in own.items():
            if path not in assigned:
                raise ValueError(f"admm: scale names {path!r}, but no rule constrains that leaf.")
            if not value > 0:
                raise ValueError(f"admm: the scale of {path!r} is {value}; it must be positive.")
        return {path: own.get(path, 1.0) for path in assigned}

    def nearest(point: dict[str, Any], params: trees.Tree) -> dict[str, Any]:
        # The whole tree goes through, so that rules mean here what they mean everywhere (joint ones, exempted leaves).
        projected = trees.leaves(project(rules, trees.update(params, point)))
        return {path: projected[path] for path in point}

    def init_fn(params: trees.Tree) -> AdmmState:
        assigned = trees.assign(rules, params)
        factors(assigned, params)
        known = trees.leaves(params)
        w = {path: known[path] for path in assigned}
        # Copies: a buffer shared with the parameters could not be donated together with them.
        z = {path: jnp.array(value, dtype=w[path].dtype) for path, value in nearest(w, params).items()}
        return AdmmState(
            count=jnp.zeros((), jnp.int32),
            z=z,
            u={path: jnp.zeros_like(value) for path, value in w.items()},
            rho=penalty(jnp.zeros((), jnp.int32)),
            primal={path: _ratio(_norm(w[path] - z[path]), _norm(w[path])) for path in w},
            dual={path: jnp.full((), jnp.inf, jnp.float32) for path in w},
            inner=inner.init(params),
        )

    def update_fn(
        updates: optax.Updates, state: AdmmState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, AdmmState]:
        require_params(params, "admm")
        assigned = trees.assign(rules, params)
        scales = factors(assigned, params)
        known = trees.leaves(params)
        w = {path: known[path] for path in assigned}
        pull = {
            path: (scales[path] * state.rho).astype(w[path].dtype) * (w[path] - state.z[path] + state.u[path])
            for path in w
        }
        updates = trees.map_leaves(lambda g, p: g + p.astype(g.dtype), updates, pull)
        updates, inner_state = inner.update(updates, state.inner, params, **extra_args)
        count = optax.safe_increment(state.count)

        def refresh() -> AdmmState:
            steps = trees.leaves(updates)
            w1 = {path: landed(w[path], steps[path]) for path in w}
            v = {path: w1[path] + state.u[path] for path in w}
            z = {path: value.astype(w[path].dtype) for path, value in nearest(v, params).items()}
            if approach is not None:
                z = approach(v, z, state.z, {path: scales[path] * state.rho for path in w}, count)
            u = {path: v[path] - z[path] for path in w}
            rho1 = penalty(count)
            # With rho' = 0 no scaled dual can carry the multiplier, so U is left as it is.
            keep = jnp.where(rho1 > 0, state.rho / jnp.where(rho1 > 0, rho1, 1.0), 1.0)
            fresh = inner_state
            if reset_inner:
                moved = jax.tree.map(landed, params, updates)
                fresh = jax.tree.map(
                    lambda new, old: jnp.asarray(new, jnp.asarray(old).dtype), inner.init(moved), fresh
                )
            return AdmmState(
                count=count,
                z=z,
                u={path: value * keep.astype(value.dtype) for path, value in u.items()} if rescale_dual else u,
                rho=rho1,
                primal={path: _ratio(_norm(w1[path] - z[path]), _norm(w1[path])) for path in w},
                dual={path: _ratio(_norm(z[path] - state.z[path]), _norm(u[path])) for path in w},
                inner=fresh,
            )

        def carry_on() -> AdmmState:
            return state._replace(count=count, inner=inner_state)

        return updates, jax.lax.cond(count % every == 0, refresh, carry_on)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _norm(x: Float[Array, "..."]) -> Float[Array, ""]:
    """Euclidean norm over all entries, accumulated in float32 also for narrow dtypes."""
    return jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.float32))))


def _ratio(part: Float[Array, ""], whole: Float[Array, ""]) -> Float[Array, ""]:
    """The quotient, with 0 / 0 = 0 (nothing moved: converged) and x / 0 infinite."""
    quotient = part / jnp.where(whole == 0, 1.0, whole)
    return jnp.where(whole == 0, jnp.where(part == 0, 0.0, jnp.inf), quotient)
