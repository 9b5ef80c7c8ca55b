"""Static ranges: the step of a tensor from what it was seen to hold, batch after batch.

What is kept of a stream is its least and largest value and a histogram of counts and sums with 65,536 logarithmic bins
of at most 1/128 relative width, so that no range has to be guessed before the first batch.  Three rules turn it into a
step for given codes:

    min-max          high * step = the largest magnitude: nothing is clipped
    percentile       as min-max after the outermost share of all entries is left out
    least error      the step that minimises  sum (x - quantized x)^2  over 64 steps per octave below that of min-max

The first is exact, the others up to the width of a bin, about 0.8 %.  Steps are positive float32 scalars, good as the
start of `LearnedStep` or, times the largest code, of `LearnedClip`.

Source: Migacz, "8-bit inference with TensorRT", GTC 2017 (calibration from histograms); least squared error: Choukroun
et al., "Low-bit Quantization of Neural Networks for Efficient Inference", 2019 (arXiv 1902.06822).
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

from compressjax.quantizers._base import histogram
from compressjax.quantizers._integers import Codes

_OCTAVES, _PER_OCTAVE = 8, 64


class Seen(NamedTuple):
    """What was seen of a stream of tensors.

    Attributes:
      low: The least value, () float32; NaN if one was seen.
      high: The largest value, likewise.
      entries: Number of entries, zeros included, () float32.
      count: Non-zero entries in each bin of `histogram`; they wrap beyond 2^32 in one bin.
      total: Sum of the entries of each bin.
    """

    low: Float[Array, ""]
    high: Float[Array, ""]
    entries: Float[Array, ""]
    count: UInt32[Array, "65536"]  # type: ignore[assignment] # shadows tuple.count
    total: Float[Array, "65536"]


@jax.jit
def observe(x: Float[Array, "..."], seen: Seen | None = None) -> Seen:
    """Adds a tensor to what was seen.

    Args:
      x: Any shape.
      seen: What was seen before; None at the start.

    Returns:
      What has now been seen.

    >>> seen = observe(jnp.array([0.5, -2.0]), observe(jnp.array([1.0])))
    >>> float(seen.low), float(seen.high), float(seen.entries)
    (-2.0, 1.0, 3.0)
    """
    count, total = histogram(x)
    wide = x.astype(jnp.float32)
    # Zero belongs to every range, which also makes that of nothing defined.
    low, high = jnp.min(wide, initial=0.0), jnp.max(wide, initial=0.0)
    now = Seen(low, high, jnp.float32(x.size), count.astype(jnp.uint32), total)
    if seen is None:
        return now
    return Seen(
        jnp.minimum(seen.low, now.low),
        jnp.maximum(seen.high, now.high),
        *(a + b for a, b in zip(seen[2:], now[2:], strict=True)),
    )


def calibrate(
    activations: Callable[[Any], Mapping[str, Float[Array, "..."]]], batches: Iterable[Any]
) -> dict[str, Seen]:
    """Observes named activations over batches, one at a time.

    Args:
      activations: ``activations(batch)``: tensors by name, such as the inputs of the layers; it is compiled.
      batches: From the training or validation split; each is seen once and not kept.

    Returns:
      What was seen, by name.

    Raises:
      ValueError: If there is no batch, or a tensor held NaN or infinity, naming it and the batch.

    >>> seen = calibrate(lambda x: {"fc1/input": x}, [jnp.array([1.0, 2.0]), jnp.array([3.0])])
    >>> min_max(seen["fc1/input"], Codes(2, signed=False))
    Array(1., dtype=float32)
    """

    @jax.jit
    def add(batch: Any, seen: dict[str, Seen] | None) -> dict[str, Seen]:
        return {
            name: observe(x, None if seen is None else seen[name]) for name, x in sorted(activations(batch).items())
        }

    seen: dict[str, Seen] | None = None
    for number, batch in enumerate(batches):
        seen = add(batch, seen)
        for name, stream in seen.items():
            if not np.isfinite([stream.low, stream.high]).all():
                raise ValueError(
                    f"calibrate: {name!r} held NaN or infinity in batch {number}; no step fits it. Look at that batch, "
                    "or at the network before this layer."
                )
    if seen is None:
        raise ValueError("calibrate needs at least one batch: `batches` is empty.")
    return seen


def min_max(seen: Seen, codes: Codes) -> Float[Array, ""]:
    """The step at which nothing is clipped; 1 if only zeros were seen.

    >>> min_max(observe(jnp.array([0.5, -1.0, 3.5])), Codes(4))
    Array(0.5, dtype=float32)
    """
    top = seen.high / codes.high
    # Unsigned codes have no use for negative values.
    return _or_one(jnp.maximum(top, -seen.low / max(-codes.low, 1)) if codes.signed else top)


def percentile(seen: Seen, codes: Codes, share: float = 0.999) -> Float[Array, ""]:
    """The step at which `share` of all entries are not clipped.

    Args:
      seen: From `observe` or `calibrate`.
      codes: The range of codes.
      share: In (0, 1]; by magnitude if the codes are signed; else negative entries count as zeros.

    Returns:
      () float32; 1 if only zeros would be left.

    Raises:
      ValueError: If `share` is out of range.

    >>> seen = observe(jnp.append(jnp.full(999, 7.0), 700.0))
    >>> round(float(percentile(seen, Codes(4), 0.99)), 1)
    1.0
    """
    if not 0.0 < share <= 1.0:
        raise ValueError(f"percentile: share={share} must lie in (0, 1].")
    size, count = _magnitudes(seen, codes)
    beyond = jnp.cumsum(count[::-1])[::-1]  # entries in this bin or above it
    kept = beyond > (1.0 - share) * seen.entries
    return jnp.minimum(_or_one(jnp.max(jnp.where(kept, size, 0.0)) / codes.high), min_max(seen, codes))


def least_error(seen: Seen, codes: Codes) -> Float[Array, ""]:
    """The step of least squared error; 1 if only zeros were seen.

    >>> float(least_error(observe(jnp.array([1.0, 2.0, 3.0, -4.0])), Codes(3))).__round__(2)
    1.0
    """
    return _least_error(seen, codes)


@partial(jax.jit, static_argnames="codes")
def _least_error(seen: Seen, codes: Codes) -> Float[Array, ""]:
    count = seen.count.astype(jnp.float32)
    mean = seen.total / jnp.maximum(count, 1.0)
    steps = min_max(seen, codes) * 2.0 ** -(jnp.arange(_OCTAVES * _PER_OCTAVE, dtype=jnp.float32) / _PER_OCTAVE)

    # Of a bin's sum of (x - q)^2 = x^2 - 2 q x + q^2 only the last two terms depend on the step.
    def error(step: Array) -> Array:
        level = jnp.clip(jnp.round(mean / step), codes.low, codes.high) * step
        return jnp.sum(level * (count * level - 2 * seen.total))

    errors = jax.lax.map(error, steps, batch_size=16)
    return steps[jnp.argmin(errors)]


def _magnitudes(seen: Seen, codes: Codes) -> tuple[Float[Array, "bins"], Float[Array, "bins"]]:
    """Mean magnitude and count of the bins that the codes can represent, by rising magnitude."""
    count, total = seen.count[1 << 15 :].astype(jnp.float32), seen.total[1 << 15 :]
    if codes.signed:
        count = count + seen.count[: 1 << 15][::-1].astype(jnp.float32)
        total = total - seen.total[: 1 << 15][::-1]
    return total / jnp.maximum(count, 1.0), count


def _or_one(step: Float[Array, ""]) -> Float[Array, ""]:
    return jnp.where(step > 0, step, jnp.ones_like(step))
