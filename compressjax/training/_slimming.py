r"""Network slimming: an l1 penalty on the scales of normalizations makes channels removable.

    minimise  f(W) + lambda sum_c |s_c|,       s_c <- sign(s_c) max(0, |s_c| - eta lambda)  after every step

s_c is the factor with which channel c leaves its normalization.  A channel with s_c = 0 outputs the constant that its
shift holds; rank the others by `compressjax.scores.norm_scale`, cut, and train on.

It is the group lasso with every scale a group of its own.  The source adds lambda sign(s) to the gradient instead;
scales then hover around zero and under Adam every one is moved by the same amount.

Source: Liu, Li, Shen, Huang, Yan, Zhang, "Learning Efficient Convolutional Networks through Network Slimming", ICCV
2017 (arXiv 1708.06519).
"""

from dataclasses import dataclass

import optax

from compressjax.projections import Groups
from compressjax.training._common import Number, Schedule
from compressjax.training._group_lasso import group_lasso


@dataclass(frozen=True)
class _Entries(Groups):
    """Every entry is a group."""

    keep: int | float = 1.0

    def _split(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return shape, ()


def slimming(
    inner: optax.GradientTransformation,
    strength: Number | Schedule,
    *,
    step_size: Number | Schedule,
    scales: tuple[str, ...] = ("*scale",),
) -> optax.GradientTransformationExtraArgs:
    """Moves the scales of normalizations towards zero, those that the loss can spare onto exactly zero.

    Args:
      inner: Any optimizer; give the scales no weight decay besides.
      strength: lambda: a number, or a schedule of the optimizer step count; 1e-5 to 1e-3 are usual.
      step_size: eta, the learning rate of `inner`: a number, or the schedule that `inner` follows.
      scales: Globs of the scales' paths.

    Returns:
      An optax transform whose `update` needs `params`; its state is a `GroupLassoState`.

    Raises:
      ValueError: If a glob matches no leaf, a number is negative, or `params` is missing.

    >>> import jax.numpy as jnp
    >>> params = {"norm": {"scale": jnp.array([1.0, -0.5, 0.125]), "bias": jnp.ones(3)}}
    >>> optimizer = slimming(optax.sgd(1.0), 0.25, step_size=1.0)
    >>> still = {"norm": {"scale": jnp.zeros(3), "bias": jnp.zeros(3)}}
    >>> updates, _ = optimizer.update(still, optimizer.init(params), params)
    >>> optax.apply_updates(params, updates)["norm"]["scale"]
    Array([ 0.75, -0.25,  0.  ], dtype=float32)
    """
    return group_lasso(inner, {pattern: _Entries() for pattern in scales}, strength, step_size=step_size)
