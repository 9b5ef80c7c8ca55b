r"""ALPS: ADMM on the layer-wise problem, then conjugate gradients on the support it found.

In units in which H has unit diagonal (W <- diag(H)^1/2 W), with U the scaled dual::

    W <- W0 + rho (H + rho I)^-1 (D - W0 - U)      minimises  ||X (W - W0)||^2 + rho ||W - D + U||^2
    D <- project(W + U)
    U <- U + W - D

Every three steps rho grows, by 1.3, 1.2 or 1.1 as the support changed by more than 10 %, 0.5 % or at all, until it
stays; if the support did not move at first, rho was too large, and the search starts over with a fifth of it.  Then the
weights on the support minimise the objective by conjugate gradients, whose preconditioner, diag(H), is the identity in
these units.

The matrix changes only with rho: one Cholesky factorization per change.  A step is then two triangular solves, as many
operations as one product with an inverse, which need not be formed.

Source: Meng, Behdin, Wang, Mazumder, "ALPS: Improved Optimization for Highly Sparse One-Shot Pruning for Large Language
Models", NeurIPS 2024 (arXiv 2406.07831).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from compressjax.oneshot._problem import check, checked, split
from compressjax.oneshot._sparsegpt import fitted, sparsegpt
from compressjax.oneshot._statistics import Statistics, damped
from compressjax.oneshot._sweep import sweep
from compressjax.projections import Constraint

_EVERY = 3  # steps between changes of rho
_MOST, _LEAST = 1e6, 1e-5  # of rho


def alps(
    w: Float[Array, "inputs outputs"],
    statistics: Statistics,
    constraint: Constraint,
    *,
    damping: float = 0.01,
    rho: float = 0.1,
    iterations: int = 300,
    refinements: int = 10,
) -> Float[Array, "inputs outputs"]:
    """ADMM to a support, conjugate gradients to its weights; with levels, then a GPTQ sweep on that support.

    Args:
      w: Kernel.
      statistics: Of what enters the layer.
      constraint: Any set that selects entries, a quantizer (then as `sparsegpt`), or `Both`.
      damping: Added to the diagonal of H, as a share of its mean.
      rho: First penalty.
      iterations: Most ADMM steps.
      refinements: Steps of conjugate gradients.

    Returns:
      Weights in the set, in the dtype of `w`.

    Raises:
      ValueError: If the constraint does not select entries, a setting is out of range, or the inputs do not fit each
        other or are not finite.

    >>> from compressjax.oneshot import add, start
    >>> from compressjax.projections import Cardinality
    >>> twins = add(start(3), jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    >>> alps(jnp.array([[1.0], [2.0], [0.1]]), twins, Cardinality(1), damping=1e-4).ravel().round(2)
    Array([0., 3., 0.], dtype=float32)
    """
    check("alps", w, statistics, damping)
    if not rho > 0 or iterations < 1 or refinements < 0:
        raise ValueError(
            f"alps: rho={rho} must be positive, iterations={iterations} at least 1, refinements={refinements} at "
            "least 0."
        )
    sparsity, quantizer = split("alps", constraint)
    if sparsity is None:
        return sparsegpt(w, statistics, constraint, damping=damping)
    hessian = damped(statistics.hessian, damping)
    settings = jnp.float32(rho), jnp.int32(iterations), jnp.int32(refinements)
    found = _solve(w.astype(jnp.float32), hessian, *settings, sparsity)
    if quantizer is not None:
        levels = fitted(quantizer, found.astype(w.dtype))
        found = sweep(found, hessian, found != 0, quantizer, levels, block=128)
    return checked("alps", found.astype(w.dtype))


class _State(NamedTuple):
    step: Int[Array, ""]
    rho: Float[Array, ""]
    d: Float[Array, "inputs outputs"]
    u: Float[Array, "inputs outputs"]
    support: Bool[Array, "inputs outputs"]  # of d at the last change of rho
    moved: Bool[Array, ""]  # whether rho is past its search for a start
    done: Bool[Array, ""]


# The settings are data: other ones, or a kernel of another dtype, need no other program.
@partial(jax.jit, static_argnames="sparsity")
def _solve(
    w: Float[Array, "inputs outputs"],
    hessian: Float[Array, "inputs inputs"],
    rho: Float[Array, ""],
    iterations: Int[Array, ""],
    refinements: Int[Array, ""],
    sparsity: Constraint,
) -> Float[Array, "inputs outputs"]:
    unit = jnp.sqrt(jnp.diagonal(hessian))
    h = hessian / unit[:, None] / unit[None, :]
    w0 = w * unit[:, None]
    eye = jnp.eye(h.shape[0], dtype=h.dtype)
    first = sparsity.support(w0)
    d0, u0 = jnp.where(first, w0, 0.0), jnp.zeros_like(w0)
    kept = jnp.maximum(jnp.sum(first, dtype=jnp.int32), 1).astype(h.dtype)

    def three_steps(state: _State) -> _State:
        factor = jax.scipy.linalg.cho_factor(h + state.rho * eye, lower=True)

        def step(_: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            d, u, _ = carry
            v = w0 + state.rho * jax.scipy.linalg.cho_solve(factor, d - w0 - u) + u
            support = sparsity.support(v)
            d = jnp.where(support, v, 0.0)
            return d, v - d, support

        d, u, support = lax.fori_loop(0, _EVERY, step, (state.d, state.u, state.support))
        change = jnp.sum(support != state.support, dtype=jnp.int32) / kept
        moved = state.moved | (change > 0.005)
        grown = state.rho * jnp.where(change > 0.1, 1.3, jnp.where(change > 0.005, 1.2, 1.1))
        after = jnp.where(moved, jnp.minimum(grown, _MOST), state.rho / 5)
        # The multiplier rho U does not jump with rho.
        u = u * (state.rho / after)
        return _State(
            step=state.step + _EVERY,
            rho=after,
            d=jnp.where(moved, d, d0),
            u=jnp.where(moved, u, u0),
            support=jnp.where(moved, support, first),
            moved=moved,
            done=(moved & (change == 0)) | (after < _LEAST),
        )

    start = _State(jnp.int32(0), rho, d0, u0, first, jnp.array(False), jnp.array(False))
    end = lax.while_loop(lambda state: (state.step < iterations) & ~state.done, three_steps, start)
    return _refined(end.d, w0, h, end.support, refinements) / unit[:, None]


def _refined(d: Array, w0: Array, h: Array, support: Array, steps: Array) -> Array:
    """Conjugate gradients for every output at once: minimises the objective over the weights on the support."""

    def step(_: Array, carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        d, residual, direction, size = carry
        image = jnp.where(support, _product(h, direction), 0.0)
        length = _quotient(size, jnp.sum(direction * image, axis=0))
        d, residual = d + length[None, :] * direction, residual - length[None, :] * image
        after = jnp.sum(jnp.square(residual), axis=0)
        return d, residual, residual + _quotient(after, size)[None, :] * direction, after

    residual = jnp.where(support, _product(h, w0 - d), 0.0)
    start = (d, residual, residual, jnp.sum(jnp.square(residual), axis=0))
    return lax.fori_loop(0, steps, step, start)[0]


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def _quotient(a: Array, b: Array) -> Array:
    """The quotient, and 0 where an output has converged."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1.0), 0.0)
