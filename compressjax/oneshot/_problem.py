"""The layer-wise problem that every solver of this room is given, and the checks they share.

    minimise over W' in S    ||X (W' - W)||^2 = tr((W' - W)^T H (W' - W)),    H = X^T X

S is one of the library's constraints, on the kernel as a matrix (inputs, outputs).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from compressjax.oneshot._statistics import Statistics
from compressjax.projections import Both, Constraint, Joint, LowRank
from compressjax.quantizers import Quantizer

Method = Callable[[Float[Array, "inputs outputs"], Statistics, Constraint], Float[Array, "inputs outputs"]]


def check(name: str, w: Float[Array, "inputs outputs"], statistics: Statistics, damping: float = 1.0) -> None:
    """Refuses what no solver can work with.  Values are looked at where they are known, which under `jit` they are not.

    Raises:
      ValueError: If shapes do not fit, the layer is empty, `damping` is not positive, no row was seen, or weights or
        statistics are not finite.
    """
    if w.ndim != 2 or not w.size:
        raise ValueError(f"{name}: a kernel of shape {w.shape} is no matrix (inputs, outputs) with entries: exempt it.")
    if statistics.hessian.shape != (w.shape[0], w.shape[0]):
        raise ValueError(
            f"{name}: statistics of {statistics.hessian.shape[0]} inputs do not fit a kernel of shape {w.shape}."
        )
    if not damping > 0:
        raise ValueError(
            f"{name}: damping={damping} must be positive; it is what makes rank-deficient statistics solvable."
        )
    if isinstance(w, jax.core.Tracer) or isinstance(statistics.hessian, jax.core.Tracer):
        return
    if int(statistics.rows) < 1:
        raise ValueError(f"{name}: the statistics are of no rows: add at least one batch of activations.")
    if not bool(jnp.all(jnp.isfinite(statistics.hessian))):
        raise ValueError(
            f"{name}: the calibration activations are not finite (or their squares overflow): look for NaN in the "
            "calibration data and in the weights before this layer."
        )
    if not bool(jnp.all(jnp.isfinite(w))):
        raise ValueError(f"{name}: the kernel is not finite.")


def checked(name: str, found: Float[Array, "inputs outputs"]) -> Float[Array, "inputs outputs"]:
    """The solution, unless a factorization broke down.

    Raises:
      ValueError: If it is not finite.
    """
    if not isinstance(found, jax.core.Tracer) and not bool(jnp.all(jnp.isfinite(found))):
        raise ValueError(f"{name}: the factorization broke down in float32: raise the damping.")
    return found


def split(name: str, constraint: Constraint) -> tuple[Constraint | None, Quantizer | None]:
    """The sparse set and the level set of a constraint; None for one that it does not have.

    Raises:
      ValueError: If the constraint does not select entries of one matrix.
    """
    if isinstance(constraint, Both):
        return constraint.sparsity, constraint.levels
    if isinstance(constraint, (Joint, LowRank)):
        raise ValueError(
            f"{name}: {constraint} does not select entries of one layer, and layers are solved one after the other: "
            "give every layer its own sparse set."
        )
    if isinstance(constraint, Quantizer):
        return None, constraint
    return constraint, None
