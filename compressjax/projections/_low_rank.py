"""Low rank: the truncated singular value decomposition.

    S = {Z : rank(Z) <= r},    project(X) = sum over the r largest singular values of s_i u_i v_i^T

Source: Eckart, Young, "The approximation of one matrix by another of lower rank", Psychometrika 1, 1936.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


@dataclass(frozen=True)
class LowRank:
    """The matrix has rank at most `rank`.

    A tensor with more than two dimensions is read as the matrix (product of all but the last, last): a convolution
    kernel becomes (kh * kw * in, out).  Rank is a numerical notion: a matrix counts as a member if what its truncation
    would remove, in Frobenius norm, is within rounding: below ``eps(dtype) + 4 eps(float32) sqrt(max(m, n))`` times its
    own norm.  Members project to themselves.

    Args:
      rank: At least 1, at most the smaller side.

    Raises:
      ValueError: If `rank` is out of range or the tensor has fewer than 2 dimensions.

    >>> LowRank(1).project(jnp.array([[2.0, 0.0], [0.0, 1.0]]))
    Array([[2., 0.],
           [0., 0.]], dtype=float32)
    """

    rank: int

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise ValueError(f"LowRank: rank={self.rank!r} must be an int of at least 1.")

    def project(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The nearest matrix of rank at most `rank`, rounded to the dtype of `x`."""
        matrix = self._matrix(x)
        return _truncate(matrix, self.rank)[0].reshape(x.shape)

    def contains(self, x: Float[Array, "..."]) -> Bool[Array, ""]:
        """Whether the rank is at most `rank`, to rounding."""
        return _truncate(self._matrix(x), self.rank)[1]

    def support(self, x: Float[Array, "..."]) -> Bool[Array, "..."]:
        """Everything: a low-rank matrix is dense."""
        self._matrix(x)
        return jnp.ones(x.shape, bool)

    def _matrix(self, x: Array) -> Array:
        if x.ndim < 2:
            raise ValueError(f"LowRank needs at least 2 dimensions, not shape {x.shape}: assign it to kernels only.")
        matrix = x.reshape(-1, x.shape[-1])
        if self.rank > min(matrix.shape):
            raise ValueError(f"LowRank: rank={self.rank} exceeds the smaller side of the matrix {matrix.shape}.")
        return matrix


@partial(jax.jit, static_argnames="rank")
def _truncate(x: Float[Array, "m n"], rank: int) -> tuple[Float[Array, "m n"], Bool[Array, ""]]:
    """The truncation, or `x` itself if that is a member already; and whether it is."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    u, s, vt = jnp.linalg.svd(wide, full_matrices=False)
    eps = jnp.finfo(x.dtype).eps + 4 * jnp.finfo(wide.dtype).eps * max(x.shape) ** 0.5
    top = jnp.where(s[0] > 0, s[0], 1)
    member = jnp.linalg.norm(s[rank:] / top) <= eps * jnp.linalg.norm(s / top)
    kept = jnp.matmul(u[:, :rank] * s[None, :rank], vt[:rank], precision="highest")
    return jnp.where(member, x, kept.astype(x.dtype)), member
