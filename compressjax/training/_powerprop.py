r"""Powerpropagation: weights are powers of what is trained, so that the large grow and the small stay.

    theta = sign(phi) |phi|^alpha          d theta / d phi = alpha |phi|^(alpha - 1),   alpha >= 1

Training phi by any optimizer, with the gradient of theta, is a transform of theta alone, because phi can be had back
from it::

    phi   <- sign(theta) |theta|^(1 / alpha)
    g     <- alpha |phi|^(alpha - 1) g       then the inner optimizer's step d on phi and g
    theta <- power(phi + d)

Source: Schwarz, Jayakumar, Pascanu, Latham, Teh, "Powerpropagation: A sparsity inducing weight reparameterisation",
NeurIPS 2021 (arXiv 2110.00296).
"""

from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from compressjax import trees
from compressjax.training._common import landed, require_params


def power(phi: Float[Array, "..."], alpha: float) -> Float[Array, "..."]:
    """Weights of what is trained, entry by entry: theta = sign(phi) |phi|^alpha.

    Args:
      phi: What is trained, (...).
      alpha: Exponent, at least 1.

    Returns:
      The weights, (...), of the same dtype.

    >>> power(jnp.array([-2.0, 0.0, 3.0]), 2.0)
    Array([-4.,  0.,  9.], dtype=float32)
    """
    return jnp.sign(phi) * jnp.abs(phi) ** alpha


def root(theta: Float[Array, "..."], alpha: float) -> Float[Array, "..."]:
    """The inverse of `power`, entry by entry: phi = sign(theta) |theta|^(1 / alpha).

    Args:
      theta: Weights, (...).
      alpha: Exponent, at least 1.

    Returns:
      What `power` takes to `theta`, (...), of the same dtype.

    >>> root(jnp.array([-4.0, 0.0, 9.0]), 2.0)
    Array([-2.,  0.,  3.], dtype=float32)
    """
    return jnp.sign(theta) * jnp.abs(theta) ** (1.0 / alpha)


def powerprop(
    inner: optax.GradientTransformation, rules: trees.Rules[float | None]
) -> optax.GradientTransformationExtraArgs:
    """Trains chosen leaves as powers, while everybody else sees the weights themselves.

    The weights at the start are those given, as in the source, so that an initialisation keeps its distribution.  A
    weight of exactly zero stays zero: exempt leaves that start with zeros.  The learning rate is that of phi; a weight
    moves alpha^2 |theta|^(2 - 2 / alpha) times as far as with `inner` alone, which for the usual small weights is less.

    Args:
      inner: Any optimizer.  It sees phi as parameters, in float32 where leaves are narrower; so its weight decay is one
        of phi.
      rules: Glob to exponent, such as ``{"*/kernel": 3.0}``; 1 changes nothing.  Other leaves are trained by `inner`.

    Returns:
      An optax transform whose `update` needs `params`; its state is that of `inner`.

    Raises:
      ValueError: If a rule has no effect, names a leaf of whole numbers or an exponent below 1, or `params` is missing.

    >>> params = {"w": jnp.array([1.0, -4.0])}
    >>> optimizer = powerprop(optax.sgd(0.25), {"w": 2.0})
    >>> updates, _ = optimizer.update({"w": jnp.ones(2)}, optimizer.init(params), params)
    >>> optax.apply_updates(params, updates)["w"]
    Array([ 0.25, -9.  ], dtype=float32)
    """
    inner = optax.with_extra_args_support(inner)

    def init_fn(params: trees.Tree) -> optax.OptState:
        return inner.init(trees.update(params, _trained(_exponents(rules, params), params)))

    def update_fn(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        require_params(params, "powerprop")
        exponents = _exponents(rules, params)
        phi = _trained(exponents, params)
        gradients = trees.map_leaves(
            lambda g, x, alpha: g.astype(x.dtype) * alpha * jnp.abs(x) ** (alpha - 1.0), updates, phi, exponents
        )
        steps, state = inner.update(gradients, state, trees.update(params, phi), **extra_args)
        # Against power(phi) and not against theta: a step of zero then moves nothing, whatever the root rounds to.
        steps = trees.map_leaves(
            lambda d, x, alpha: power(landed(x, d), alpha) - power(x, alpha), steps, phi, exponents
        )
        return steps, state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _exponents(rules: trees.Rules[float | None], params: trees.Tree) -> dict[str, float]:
    """Exponents by path, checked."""
    known = trees.leaves(params)
    exponents = trees.assign(rules, params)
    for path, alpha in exponents.items():
        if not alpha >= 1.0:
            raise ValueError(f"powerprop: the exponent of {path!r} is {alpha}; it must be at least 1.")
        dtype = jnp.asarray(known[path]).dtype
        if not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(f"powerprop: {path} holds {dtype}, no floating-point numbers: exempt it.")
    return exponents


def _trained(exponents: dict[str, float], params: trees.Tree) -> dict[str, Float[Array, "..."]]:
    """What is trained of the named leaves, in float32 at least: with fewer bits it would not give the weights back."""
    known = trees.leaves(params)
    widened = {path: jnp.asarray(known[path]) for path in exponents}
    return {
        path: root(leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), exponents[path])
        for path, leaf in widened.items()
    }
