r"""TernGrad: gradients in {-s, 0, s}, unbiased, for data-parallel training on a thin network.

For each leaf, with sigma the standard deviation of its gradient::

    clip       g  <- clip(g, -c sigma, c sigma),                c = 2.5
    scale      s  =  max|g|                                     shared by all workers: the largest of theirs
    ternarize  t_i = sign(g_i) b_i,   b_i ~ Bernoulli(|g_i| / s),   so that E[s t] = g after clipping
    exchange   g  <- s (sum over K workers of t) / K            integers in [-K, K], exact in any order of summation

Clipping is the one source of bias; without it a single large entry makes all others rare and noisy.

Source: Wen, Xu, Yan, Wu, Wang, Chen, Li, "TernGrad: Ternary Gradients to Reduce Communication in Distributed Deep
Learning", NeurIPS 2017 (arXiv 1705.07878): equations 3 to 8, scaler sharing, and clipping.
"""

import math
from collections.abc import Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Int8, PRNGKeyArray

from compressjax import trees

Clips = trees.Rules[float | None]
EVERYWHERE: Clips = {"*": 2.5}


class TernaryState(NamedTuple):
    """State of `ternary_gradients`.

    Attributes:
      count: Steps taken, () int32; the noise of a step is a function of the key and this.
      inner: State of the inner optimizer.
    """

    count: Int[Array, ""]  # type: ignore[assignment] # shadows tuple.count, as optax states do
    inner: optax.OptState


class Traffic(NamedTuple):
    """Bytes of one worker's gradient for one exchange, as what it is sent.

    Attributes:
      plain: In the dtypes of the gradients.
      votes: As `ternary_mean` sums it: an integer per entry, one byte up to 127 workers, and a float32 per leaf.
      packed: At 2 bits per entry, which is what one worker's codes alone need, and a float32 per leaf.
    """

    plain: int
    votes: int
    packed: int


def ternarize(gradient: Float[Array, "..."], key: PRNGKeyArray, scale: Float[Array, ""]) -> Int8[Array, "..."]:
    """Stochastic codes in {-1, 0, 1} whose mean is ``gradient / scale``.

    Args:
      gradient: (...), at most `scale` in magnitude.
      key: From `jax.random.key`.
      scale: Positive, or 0 if the gradient is 0.

    Returns:
      int8 (...).

    >>> ternarize(jnp.array([2.0, -2.0, 0.0]), jax.random.key(0), jnp.float32(2.0)).tolist()
    [1, -1, 0]
    """
    wide = gradient.astype(jnp.float32)
    chance = jnp.abs(wide) / jnp.where(scale > 0, scale, 1.0)
    hit = jax.random.uniform(key, gradient.shape) < chance
    return jnp.where(hit, jnp.sign(wide), 0.0).astype(jnp.int8)


def ternary_mean(
    gradients: trees.Tree, key: PRNGKeyArray, axis_name: Hashable, clips: Clips = EVERYWHERE
) -> trees.Tree:
    """The mean over workers of their ternarized gradients, for use inside `jax.shard_map`.

    Every worker draws with a key of its own, the codes are summed as integers, and the scale is the largest of all.
    Under `jax.vmap` with the same axis name it does the same on one device.  Where `jax.grad` is taken inside of
    `jax.shard_map`, pass that ``check_vma=False``: by default it sums gradients of replicated parameters by itself.

    Args:
      gradients: This worker's, of its share of the batch.
      key: The same for all workers; another one each step.
      axis_name: Of the mesh axis over which the batch is sharded.
      clips: Glob to c, the clipping bound in standard deviations (``math.inf``: none); leaves with None or without a
        rule are averaged in full precision, as the last layer often is.

    Returns:
      The mean, equal for all workers; structure, shapes and dtypes of `gradients`.

    Raises:
      ValueError: If a rule has no effect, or a bound is not positive.

    >>> workers = {"w": jnp.array([[1.0, -1.0], [1.0, 1.0]])}
    >>> mean = jax.vmap(lambda g: ternary_mean(g, jax.random.key(0), "data"), axis_name="data")(workers)
    >>> mean["w"].tolist()
    [[1.0, 0.0], [1.0, 0.0]]
    """
    workers = jax.lax.axis_size(axis_name)
    own = jax.random.fold_in(key, jax.lax.axis_index(axis_name))

    def one(gradient: Array, rule: tuple[int, float]) -> Array:
        number, bound = rule
        clipped = _clip(gradient, bound)
        scale = jax.lax.pmax(jnp.max(jnp.abs(clipped), initial=0.0), axis_name)
        codes = ternarize(clipped, jax.random.fold_in(own, number), scale).astype(_vote_dtype(workers))
        votes = jax.lax.psum(codes, axis_name)
        return (scale * (votes.astype(jnp.float32) / workers)).astype(gradient.dtype)

    rules = _numbered(clips, gradients)
    known = trees.leaves(gradients)
    plain = {path: jax.lax.pmean(leaf, axis_name) for path, leaf in known.items() if path not in rules}
    return trees.map_leaves(one, trees.update(gradients, plain), rules)


def ternary_gradients(
    inner: optax.GradientTransformation, key: PRNGKeyArray, clips: Clips = EVERYWHERE
) -> optax.GradientTransformationExtraArgs:
    """Ternarizes gradients before the inner optimizer sees them, as training with one worker does.

    Args:
      inner: Any optimizer; it sees gradients of values -s, 0, s in each leaf.
      key: From `jax.random.key`; it and the step count determine all noise.
      clips: As for `ternary_mean`.

    Returns:
      An optax transform; its state is a `TernaryState`.  A NaN or infinite gradient makes its whole leaf NaN.

    Raises:
      ValueError: If a rule has no effect, or a bound is not positive.

    >>> optimizer = ternary_gradients(optax.sgd(1.0), jax.random.key(0))
    >>> params = {"w": jnp.zeros(4)}
    >>> updates, _ = optimizer.update({"w": jnp.array([1.0, -1.0, 1.0, 1.0])}, optimizer.init(params))
    >>> updates["w"]
    Array([-1.,  1., -1., -1.], dtype=float32)
    """
    inner = optax.with_extra_args_support(inner)
    _check(clips)

    def init_fn(params: trees.Tree) -> TernaryState:
        trees.assign(clips, params)
        return TernaryState(jnp.zeros((), jnp.int32), inner.init(params))

    def update_fn(
        updates: optax.Updates, state: TernaryState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, TernaryState]:
        now = jax.random.fold_in(key, state.count)

        def one(gradient: Array, rule: tuple[int, float]) -> Array:
            number, bound = rule
            clipped = _clip(gradient, bound)
            scale = jnp.max(jnp.abs(clipped), initial=0.0)
            codes = ternarize(clipped, jax.random.fold_in(now, number), scale)
            return (scale * codes.astype(jnp.float32)).astype(gradient.dtype)

        updates = trees.map_leaves(one, updates, _numbered(clips, updates))
        updates, inner_state = inner.update(updates, state.inner, params, **extra_args)
        return updates, TernaryState(optax.safe_increment(state.count), inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def traffic(params: trees.Tree, workers: int, clips: Clips = EVERYWHERE) -> Traffic:
    """Bytes that one worker's gradient takes in an exchange, in full precision and ternarized.

    Args:
      params: Parameters, or their `jax.ShapeDtypeStruct`.
      workers: Number of workers.
      clips: As for `ternary_mean`; other leaves count in full in all three figures.

    Returns:
      The three figures.  What a link carries is these times a factor of the all-reduce that they share.

    Raises:
      ValueError: If a rule has no effect, or `workers` is no whole number of at least 1.

    >>> traffic({"w": jnp.zeros(1000)}, workers=4)
    Traffic(plain=4000, votes=1004, packed=254)
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ValueError(f"traffic: workers={workers!r} must be a whole number of at least 1.")
    _check(clips)
    ternary = trees.assign(clips, params)
    size = jnp.dtype(_vote_dtype(workers)).itemsize
    plain = votes = packed = 0
    for path, leaf in trees.leaves(params).items():
        entries = math.prod(leaf.shape)
        full = entries * jnp.dtype(leaf.dtype).itemsize
        plain += full
        votes += 4 + entries * size if path in ternary else full
        packed += 4 + -(-entries // 4) if path in ternary else full
    return Traffic(plain, votes, packed)


def _clip(gradient: Float[Array, "..."], bound: float) -> Float[Array, "..."]:
    """The gradient in float32, within `bound` standard deviations of zero; NaN stays NaN."""
    wide = gradient.astype(jnp.float32)
    if math.isinf(bound) or wide.size < 2:  # one entry has no spread
        return wide
    limit = bound * jnp.std(wide)
    # Equal entries have no spread either, and nothing to clip.
    return jnp.where(limit > 0, jnp.clip(wide, -limit, limit), wide)


def _vote_dtype(workers: int) -> Any:
    """The narrowest integers that hold a sum of `workers` codes."""
    return jnp.int8 if workers <= 127 else jnp.int16 if workers <= 32767 else jnp.int32


def _numbered(clips: Clips, tree: trees.Tree) -> dict[str, tuple[int, float]]:
    """For each ternary leaf its number, which makes its noise its own, and its bound."""
    _check(clips)
    return {path: (number, bound) for number, (path, bound) in enumerate(trees.assign(clips, tree).items())}


def _check(clips: Clips) -> None:
    for pattern, bound in clips.items():
        if bound is not None and not bound > 0:
            raise ValueError(
                f"clips: the bound of {pattern!r} is {bound}; it must be positive, or None for no rounding."
            )
