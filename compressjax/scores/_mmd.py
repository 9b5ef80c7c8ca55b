r"""Maximum mean discrepancy: the distance of a class and the rest in the feature space of a kernel.

    score = mean over blocks and classes of  mean k(P, P) + mean k(Q, Q) - 2 mean k(P, Q)
          = v^T K v        v = 1_P / n_P - 1_Q / n_Q        k(x, y) = exp(-||x - y||^2 / (2 sigma^2))

The samples come in blocks of 100, because K has the square of their number as entries.  Means run over all pairs, those
of a sample with itself included, so that a block is never negative, and small blocks score a little higher.

x is the whole feature map of a channel.  In large maps all samples are far apart for sigma = 1, and the score only says
how many there are in a block: pool the maps or scale sigma with the square root of their size.

Source: Liu, Wentzlaff, Kung, "Class-Discriminative CNN Compression", ICPR 2022 (arXiv 2110.10864); the released code
returns the last block instead of the mean.  Gretton et al., "A Kernel Two-Sample Test", JMLR 13, 2012.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Num

from compressjax.scores._labelled import labelled


def mmd(
    features: Num[Array, "samples *positions channels"] | Num[np.ndarray, "samples *positions channels"],
    labels: Int[Array, " samples"] | Int[np.ndarray, " samples"],
    sigma: float = 1.0,
    block: int = 100,
) -> Float[Array, " channels"]:
    """Squared maximum mean discrepancy of every class against the rest, the mean over blocks and classes.

    Args:
      features: Channels last; all axes between samples and channels are positions.
      labels: Class of every sample; samples of label -1 are left out.
      sigma: Width of the kernel, in units of the features.
      block: Samples per block, in the order given, so shuffle them before.  An incomplete last block is left out unless
        it is the only one.  Classes missing from a block are left out there, and blocks of a single class altogether.

    Returns:
      One score per channel, at least 0.

    Raises:
      ValueError: If shapes or labels do not fit, fewer than two classes are present, no block has two classes, features
        are not finite, or `sigma` or `block` is too small.

    >>> mmd(jnp.array([[0.0], [2.0]]), jnp.array([0, 1]))  # 1 + 1 - 2 exp(-2)
    Array([1.7293..., dtype=float32)
    """
    if not sigma > 0 or block < 2:
        raise ValueError(f"sigma is {sigma} and block {block}: sigma must be positive, and a block has two samples.")
    x, y = labelled(features, labels)
    size = min(block, len(y))
    blocks = len(y) // size
    y = y[: blocks * size].reshape(blocks, size)
    member = np.eye(y.max() + 1, dtype=bool)[y]
    useful = member.any(1).sum(1) > 1
    if not useful.any():
        raise ValueError(f"No block of {size} samples has two classes: shuffle the samples, or take longer blocks.")
    dtype = jax.dtypes.canonicalize_dtype(jnp.float64)
    x = x[: blocks * size].reshape(blocks, size, *x.shape[1:])[useful]
    return _mmd(jnp.asarray(x, dtype), jnp.asarray(member[useful], dtype), jnp.asarray(sigma, dtype))


@jax.jit
def _mmd(
    x: Float[Array, "blocks size positions channels"],
    member: Float[Array, "blocks size classes"],
    sigma: Float[Array, ""],
) -> Float[Array, " channels"]:
    product = partial(jnp.einsum, precision=lax.Precision.HIGHEST)

    def one(pair: tuple[Array, Array]) -> Array:
        features, own = pair
        rows = (features - features.mean(0, keepdims=True)).transpose(2, 0, 1)
        gram = product("cid,cjd->cij", rows, rows)
        squares = jnp.diagonal(gram, axis1=1, axis2=2)
        distance = jnp.maximum(squares[:, :, None] + squares[:, None, :] - 2 * gram, 0)
        kernel = jnp.exp(distance / (-2 * jnp.square(sigma)))
        count = own.sum(0)
        present = (count > 0) & (count < len(own))
        rest = len(own) - count
        contrast = own / jnp.maximum(count, 1)[None] - (1 - own) / jnp.maximum(rest, 1)[None]
        found = jnp.maximum(product("ik,cij,jk->ck", contrast, kernel, contrast), 0)
        return jnp.sum(jnp.where(present[None], found, 0), 1) / jnp.sum(present)

    return lax.map(one, (x, member)).mean(0)
