"""A learned codebook: free levels, each moved by the sum of the gradients of its members.

    y_i = level[c(i)],   c(i) the nearest level,     dL/dlevel_l = sum_{i : c(i) = l} dL/dy_i,     dL/dx := dL/dy

`lookup` gives `x` the gradient of the identity, so that entries may change their level.  `LearnedCodebook` trains the
levels alone, which is the fine-tuning of Deep Compression; `training.tied` does that on quantized parameters, without a
second copy of them.  Zeros are pruned: they stay zero and pull no level.

Source: Han, Mao, Dally, "Deep Compression", ICLR 2016 (arXiv 1510.00149), section 3.3.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from compressjax.quantizers._base import nearest, working
from compressjax.quantizers._codebook import Codebook


@jax.custom_vjp
def lookup(x: Float[Array, "..."], levels: Float[Array, "levels"]) -> Float[Array, "..."]:
    """Non-zeros to the nearest of some learned levels.

    Args:
      x: Weights, (...).
      levels: In any order.

    Returns:
      Shape and dtype of `x`; the lower level in a tie.

    >>> x, levels = jnp.array([0.9, 1.2, 0.0, -2.2]), jnp.array([-2.0, 1.0])
    >>> lookup(x, levels)
    Array([ 1.,  1.,  0., -2.], dtype=float32)
    >>> jax.grad(lambda levels: jnp.sum(lookup(x, levels) * jnp.array([1.0, 2.0, 4.0, 8.0])))(levels)
    Array([8., 3.], dtype=float32)
    """
    return jnp.where(x == 0, jnp.zeros_like(x), nearest(x, jnp.sort(levels)))


def _forward(x: Array, levels: Array) -> tuple[Array, tuple[Array, Array]]:
    return lookup(x, levels), (x, levels)


def _backward(saved: tuple[Array, Array], pull: Array) -> tuple[Array, Array]:
    x, levels = saved
    # By value: of equal levels the first gets it all.
    order = jnp.argsort(levels)
    ranked = levels[order].astype(x.dtype)
    rank = jnp.searchsorted(ranked, nearest(x, ranked).reshape(-1))
    live = jnp.where(x == 0, jnp.zeros_like(pull), pull).reshape(-1)
    sums = jax.ops.segment_sum(working(live), rank, num_segments=levels.size)
    return pull, jnp.zeros_like(sums).at[order].set(sums).astype(levels.dtype)


lookup.defvjp(_forward, _backward)


@dataclass(frozen=True)
class LearnedCodebook:
    """A learned codebook as a learned quantizer of weights; the weights themselves stay as they are.

    Args:
      bits: Bits per non-zero weight, 1 to 8.

    Raises:
      ValueError: If `bits` is out of range.

    >>> quantizer = LearnedCodebook(1)
    >>> x = jnp.array([1.0, 3.0, 0.0, -4.0, -6.0])
    >>> quantizer(x, quantizer.start(x))
    Array([ 2.,  2.,  0., -5., -5.], dtype=float32)
    """

    bits: int

    def __post_init__(self) -> None:
        Codebook(self.bits)  # checks the bits

    def start(self, x: Float[Array, "..."]) -> Float[Array, "levels"]:
        """The levels of least squared error."""
        return Codebook(self.bits).fit(x)

    def __call__(self, x: Float[Array, "..."], levels: Float[Array, "levels"]) -> Float[Array, "..."]:
        """Non-zeros of `x` to the nearest level."""
        return lookup(jax.lax.stop_gradient(x), levels)
