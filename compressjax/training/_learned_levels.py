"""Quantization-aware training with learned levels: steps, clips and codebooks are parameters beside the weights.

A learned quantizer q(x, t) has something of its own to train, t: the step of LSQ, the clip of PACT, a codebook.  The
trained tree is then a pair, and the loss sees quantized weights::

    loss'(W, t) = loss(q(W, t)),        gradients for both from the quantizer's own rule

Any optimizer trains the pair.  Paths of weights are those of the network behind ``params/``, so that rules and masks
keep their meaning: ``masked(inner, {"params/fc1/kernel": mask})``.  Activations are quantized where the network
computes them, with entries of `levels` that the caller adds under names of its own.

Reference: Esser et al., "Learned Step Size Quantization", ICLR 2020 (arXiv 1902.08153); Choi et al., "PACT", 2018
(arXiv 1805.06085).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from compressjax import trees
from compressjax.projections import Constraint
from compressjax.quantizers import Learnable, fake_quantize

Rules = trees.Rules[Learnable | Constraint | None]


class WithLevels(NamedTuple):
    """Parameters of a network and of its quantizers.

    Attributes:
      params: The network's, as it knows them.
      levels: What the quantizers train, by the path of their leaf, or by any name for activations.
    """

    params: trees.Tree
    levels: dict[str, Float[Array, "..."]]


def with_levels(params: trees.Tree, rules: Rules) -> WithLevels:
    """Adds to a network what its quantizers train.

    Args:
      params: Pretrained parameters, or fresh ones.
      rules: Glob to learned quantizer of weights; sets with nothing to learn (`PowerOfTwo`, `Levels`) are welcome too.

    Returns:
      The pair, with the quantizers' first levels for these weights.

    Raises:
      ValueError: If a rule has no effect.

    >>> import jax.numpy as jnp
    >>> from compressjax.quantizers import LearnedStep
    >>> with_levels({"fc": {"kernel": jnp.array([1.0, -3.0])}}, {"*kernel": LearnedStep(2)}).levels
    {'fc/kernel': Array(4., dtype=float32)}
    """
    known = trees.leaves(params)
    starts = {path: rule.start(jnp.asarray(known[path])) for path, rule in _learned(rules, params).items()}
    return WithLevels(params, {path: start for path, start in starts.items() if start is not None})


def quantized(trained: WithLevels, rules: Rules) -> trees.Tree:
    """The network with its weights fake-quantized, differentiable in both parts of `trained`.

    Args:
      trained: From `with_levels`.
      rules: The same.

    Returns:
      A tree like ``trained.params``; leaves without a rule pass through.

    Raises:
      ValueError: If a rule has no effect, or the levels of a leaf are missing.

    >>> import jax.numpy as jnp
    >>> from compressjax.quantizers import LearnedStep
    >>> rules = {"w": LearnedStep(2)}
    >>> quantized(with_levels({"w": jnp.array([1.0, -3.0])}, rules), rules)["w"]
    Array([ 0., -4.], dtype=float32)
    """

    def one(leaf: Array, rule: tuple[str, Learnable | Constraint]) -> Array:
        path, quantizer = rule
        leaf = jnp.asarray(leaf)
        if not isinstance(quantizer, Learnable):
            return fake_quantize(leaf, quantizer)
        if path not in trained.levels and quantizer.start(leaf) is not None:
            raise ValueError(f"quantized: {path} has no levels; start with with_levels and the same rules.")
        return quantizer(leaf, trained.levels.get(path))

    assigned = trees.assign(rules, trained.params)
    return trees.map_leaves(one, trained.params, {path: (path, rule) for path, rule in assigned.items()})


def learned_levels(loss: Callable[..., Any], rules: Rules) -> Callable[..., Any]:
    """Wraps a loss so that it sees fake-quantized weights and trains their levels.

    Args:
      loss: Any function of ``(params, *args, **kwargs)``.
      rules: Glob to learned quantizer.

    Returns:
      A function of ``(trained, *args, **kwargs)`` with `trained` a `WithLevels`.

    Raises:
      ValueError: At the call, as `quantized`.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from compressjax.quantizers import LearnedStep
    >>> rules = {"w": LearnedStep(2)}
    >>> loss = learned_levels(lambda p: jnp.sum(p["w"]), rules)
    >>> gradient = jax.grad(loss)(with_levels({"w": jnp.array([1.0, -3.0])}, rules))
    >>> gradient.params["w"], gradient.levels["w"].round(3)
    (Array([1., 1.], dtype=float32), Array(-0.354, dtype=float32))
    """

    def wrapped(trained: WithLevels, *args: Any, **kwargs: Any) -> Any:
        return loss(quantized(trained, rules), *args, **kwargs)

    return wrapped


def _learned(rules: Rules, params: trees.Tree) -> Mapping[str, Learnable]:
    return {path: rule for path, rule in trees.assign(rules, params).items() if isinstance(rule, Learnable)}
