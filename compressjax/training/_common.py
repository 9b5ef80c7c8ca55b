"""Arithmetic shared by the transforms of this room: where a step lands, and how an entry is held at a value.

An optax transform does not see the weight after the step, only the update that will be added to it.  To put a weight
``w`` at a target ``t`` the update must be ``t - w``, so that ``w + (t - w)`` is ``t``.  For ``t = 0`` that is exact in
floating point: ``w + (-w) == 0.0`` whatever ``w`` is.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from compressjax import trees

Number = float | Float[Array, ""]
Schedule = Callable[[Int[Array, ""]], Number]  # of the optimizer step count


def landed(param: Float[Array, "..."], update: Float[Array, "..."]) -> Float[Array, "..."]:
    """The parameter after `optax.apply_updates`, in the parameter's own dtype.

    >>> landed(jnp.float32(1.0), jnp.float32(-0.25))
    Array(0.75, dtype=float32)
    """
    return jnp.asarray(param + update, dtype=jnp.asarray(param).dtype)


def silence(gradient: Float[Array, "..."], free: Bool[Array, "..."]) -> Float[Array, "..."]:
    """Gradient of the free entries, zero elsewhere.

    A product and not a `where`: a NaN or an infinity at a held entry is a fault of the run and must stay visible.

    >>> silence(jnp.array([1.0, jnp.nan]), jnp.array([False, False]))
    Array([ 0., nan], dtype=float32)
    """
    return gradient * free.astype(gradient.dtype)


def hold(
    update: Float[Array, "..."],
    free: Bool[Array, "..."],
    param: Float[Array, "..."],
    silenced: Float[Array, "..."],
    target: Float[Array, "..."] | float = 0.0,
) -> Float[Array, "..."]:
    """The update that lets free entries move and puts held ones at `target`.

    Args:
      update: What the inner optimizer wants, (...).
      free: True where it may have its way, (...).
      param: The weights before the step, (...).
      silenced: The gradient after `silence`; a NaN in it is passed on to a held entry instead of being overwritten.
      target: Where held entries go, (...) or a scalar.

    Returns:
      The update, in the wider of the two dtypes: a bfloat16 update could not cancel a float32 weight exactly.

    >>> hold(jnp.array([1.0, 1.0]), jnp.array([True, False]), jnp.array([3.0, 4.0]), jnp.array([2.0, 0.0]))
    Array([ 1., -4.], dtype=float32)
    """
    held = jnp.where(jnp.isnan(silenced), silenced.astype(param.dtype), jnp.asarray(target, param.dtype) - param)
    return jnp.where(free, update, held)


def own_masks(name: str, masks: Mapping[str, Bool[Array, "..."]], params: trees.Tree) -> dict[str, Bool[Array, "..."]]:
    """Checked copies of the masks, so that donating the state does not invalidate the caller's."""
    shapes = trees.shapes(params)
    for path, mask in masks.items():
        if path in shapes and jnp.shape(mask) != shapes[path]:
            raise ValueError(
                f"{name}: the mask of {path!r} has shape {jnp.shape(mask)}, "
                f"the leaf has {shapes[path]}; give one entry per weight."
            )
    return {path: jnp.array(mask, dtype=bool) for path, mask in masks.items()}


def require_params(params: Any, name: str) -> None:
    """Raises `ValueError` when `update` was called without the parameters."""
    if params is None:
        raise ValueError(f"{name} reads the parameters: call update(updates, state, params).")


def require_floating(name: str, path: str, leaf: Any) -> None:
    """Raises `ValueError` for a leaf of whole numbers."""
    dtype = jnp.asarray(leaf).dtype
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{name}: {path} holds {dtype}, no floating-point numbers: exempt it.")


def require_steps(name: str, **steps: int) -> None:
    """Raises `ValueError` unless every value is a whole number of at least one."""
    for key, value in steps.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: {key}={value!r} must be a whole number of steps, at least 1.")
