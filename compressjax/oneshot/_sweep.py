r"""Optimal brain surgery, one input at a time: the sweep behind SparseGPT and GPTQ.

With H^-1 = U^T U, U upper triangular, row i of U holds what optimal brain surgery needs once inputs 0 .. i - 1 are
settled: setting w_i (the weights that read input i) to q_i costs (w_i - q_i)^2 / U_ii^2 and is best compensated by

    w_j  <-  w_j - U_ij (w_i - q_i) / U_ii        for all j > i

for every output alike.  Pruning (q = 0) and rounding (q on a level) are the same step.  Within a block of inputs the
compensation is applied at once, beyond it as one matrix product per block.  All shapes are static: the mask is data.

U comes from one factorization: if the reversed H is L L^T, then U is the reversed inverse of L.

Source: Frantar and Alistarh, "SparseGPT", ICML 2023 (arXiv 2301.00774); Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ",
ICLR 2023 (arXiv 2210.17323).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from compressjax.projections import NM, Cardinality, Constraint
from compressjax.projections._select import top_mask
from compressjax.quantizers import PerOutput, Quantizer


def sweep(
    w: Float[Array, "inputs outputs"],
    hessian: Float[Array, "inputs inputs"],
    choice: Constraint | Bool[Array, "inputs outputs"] | None,
    quantizer: Quantizer | None = None,
    levels: Float[Array, "..."] | None = None,
    *,
    block: int,
) -> Float[Array, "inputs outputs"]:
    """Prunes and rounds the weights input by input, compensating in the inputs to come.

    Args:
      w: Kernel.
      hessian: Positive definite.
      choice: What stays: a `Cardinality` (chosen block by block, each block keeping its share), an `NM` along the
        inputs (chosen group by group), a mask, or None for everything.
      quantizer: Rounds what stays to `levels`; None: it keeps its value.
      levels: From ``quantizer.fit``.
      block: Inputs per block.

    Returns:
      New weights, float32.

    Raises:
      ValueError: If the set is none of these, or N:M does not divide the inputs.
    """
    inputs = w.shape[0]
    group = 1
    if isinstance(choice, NM):
        if choice.axis not in (0, -2):
            raise ValueError(f"sparsegpt goes input by input: {choice} must run along the inputs, axis=-2.")
        choice = NM(choice.n, choice.m, axis=0)
        choice.support(w)  # for its errors
        group = choice.m
    elif isinstance(choice, Cardinality):
        choice.count(w.shape)
    elif choice is not None and not isinstance(choice, jax.Array):
        raise ValueError(
            f"sparsegpt chooses weights by Cardinality or NM, not by {choice}: use alps or wanda for other sets."
        )
    # Whole groups, and no more than there are inputs.
    block = max(group, min(block, inputs) // group * group)
    mask = choice if isinstance(choice, jax.Array) else jnp.ones(w.shape, bool)
    rule = None if isinstance(choice, jax.Array) else choice
    return _sweep(w.astype(jnp.float32), hessian, mask, levels, rule=rule, quantizer=quantizer, block=block)


@partial(jax.jit, static_argnames=("rule", "quantizer", "block"))
def _sweep(
    w: Float[Array, "inputs outputs"],
    hessian: Float[Array, "inputs inputs"],
    mask: Bool[Array, "inputs outputs"],
    levels: Float[Array, "..."] | None,
    *,
    rule: NM | Cardinality | None,
    quantizer: Quantizer | None,
    block: int,
) -> Float[Array, "inputs outputs"]:
    inputs, outputs = w.shape
    blocks = -(-inputs // block)
    fill = blocks * block - inputs
    # Filled up to whole blocks with inputs that nothing depends on.
    root = jnp.pad(_upper_root(hessian), (0, fill)) + jnp.diag((jnp.arange(inputs + fill) >= inputs) * 1.0)
    w = jnp.pad(w, ((0, fill), (0, 0)))
    mask = jnp.pad(mask, ((0, fill), (0, 0)))
    step = rule.m if isinstance(rule, NM) else block
    counts = _shares(rule, inputs, outputs, block) if isinstance(rule, Cardinality) else None

    def choose(now: Array, pivots: Array, first: Array) -> Array:
        """Of inputs first .. first + step - 1, what stays."""
        score = jnp.square(now / pivots[:, None])
        if counts is None:
            return rule.support(score)  # type: ignore[union-attr] # the caller has a rule
        real = (first + jnp.arange(step) < inputs)[:, None]
        return top_mask(jnp.where(real, score, -1.0), counts[first // block])

    def settle(i: Array, carry: tuple[Array, Array, Array], root: Array, first: Array) -> tuple[Array, Array, Array]:
        now, kept, errors = carry
        pivots = jnp.diagonal(root)
        if rule is not None:

            def chosen() -> Array:
                part = lax.dynamic_slice_in_dim(now, i, step)
                fresh = choose(part, lax.dynamic_slice_in_dim(pivots, i, step), first + i)
                return lax.dynamic_update_slice_in_dim(kept, fresh, i, 0)

            kept = lax.cond(i % step == 0, chosen, lambda: kept)
        row = now[i]
        goal = jnp.where(kept[i], row, jnp.zeros_like(row))
        if quantizer is not None:
            goal = _snapped(quantizer, goal, levels, first + i, inputs)
        error = (row - goal) / pivots[i]
        now = now - root[i][:, None] * error[None, :]
        # The line above left w_i at its goal up to rounding.
        return now.at[i].set(goal), kept, errors.at[i].set(error)

    def one_block(number: Array, w: Array) -> Array:
        first = number * block
        rows = lax.dynamic_slice_in_dim(root, first, block)
        own = lax.dynamic_slice_in_dim(rows, first, block, axis=1)
        start = (
            lax.dynamic_slice_in_dim(w, first, block),
            lax.dynamic_slice_in_dim(mask, first, block),
            jnp.zeros((block, outputs), w.dtype),
        )
        done, _, errors = lax.fori_loop(0, block, partial(settle, root=own, first=first), start)
        beyond = jnp.where((jnp.arange(w.shape[0]) >= first + block)[None, :], rows, 0.0)
        w = w - jnp.matmul(beyond.T, errors, precision=lax.Precision.HIGHEST)
        return lax.dynamic_update_slice_in_dim(w, done, first, 0)

    return lax.fori_loop(0, blocks, one_block, w)[:inputs]


def _upper_root(hessian: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The upper triangular U with H^-1 = U^T U."""
    lower = jnp.linalg.cholesky(hessian[::-1, ::-1])
    inverse = lax.linalg.triangular_solve(
        lower, jnp.eye(hessian.shape[0], dtype=hessian.dtype), left_side=True, lower=True
    )
    return inverse[::-1, ::-1]


def _shares(rule: Cardinality, inputs: int, outputs: int, block: int) -> Array:
    """How many weights each block keeps: in proportion to its size, adding up exactly."""
    kept = rule.count((inputs, outputs))
    ends = [kept * min(first + block, inputs) // inputs for first in range(0, inputs, block)]
    return jnp.asarray([end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)], jnp.int32)


def _snapped(quantizer: Quantizer, row: Array, levels: Array | None, i: Array, inputs: int) -> Array:
    """The weights of input i at their nearest levels."""
    assert levels is not None
    if isinstance(quantizer, PerOutput):
        group = jnp.minimum(i, inputs - 1) // (quantizer.inputs or inputs)
        return PerOutput(quantizer.levels).snap(row[None], lax.dynamic_slice_in_dim(levels, group, 1))[0]
    return quantizer.snap(row, levels)
