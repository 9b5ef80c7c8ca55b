"""Checks shared by the formats: everything that can be known when weights are packed is said then."""

from typing import Any

import jax
import numpy as np


def dense_weights(dense: Any, name: str) -> np.ndarray:
    """A concrete, finite, non-empty float matrix as NumPy array.

    Raises:
      ValueError: In one sentence, if it is anything else.
    """
    if isinstance(dense, jax.core.Tracer):
        raise ValueError(
            f"{name}.from_dense needs concrete weights: which blocks are zero decides shapes; pack outside of jit."
        )
    out = np.asarray(dense)
    if out.ndim != 2:
        raise ValueError(f"{name} packs matrices [inputs, outputs]; these weights have shape {out.shape}.")
    if not out.size:
        raise ValueError(f"{name} cannot pack weights of shape {out.shape}: there is nothing to multiply with.")
    if not jax.numpy.issubdtype(out.dtype, np.floating):
        raise ValueError(f"{name} packs float weights; these are {out.dtype}.")
    if not np.isfinite(out.astype(np.float32)).all():
        raise ValueError(f"{name} cannot pack weights with nan or inf.")
    return out


def kept(dense: np.ndarray, mask: Any, name: str) -> np.ndarray:
    """The boolean mask, which is where the weights are not zero unless it is given.

    Raises:
      ValueError: If its shape is another, or if it removes weights that are not zero.
    """
    if mask is None:
        return dense != 0
    mask = np.asarray(mask, bool)
    if mask.shape != dense.shape:
        raise ValueError(f"{name}: the mask has shape {mask.shape} and the weights have {dense.shape}.")
    if (dense[~mask] != 0).any():
        raise ValueError(f"{name}: weights outside of the mask are not zero; multiply them by the mask first.")
    return mask


def divides(size: int, by: int, what: str) -> None:
    """Raises `ValueError` unless `by` is positive and divides `size`."""
    if by < 1 or size % by:
        raise ValueError(f"{what} {size} is no multiple of {by}.")
