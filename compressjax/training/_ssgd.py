r"""SSGD: the gradient of a weight is scaled by the weight, so that small weights stay small without any penalty.

With w a *measure* of each weight, evaluated anew at every step, the mean over the leaf, and eps > 0::

    w^2   =  theta^2 + eps              log-sum, reweighted l2
             (|theta| + eps)^2          log-sum, reweighted l1
             (|theta| + eps)^(2 - p)    p-norm, 0 <= p <= 2; p = 2 is the plain optimizer
    s     =  min(w^2 / mean(w^2), clip)
    g    <-  s g

It follows from minimising J(theta) + lambda sum g(theta) with a concave g: majorise the sum by ||q||^2 with q = theta
/ w, step in q, go back to theta.  The loss gradient then carries w^2, the penalty lambda; lambda = 0 keeps the sparsity
and loses the bias, so every minimum of J stays one.  The mean keeps the step size of a layer what it was.

To first order the p-norm is Powerpropagation with exponent 2 / p (`powerprop`).

Sources: Lee, Fedorov, Rao, Garudadri, "SSGD: Sparsity-promoting Stochastic Gradient Descent Algorithm for Unbiased DNN
Pruning", ICASSP 2020; affine scaling with the penalty kept: the same authors, 2018 (arXiv 1802.01616).
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from compressjax import trees
from compressjax.training._common import require_params


@runtime_checkable
class Measure(Protocol):
    """How strongly a weight of a given size is to move: `LogSumL1`, `LogSumL2`, `PNorm`, or any other."""

    def squared(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """w^2 of every entry, positive, of any scale."""
        ...


@dataclass(frozen=True)
class LogSumL2:
    """w^2 = theta^2 + eps.

    Args:
      eps: Squared size below which weights are all alike; smaller is sparser.

    Raises:
      ValueError: If `eps` is not positive.

    >>> LogSumL2(0.5).squared(jnp.array([0.0, -2.0]))
    Array([0.5, 4.5], dtype=float32)
    """

    eps: float = 1e-4

    def __post_init__(self) -> None:
        _check_eps(self)

    def squared(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """w^2 of every entry."""
        return jnp.square(x) + self.eps


@dataclass(frozen=True)
class LogSumL1:
    """w^2 = (|theta| + eps)^2.

    Args:
      eps: Size below which weights are all alike; smaller is sparser.

    Raises:
      ValueError: If `eps` is not positive.

    >>> LogSumL1(0.5).squared(jnp.array([0.0, -1.5]))
    Array([0.25, 4.  ], dtype=float32)
    """

    eps: float = 1e-2

    def __post_init__(self) -> None:
        _check_eps(self)

    def squared(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """w^2 of every entry."""
        return jnp.square(jnp.abs(x) + self.eps)


@dataclass(frozen=True)
class PNorm:
    """w^2 = (|theta| + eps)^(2 - p).

    Args:
      p: From 2, the plain optimizer, down to 0, where s ~ theta^2; 1 gives s ~ |theta|.
      eps: Added to every size, so that a weight of zero can leave zero.

    Raises:
      ValueError: If `p` is not in [0, 2] or `eps` is not positive.

    >>> PNorm(1.0, eps=0.5).squared(jnp.array([0.0, -1.5]))
    Array([0.5, 2. ], dtype=float32)
    """

    p: float = 1.0
    eps: float = 1e-3

    def __post_init__(self) -> None:
        _check_eps(self)
        if not 0.0 <= self.p <= 2.0:
            raise ValueError(f"PNorm: p={self.p} must lie in [0, 2].")

    def squared(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """w^2 of every entry."""
        return (jnp.abs(x) + self.eps) ** (2.0 - self.p)


def ssgd(
    inner: optax.GradientTransformation,
    rules: trees.Rules[Measure | None],
    *,
    scale: Literal["gradients", "updates"] = "gradients",
    clip: float = 10.0,
) -> optax.GradientTransformationExtraArgs:
    """Lets large weights learn faster than small ones, so that few large ones do the work.

    Train from scratch with it, prune by magnitude, and retrain what is left without it: pruned weights would count in
    the mean.  A weight that starts at zero in a leaf of others hardly moves; exempt biases and normalizations.

    Args:
      inner: Any optimizer.
      rules: Glob to measure, such as ``{"*/kernel": PNorm(1.0)}``; other leaves are trained by `inner` alone.
      scale: What the scales multiply.  "gradients", before `inner`: for SGD, so that momentum sums scaled gradients.
        "updates", after `inner`: for Adam and its like, which divide a steady scale out of the gradients again; weight
        decay inside `inner` is scaled with the rest then.
      clip: Largest scale.  With small p or eps the largest weights of a large layer have 20 times the mean, too much
        for a learning rate that was chosen for the plain optimizer.

    Returns:
      An optax transform whose `update` needs `params`; its state is that of `inner`.

    Raises:
      ValueError: If a rule has no effect or names a leaf of whole numbers, `scale` is neither of the two, `clip` is
        below 1, or `params` is missing.

    >>> params = {"w": jnp.array([1.0, 3.0])}
    >>> optimizer = ssgd(optax.sgd(1.0), {"w": PNorm(1.0, eps=1e-9)})
    >>> updates, _ = optimizer.update({"w": jnp.ones(2)}, optimizer.init(params), params)
    >>> updates["w"]
    Array([-0.5, -1.5], dtype=float32)
    """
    if scale not in ("gradients", "updates"):
        raise ValueError(f"ssgd: scale={scale!r} must be 'gradients' or 'updates'.")
    if not clip >= 1.0:
        raise ValueError(f"ssgd: clip={clip} must be at least 1, the mean of the scales.")
    inner = optax.with_extra_args_support(inner)

    def init_fn(params: trees.Tree) -> optax.OptState:
        _scales(rules, params, clip)
        return inner.init(params)

    def update_fn(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        require_params(params, "ssgd")
        scales = _scales(rules, params, clip)
        if scale == "gradients":
            return inner.update(trees.map_leaves(_times, updates, scales), state, params, **extra_args)
        updates, state = inner.update(updates, state, params, **extra_args)
        return trees.map_leaves(_times, updates, scales), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _scales(rules: trees.Rules[Measure | None], params: trees.Tree, clip: float) -> dict[str, Float[Array, "..."]]:
    """Scales of every named leaf, float32: its squared measure over the leaf's mean of it, clipped."""
    known = trees.leaves(params)
    out = {}
    for path, measure in trees.assign(rules, params).items():
        leaf = jnp.asarray(known[path])
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(f"ssgd: {path} holds {leaf.dtype}, no floating-point numbers: exempt it.")
        squared = measure.squared(leaf.astype(jnp.float32))
        out[path] = jnp.minimum(squared / jnp.mean(squared), clip)
    return out


def _times(step: Float[Array, "..."], scale: Float[Array, "..."]) -> Float[Array, "..."]:
    """The product, in the dtype of the step."""
    return (step.astype(jnp.promote_types(step.dtype, jnp.float32)) * scale).astype(step.dtype)


def _check_eps(measure: Any) -> None:
    if not measure.eps > 0.0:
        raise ValueError(f"{type(measure).__name__}: eps={measure.eps} must be positive; a weight of zero would stay.")
