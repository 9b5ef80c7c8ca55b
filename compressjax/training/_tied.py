"""Tied weights: entries that share a quantization level move together.

After quantization every non-zero entry of a leaf equals one of a few levels.  Training the levels themselves (the
centroid fine-tuning of Han et al., "Deep Compression", arXiv 1510.00149, section 3) recovers most of what rounding
lost: with c(i) the level of entry i, the gradient of level l is the sum over its entries,

    dL/dlevel_l = sum_{i : c(i) = l} dL/dw_i .

Equally spaced `Levels` stay equally spaced: only their scale q is trained, dL/dq = sum_i j_i dL/dw_i with w_i = j_i q.
Zeros (pruned weights) stay exactly zero, and leaves without a rule are trained as usual.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from compressjax import trees
from compressjax.quantizers import Codebook, Levels, Quantizer
from compressjax.training._common import require_floating, require_params


class TiedState(NamedTuple):
    """State of `tied`.

    Attributes:
      codes: Leaf dictionary: number of each entry's level, -1 for zeros, int32 arrays of the leaves' shapes.
      inner: State of the inner transform on (levels or scale by path, free leaves by path).
    """

    codes: dict[str, Int[Array, "..."]]
    inner: optax.OptState


Tieable = Codebook | Levels


def tied(
    inner: optax.GradientTransformation, rules: trees.Rules[Quantizer | None]
) -> optax.GradientTransformationExtraArgs:
    """Trains the levels of quantized leaves instead of their entries.

    Args:
      inner: Any optax transform; it sees one value per level (for `Levels`, one scale per leaf).
      rules: Glob to quantizer; the parameters given to `init` must already be quantized by it.

    Returns:
      An optax transform over the full parameters whose `update` needs `params`; its state is a `TiedState`.

    Raises:
      ValueError: If a rule has no effect, its quantizer has no trainable levels, or `params` is missing.

    >>> params = {"w": jnp.array([0.5, 0.5, 0.0, -1.0])}
    >>> transform = tied(optax.sgd(0.125), {"w": Codebook(1)})
    >>> state = transform.init(params)
    >>> updates, state = transform.update({"w": jnp.array([1.0, 2.0, 5.0, 0.0])}, state, params)
    >>> optax.apply_updates(params, updates)["w"]
    Array([ 0.125,  0.125,  0.   , -1.   ], dtype=float32)
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: Any) -> TiedState:
        known = trees.leaves(params)
        codes, levels = {}, {}
        for path, quantizer in trees.assign(rules, params).items():
            if not isinstance(quantizer, Tieable):
                raise ValueError(f"tied: {quantizer!r} at {path} has no levels to train; use Codebook or Levels.")
            require_floating("tied", path, known[path])
            table = quantizer.fit(known[path])
            codes[path] = jnp.where(known[path] == 0, -1, _nearest(known[path], table))
            levels[path] = _trained(quantizer, table)
        return TiedState(codes, inner.init((levels, _free(known, codes))))

    def update(updates: Any, state: TiedState, params: Any = None, **extra: Any) -> tuple[Any, TiedState]:
        require_params(params, "tied")
        known, gradients = trees.leaves(params), trees.leaves(updates)
        assigned = cast("dict[str, Tieable]", trees.assign(rules, params))
        now, pulls = {}, {}
        for path, quantizer in assigned.items():
            kind = known[path].dtype
            now[path] = _trained(quantizer, _read(known[path], state.codes[path], quantizer)).astype(kind)
            pulls[path] = _gather(gradients[path], state.codes[path], quantizer).astype(kind)
        changes, inner_state = inner.update(
            (pulls, _free(gradients, state.codes)), state.inner, (now, _free(known, state.codes)), **extra
        )
        out = dict(changes[1])
        for path, quantizer in assigned.items():
            table = _table(quantizer, now[path] + changes[0][path])
            codes = state.codes[path]
            out[path] = jnp.where(codes < 0, -known[path], table[codes] - known[path]).astype(known[path].dtype)
        return trees.update(updates, out), TiedState(state.codes, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _free(values: Mapping[str, Array], codes: Mapping[str, Array]) -> dict[str, Array]:
    return {path: value for path, value in values.items() if path not in codes}


def _nearest(x: Array, table: Array) -> Array:
    """Index of the nearest level of each entry, int32."""
    return jnp.argmin(jnp.abs(x[..., None] - table.reshape((1,) * x.ndim + (-1,))), axis=-1).astype(jnp.int32)


def _multiples(quantizer: Levels) -> Array:
    """(-m, ..., -1, 1, ..., m): the levels in units of the scale."""
    half = 2 ** (quantizer.bits - 1)
    return jnp.concatenate([jnp.arange(-half, 0), jnp.arange(1, half + 1)]).astype(jnp.float32)


def _trained(quantizer: Tieable, table: Float[Array, "levels"]) -> Float[Array, "trained"]:
    """What is trained of a level table: the scale of `Levels`, else the whole table."""
    return table[-1:] / 2 ** (quantizer.bits - 1) if isinstance(quantizer, Levels) else table


def _table(quantizer: Tieable, trained: Array) -> Array:
    return _multiples(quantizer) * trained if isinstance(quantizer, Levels) else trained


def _read(x: Array, codes: Array, quantizer: Tieable) -> Array:
    """The level values that `x` holds now (levels without an entry read 0)."""
    count = 2**quantizer.bits
    if isinstance(quantizer, Levels):
        units = jnp.where(codes < 0, 0.0, _multiples(quantizer)[codes])
        scale = jnp.sum(units * x) / jnp.maximum(jnp.sum(units * units), 1.0)
        return _multiples(quantizer) * scale
    # Entries of a level differ by roundings at most.  Their mean is taken of these differences: a running sum of the
    # entries themselves would lose what is small beside it, in bfloat16 after some hundreds of them.
    wide, live = _wide(x).ravel(), codes.ravel() >= 0
    place = jnp.where(live, codes.ravel(), count)
    entries = jax.ops.segment_sum(live.astype(jnp.int32), place, count + 1)
    top = jnp.where(entries > 0, jax.ops.segment_max(wide, place, count + 1), 0.0)
    apart = jax.ops.segment_sum(wide - top[place], place, count + 1)
    return (top + apart / jnp.maximum(entries, 1).astype(wide.dtype))[:count]


def _gather(gradient: Array, codes: Array, quantizer: Tieable) -> Array:
    """Gradient of what is trained."""
    if isinstance(quantizer, Levels):
        units = jnp.where(codes < 0, 0.0, _multiples(quantizer)[codes])
        return jnp.sum(units * gradient)[None]
    count = 2**quantizer.bits
    return jax.ops.segment_sum(jnp.where(codes < 0, 0.0, _wide(gradient)).ravel(), codes.ravel() % count, count)


def _wide(x: Array) -> Array:
    """In float32 at least, for sums over many entries."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
