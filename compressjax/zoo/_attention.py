"""Attention with grouped queries, written so that every head, query, and width is an axis of its own.

With k key-value heads, r queries for each, width w of queries and keys and width v of values::

    scores[k, r, t, s] = scale * sum_w query[t, k, r, w] key[s, k, w]
    output[t, k, r, :] = sum_s softmax_s(scores)[k, r, t, s] value[s, k, :]

`scale` is an argument: a network from which parts of w were removed keeps the one it was trained with.

References: A. Vaswani et al., "Attention is all you need", NeurIPS 2017 (arXiv 1706.03762).  J. Ainslie et al., "GQA:
Training generalized multi-query transformer models", EMNLP 2023 (arXiv 2305.13245).  J. Su et al., "RoFormer: Enhanced
transformer with rotary position embedding" (arXiv 2104.09864).
"""

from collections.abc import Sequence
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def attention(
    query: Float[Array, "n t k r w"],
    key: Float[Array, "n s k w"],
    value: Float[Array, "n s k v"],
    *,
    scale: float,
    causal: bool,
) -> Float[Array, "n t k r v"]:
    """Attention of every query on all positions, or on those up to its own.

    >>> ones = jnp.ones((1, 2, 1, 1))
    >>> value = jnp.array([1.0, 3.0]).reshape(1, 2, 1, 1)
    >>> attention(ones[..., None], ones, value, scale=1.0, causal=True).ravel().tolist()
    [1.0, 2.0]
    """
    scores = jnp.einsum("ntkrw,nskw->nkrts", query, key) * scale
    if causal:
        t, s = scores.shape[-2:]
        seen = jnp.arange(t).reshape(1, 1, 1, t, 1) >= jnp.arange(s).reshape(1, 1, 1, 1, s)
        scores = jnp.where(seen, scores, jnp.finfo(scores.dtype).min)
    return jnp.einsum("nkrts,nskv->ntkrv", jax.nn.softmax(scores, -1), value)


@lru_cache(maxsize=64)
def angles(
    length: int, pairs: Sequence[int], width: int, base: float
) -> tuple[Float[np.ndarray, "t pairs"], Float[np.ndarray, "t pairs"]]:
    """Cosine and sine of ``t * base ** (-2 j / width)`` for positions t and pairs j.

    Args:
      length: Number of positions.
      pairs: Numbers j of the pairs that are left, a tuple.
      width: Width of a head before any pair was removed.
      base: Base of the geometric progression of frequencies.

    >>> cosine, sine = angles(2, (0,), 4, 10000.0)
    >>> cosine.ravel().round(4).tolist(), sine.ravel().round(4).tolist()
    ([1.0, 0.5403000116348267], [0.0, 0.8414999842643738])
    """
    frequency = base ** (-2.0 * np.asarray(pairs, np.float64) / width)
    turn = np.outer(np.arange(length), frequency)
    return np.cos(turn).astype(np.float32), np.sin(turn).astype(np.float32)


def rotate(
    x: Float[Array, "n t *heads w"], cosine: Float[np.ndarray, "t w//2"], sine: Float[np.ndarray, "t w//2"]
) -> Float[Array, "n t *heads w"]:
    """Rotary position embedding; entry j of the first half and entry j of the second half are pair j.

    >>> x = jnp.array([[[1.0, 0.0]]])
    >>> rotate(x, np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32)).tolist()
    [[[0.0, 1.0]]]
    """
    length, half = cosine.shape
    shape = (1, length, *(1,) * (x.ndim - 3), half)
    cosine, sine = cosine.reshape(shape), sine.reshape(shape)
    left, right = jnp.split(x, 2, -1)
    return jnp.concatenate([left * cosine - right * sine, right * cosine + left * sine], -1)


def one_head_width(name: str, widths: Sequence[int]) -> int:
    """The width of queries and keys that all layers share, for an option that was not given."""
    if len(set(widths)) != 1:
        raise ValueError(f"The {name} has query widths {tuple(widths)}: say head_width, on which the scale rests.")
    return widths[0]
