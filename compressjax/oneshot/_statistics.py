r"""What a layer's solver needs to know of the calibration data: H = X^T X, streamed over batches.

The output of a linear layer changes by ``X (W' - W)``, whose squared norm is ``tr((W' - W)^T H (W' - W))``.  So all
solvers of this room see the data through H alone, whatever the number of rows.

Products are float32 at full precision, sums of batches float32.  Where the rows leave directions of the inputs open,
`damped` closes them by a multiple of the mean diagonal; `shortage` says that they did.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int


class Statistics(NamedTuple):
    """What `add` has seen so far.

    Attributes:
      hessian: X^T X over all rows, (inputs, inputs) float32.
      rows: Their number, () int32.
    """

    hessian: Float[Array, "inputs inputs"]
    rows: Int[Array, ""]


def start(inputs: int) -> Statistics:
    """Nothing seen yet.

    Args:
      inputs: Inputs of the layer.

    Returns:
      Statistics to pass to `add`.

    Raises:
      ValueError: If the layer has no inputs.

    >>> start(2).hessian.shape
    (2, 2)
    """
    if inputs < 1:
        raise ValueError("A layer without inputs has nothing to solve: exempt it.")
    return Statistics(jnp.zeros((inputs, inputs), jnp.float32), jnp.zeros((), jnp.int32))


def add(statistics: Statistics, x: Float[Array, "... inputs"]) -> Statistics:
    """Adds one batch of activations; pure, so that it may run inside a jitted function.

    Args:
      statistics: From `start` or the batch before.
      x: What enters the layer; all axes but the last count as rows.

    Returns:
      New statistics.

    Raises:
      ValueError: If `x` has another number of inputs.

    >>> add(start(2), jnp.array([[1.0, 2.0], [0.0, 1.0]])).hessian
    Array([[1., 2.],
           [2., 5.]], dtype=float32)
    """
    inputs = statistics.hessian.shape[0]
    if x.ndim < 1 or x.shape[-1] != inputs:
        raise ValueError(f"Activations of shape {x.shape} do not fit a layer of {inputs} inputs.")
    return _add(statistics, x.reshape(-1, inputs))


@jax.jit
def _add(statistics: Statistics, x: Float[Array, "rows inputs"]) -> Statistics:
    wide = x.astype(jnp.float32)
    gram = jnp.matmul(wide.T, wide, precision=lax.Precision.HIGHEST)
    return Statistics(statistics.hessian + gram, statistics.rows + x.shape[0])


def damped(hessian: Float[Array, "inputs inputs"], damping: float) -> Float[Array, "inputs inputs"]:
    """``H + damping mean(diag H) I``; the identity for inputs that are all zero.

    >>> damped(jnp.diag(jnp.array([1.0, 3.0])), 0.5)
    Array([[2., 0.],
           [0., 4.]], dtype=float32)
    """
    mean = jnp.mean(jnp.diagonal(hessian))
    return hessian + jnp.where(mean > 0, damping * mean, 1.0) * jnp.eye(hessian.shape[0], dtype=hessian.dtype)


@jax.jit
def output_error(
    found: Float[Array, "inputs outputs"], w: Float[Array, "inputs outputs"], statistics: Statistics
) -> Float[Array, ""]:
    """How much of the layer's output the new weights get wrong: ||X (W' - W)||^2 / ||X W||^2.

    Args:
      found: New weights.
      w: Original weights.
      statistics: Of the calibration data.

    Returns:
      float32, 0 for no error; 0 if the output was zero and stays so, infinite if it does not.

    >>> output_error(jnp.zeros((2, 1)), jnp.ones((2, 1)), add(start(2), jnp.eye(2)))
    Array(1., dtype=float32)
    """

    def energy(v: Array) -> Array:
        return jnp.sum(v * jnp.matmul(statistics.hessian, v, precision=lax.Precision.HIGHEST))

    wide = w.astype(jnp.float32)
    wrong, whole = energy(found.astype(jnp.float32) - wide), energy(wide)
    # Rounding can leave a tiny negative number.
    wrong = jnp.maximum(wrong, 0.0)
    return jnp.where(whole > 0, wrong / whole, jnp.where(wrong > 0, jnp.inf, 0.0))


def shortage(statistics: Statistics) -> str:
    """What the calibration data leave open, in words; empty if nothing.

    Solvers still work then: damping prefers, among weights of equal output on these data, those nearest to the
    originals.  The layer is compressed for what was seen and not for what was not.

    Args:
      statistics: Of the calibration data; concrete, not traced.

    Returns:
      One clause.

    >>> shortage(add(start(3), jnp.eye(3))), shortage(add(start(3), jnp.ones((2, 3))))
    ('', 'only 2 rows for 3 inputs')
    """
    inputs, rows = statistics.hessian.shape[0], int(statistics.rows)
    dead = int(jnp.sum(jnp.diagonal(statistics.hessian) == 0))
    if dead:
        return f"{dead} of {inputs} inputs are always zero"
    if rows < inputs:
        return f"only {rows} rows for {inputs} inputs"
    return "some inputs are linear combinations of others" if bool(_deficient(statistics.hessian)) else ""


@jax.jit
def _deficient(hessian: Float[Array, "inputs inputs"]) -> Bool[Array, ""]:
    """Whether the Cholesky factorization of H with unit diagonal meets a pivot within rounding of zero."""
    scale = lax.rsqrt(jnp.diagonal(hessian))
    pivots = jnp.diagonal(jnp.linalg.cholesky(hessian * scale[:, None] * scale[None, :]))
    bound = hessian.shape[0] * jnp.finfo(hessian.dtype).eps
    return jnp.any(~(jnp.square(pivots) > bound))
