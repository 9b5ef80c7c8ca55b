"""The pruning ratio from which a sparse kernel is faster than the dense one.

With hardware whose sparse units cost (1 + overhead) and are busy for a share u, a layer pruned r-fold runs r u / (1 +
overhead) times as fast, so that r* = (1 + overhead) / u.  On any other platform r* is where the two latencies cross.
Layers that cannot be pruned beyond r* without loss should stay dense.

Source: the break-even ratio of Ren et al., "ADMM-NN", ASPLOS 2019 (arXiv 1812.11677).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from compressjax.cost._layers import Layers, concatenate
from compressjax.cost._platform import Platform

RATIOS = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0)


def break_even(layers: Layers, platform: Platform, *, ratios: Sequence[float] = RATIOS) -> Float[np.ndarray, " layers"]:
    """Per layer, the pruning ratio from which pruning pays.

    The pattern is that of `layers`: ``block_inputs`` and ``block_outputs``, 1 for single weights.  All ratios go to the
    platform in one call, so that a host measures them in turns.

    Args:
      layers: The layers; their density is ignored.
      platform: Modelled or measured.  Pass ``as_gemm(layers)`` to compare matrix products alone: a pruned convolution
        on the host also pays for gathering its patches.
      ratios: Increasing pruning ratios (dense over kept weights, 1 or more) at which both are compared; between them
        latency is taken to follow a power law.

    Returns:
      The ratio beyond which the sparse kernel is faster at all of `ratios`; infinite if that is at none.

    Raises:
      ValueError: If the ratios do not increase from 1 or more.

    >>> from compressjax import cost
    >>> net = cost.layers(lambda w, x: x @ w, np.ones((64, 64)), np.ones((64, 64)))
    >>> break_even(net, cost.Roofline(peak=1e9, overhead=0.11, balance=0.5)).round(2)
    array([2.22])
    """
    steps = np.asarray(ratios, np.float64)
    if steps.ndim != 1 or not len(steps) or steps[0] < 1 or (np.diff(steps) <= 0).any():
        raise ValueError(f"ratios {tuple(ratios)} must increase, starting at 1 or more.")
    almost = 1 - 1e-9  # a sparse kernel that has pruned next to nothing
    variants = [layers.replace(density=1.0)]
    variants += [layers.replace(density=min(1 / float(ratio), almost)) for ratio in steps]
    times = np.asarray(platform.latency(concatenate(variants)), np.float64).reshape(len(variants), len(layers))
    dense, sparse = times[0], np.maximum(times[1:], 1e-12)
    out = np.empty(len(layers))
    for i in range(len(layers)):
        slower = np.flatnonzero(sparse[:, i] > dense[i])
        last = slower[-1] if len(slower) else -1
        if last == len(steps) - 1:
            out[i] = np.inf
        elif last < 0:
            out[i] = steps[0]
        else:
            high, low = np.log(sparse[last, i]), np.log(sparse[last + 1, i])
            share = (high - np.log(max(dense[i], 1e-12))) / (high - low) if high > low else 1.0
            out[i] = steps[last] * (steps[last + 1] / steps[last]) ** min(max(share, 0.0), 1.0)
    return out
