"""Normalization, and the statistics that go with it.

Batch normalization keeps its running statistics beside its scale and bias, as the leaves ``scale``, ``bias``, ``mean``
and ``var``, so that a network is one parameter tree::

    y = (x - mean) scale / sqrt(var + epsilon) + bias

`Model.apply` uses the stored statistics.  `Model.apply_train` uses those of the batch and returns them as a leaf
dictionary; the stored ones then have no influence, so that their gradient is zero.  Weight decay would still shrink
them: leave them out of the optimizer with `trainable`.

References: S. Ioffe, C. Szegedy, "Batch normalization", ICML 2015 (arXiv 1502.03167).  B. Zhang, R. Sennrich, "Root
mean square layer normalization", NeurIPS 2019 (arXiv 1910.07467).  Merging of means and variances: T. F. Chan,
G. H. Golub, R. J. LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from compressjax import trees

STATISTICS = "statistics"
_LEAVES = ("mean", "var")
Statistics = Mapping[str, Float[Array, "..."]]


def along_last(vector: Float[Array, " c"], ndim: int) -> Float[Array, "..."]:
    """Gives a vector leading axes of size 1: ranks are never promoted silently."""
    return vector.reshape((1,) * (ndim - 1) + (-1,))


class BatchNorm(nn.Module):
    """Batch normalization over all axes but the last.

    Normalizes by the batch where the collection ``"statistics"`` is mutable, which is how `Model.apply_train` calls it,
    and by its stored statistics otherwise.

    Attributes:
      epsilon: Added to the variance.

    >>> leaves = BatchNorm().init(jax.random.key(0), jnp.ones((2, 3)), mutable=["params"])["params"]
    >>> sorted(leaves)
    ['bias', 'mean', 'scale', 'var']
    """

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
        features = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, features)
        bias = self.param("bias", nn.initializers.zeros, features)
        mean = self.param("mean", nn.initializers.zeros, features)
        var = self.param("var", nn.initializers.ones, features)
        if self.is_mutable_collection(STATISTICS):
            mean, var = _moments(x)
            self.put_variable(STATISTICS, "mean", mean)
            self.put_variable(STATISTICS, "var", var)
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        return (x - along_last(mean, x.ndim)) * along_last(factor, x.ndim) + along_last(bias, x.ndim)


def _moments(x: Float[Array, "... c"]) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Mean and (biased) variance over all axes but the last, in float32; two passes, as one pass cancels digits."""
    wide = x.astype(jnp.float32)
    axes = tuple(range(x.ndim - 1))
    mean = wide.mean(axes)
    return mean, jnp.square(wide - along_last(mean, x.ndim)).mean(axes)


class RMSNorm(nn.Module):
    """``x scale / sqrt(sum(x**2) / divisor + epsilon)`` over the last axis.

    Attributes:
      divisor: Number of channels before any were removed.  A network without some of its channels divides as the one
        in which they are zero.
      epsilon: Added to the mean square.

    >>> norm = RMSNorm(divisor=4)
    >>> x = jnp.array([[3.0, 3.0]])
    >>> norm.apply(norm.init(jax.random.key(0), x), x).round(3)
    Array([[1.414, 1.414]], dtype=float32)
    """

    divisor: int
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        square = jnp.sum(jnp.square(x.astype(jnp.float32)), -1, keepdims=True) / self.divisor
        return x * jax.lax.rsqrt(square + self.epsilon).astype(x.dtype) * along_last(scale, x.ndim)


class LayerNorm(nn.Module):
    """Layer normalization over the last axis, with mean and mean square as sums over `divisor`.

    The one-pass variance E[x^2] - E[x]^2 is what lets channels be removed: a channel that is zero adds nothing to
    either sum, whereas (0 - mean)^2 would count.

    Attributes:
      divisor: Number of channels before any were removed.
      epsilon: Added to the variance.

    >>> norm = LayerNorm(divisor=2)
    >>> x = jnp.array([[1.0, 3.0]])
    >>> norm.apply(norm.init(jax.random.key(0), x), x).round(3)
    Array([[-1.,  1.]], dtype=float32)
    """

    divisor: int
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        wide = x.astype(jnp.float32)
        mean = jnp.sum(wide, -1, keepdims=True) / self.divisor
        var = jnp.maximum(jnp.sum(jnp.square(wide), -1, keepdims=True) / self.divisor - jnp.square(mean), 0.0)
        normal = (wide - mean) * jax.lax.rsqrt(var + self.epsilon)
        return normal.astype(x.dtype) * along_last(scale, x.ndim) + along_last(bias, x.ndim)


def _norms(params: Any) -> tuple[str, ...]:
    """Paths of the batch normalizations of a tree: what holds both a ``mean`` and a ``var``."""
    known = trees.leaves(params)
    parents = (path.removesuffix("/mean") for path in known if path.endswith("/mean"))
    return tuple(parent for parent in parents if f"{parent}/var" in known)


def trainable(params: Any) -> Any:
    """Which leaves an optimizer may change: all but running statistics.

    Args:
      params: Parameters of a network.

    Returns:
      A tree of bools in the shape of `params`, as ``optax.masked`` takes it.

    >>> trees.leaves(trainable({"norm": {"scale": 0, "mean": 0, "var": 0}}))
    {'norm/mean': False, 'norm/scale': True, 'norm/var': False}
    """
    fixed = {f"{norm}/{leaf}": False for norm in _norms(params) for leaf in _LEAVES}
    return trees.update(trees.map_leaves(lambda _: True, params), fixed)


def update_statistics(params: Any, statistics: Statistics, momentum: float = 0.9) -> Any:
    """Moves running statistics towards those of a batch: ``momentum * stored + (1 - momentum) * batch``.

    Args:
      params: Parameters of the network.
      statistics: From `Model.apply_train`: path to mean or variance of the batch, (channels,).
      momentum: Weight of what is stored, in [0, 1].

    Returns:
      Parameters with new ``mean`` and ``var`` leaves.

    Raises:
      ValueError: If a path of `statistics` is not a leaf of `params`, or momentum is out of range.

    >>> params = {"norm": {"mean": jnp.zeros(1), "var": jnp.ones(1)}}
    >>> update_statistics(params, {"norm/mean": jnp.array([10.0])})["norm"]["mean"]
    Array([1.], dtype=float32)
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum={momentum} must lie in [0, 1].")
    unknown = [path for path in statistics if path not in trees.leaves(params)]
    if unknown:
        raise ValueError(f"The statistics name {unknown[0]!r}, which is no leaf of the parameters.")
    return trees.map_leaves(lambda old, new: momentum * old + (1 - momentum) * new, params, statistics)


@partial(jax.jit, static_argnums=0)
def _absorb(
    apply_train: Callable[..., Any],
    params: Any,
    totals: dict[str, Float[Array, "..."]],
    seen: Float[Array, ""],
    x: Any,
) -> tuple[dict[str, Float[Array, "..."]], Float[Array, ""]]:
    """Merges the statistics of one batch into those of the `seen` examples before it."""
    _, batch = apply_train(params, x)
    count = jnp.asarray(x.shape[0], jnp.float32)
    share = count / (seen + count)
    merged = {}
    for norm in (path.removesuffix("/mean") for path in batch if path.endswith("/mean")):
        mean, var = f"{norm}/mean", f"{norm}/var"
        apart = batch[mean] - totals[mean]
        merged[mean] = totals[mean] + share * apart
        # Equal to E[x^2] - E[x]^2 over everything seen, without its cancellation.
        merged[var] = (1 - share) * totals[var] + share * batch[var] + share * (1 - share) * jnp.square(apart)
    return merged, seen + count


def reestimate(apply_train: Callable[[Any, Any], tuple[Any, Statistics]], params: Any, batches: Iterable[Any]) -> Any:
    """Replaces running statistics by those of the given batches, which channel removal and quantization call for.

    The mean is the mean over all examples, the variance that of all of them together (E[x^2] - E[x]^2), each batch
    having passed the network under its own statistics.  One jitted pass per batch; nothing but sums is kept.

    Args:
      apply_train: ``apply_train(params, x) -> (outputs, statistics)``, such as `Model.apply_train`.  Statistics come in
        pairs ``path/mean`` and ``path/var``.
      params: Parameters of the network.
      batches: Inputs; batches of unlike size count by their size, and each new size is compiled once.

    Returns:
      Parameters with new ``mean`` and ``var`` leaves; a network without batch normalization comes back as it is.

    Raises:
      ValueError: If there is no batch.

    >>> from compressjax.zoo import build
    >>> model = build("resnet20", widths=(2, 2), blocks=(1,), input_shape=(4, 4, 3))
    >>> params = model.init(jax.random.key(0))
    >>> images = jax.random.uniform(jax.random.key(1), (6, 4, 4, 3))
    >>> again = reestimate(model.apply_train, params, [images[:3], images[3:]])
    >>> bool((again["norm0"]["mean"] != 0).all()), bool((again["conv0"]["kernel"] == params["conv0"]["kernel"]).all())
    (True, True)
    """
    totals: dict[str, Any] | None = None
    seen = jnp.zeros((), jnp.float32)
    for x in batches:
        if totals is None:
            _, shapes = jax.eval_shape(apply_train, params, x)
            totals = {path: jnp.zeros(leaf.shape, leaf.dtype) for path, leaf in shapes.items()}
        totals, seen = _absorb(apply_train, params, totals, seen, x)
    if totals is None:
        raise ValueError("reestimate needs at least one batch: `batches` is empty.")
    return update_statistics(params, totals, momentum=0.0)
