"""SparseGPT: prune input by input, by what removal costs, and let the inputs to come make up for it.

A weight goes if w^2 / [H^-1]_jj is small, with the inverse over the inputs not yet settled; `_sweep` has the formulas.
With levels it is joint pruning and quantization, and with levels alone GPTQ.  The levels are fitted to the weights that
a first sweep without them leaves.

Source: Frantar and Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", ICML 2023
(arXiv 2301.00774); Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ", ICLR 2023 (arXiv 2210.17323).
"""

from jaxtyping import Array, Float

from compressjax.oneshot._problem import check, checked, split
from compressjax.oneshot._statistics import Statistics, damped
from compressjax.oneshot._sweep import sweep
from compressjax.projections import Constraint
from compressjax.quantizers import Quantizer


def sparsegpt(
    w: Float[Array, "inputs outputs"],
    statistics: Statistics,
    constraint: Constraint,
    *,
    damping: float = 0.01,
    block: int = 128,
) -> Float[Array, "inputs outputs"]:
    """One sweep over the inputs.

    Args:
      w: Kernel.
      statistics: Of what enters the layer.
      constraint: `Cardinality`, `NM` along the inputs, a quantizer, or `Both`; `PerOutput` levels for own grids.
      damping: Added to the diagonal, as a share of its mean.
      block: Inputs among which a `Cardinality` chooses, and between matrix products; multiples of N:M's m.

    Returns:
      Weights in the set, in the dtype of `w`.

    Raises:
      ValueError: If the constraint is another, or the inputs do not fit each other or are not finite.

    >>> import jax.numpy as jnp
    >>> from compressjax.oneshot import add, start
    >>> from compressjax.projections import Cardinality
    >>> twins = add(start(2), jnp.array([[1.0, 1.0], [1.0, 1.0]]))
    >>> sparsegpt(jnp.array([[1.0], [2.0]]), twins, Cardinality(1), damping=1e-5).ravel().round(2)
    Array([0., 3.], dtype=float32)
    """
    check("sparsegpt", w, statistics, damping)
    if block < 1:
        raise ValueError(f"sparsegpt: block={block} must be at least 1.")
    sparsity, quantizer = split("sparsegpt", constraint)
    hessian = damped(statistics.hessian, damping)
    found = w if sparsity is None else sweep(w, hessian, sparsity, block=block).astype(w.dtype)
    if quantizer is not None:
        found = sweep(w, hessian, sparsity, quantizer, fitted(quantizer, found), block=block)
    return checked("sparsegpt", found.astype(w.dtype))


def fitted(quantizer: Quantizer, w: Float[Array, "inputs outputs"]) -> Float[Array, "..."]:
    """Levels for `w`, which its dtype holds exactly, in the dtype of the arithmetic."""
    return quantizer.fit(w).astype("float32")
