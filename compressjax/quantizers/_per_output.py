"""One set of levels for every output, or for every group of inputs of every output.

    S = {z : column j of z, or each run of `inputs` entries of it, lies in the inner level set}

A shared scale must serve the widest output; own scales cost a few bits per output and follow each.  The parts are
independent, so the projection is that of every part, exactly.

Source: per-channel and group-wise grids as in Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ", ICLR 2023
(arXiv 2210.17323).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from compressjax.projections._base import Quantizer

_AT_ONCE = 256  # parts fitted side by side: the sweep of a fit takes memory in proportion


@dataclass(frozen=True)
class PerOutput:
    """Every output, the last axis, has levels of its own; so has every run of `inputs` inputs if that is given.

    A tensor with more axes counts as a matrix (inputs, outputs), all axes but the last being inputs.

    Args:
      levels: A quantizer, such as `Levels` or `Codebook`.
      inputs: Consecutive inputs that share levels; None: all of an output's.  Must divide the inputs.

    Raises:
      ValueError: If `inputs` is not positive; at projection, if it does not divide the inputs or the tensor has no
        outputs.

    >>> from compressjax.quantizers import Binary
    >>> PerOutput(Binary()).project(jnp.array([[1.0, -8.0], [3.0, 2.0]]))
    Array([[ 2., -5.],
           [ 2.,  5.]], dtype=float32)
    """

    levels: Quantizer
    inputs: int | None = None

    def __post_init__(self) -> None:
        if self.inputs is not None and (isinstance(self.inputs, bool) or self.inputs < 1):
            raise ValueError(f"PerOutput: inputs={self.inputs!r} must be at least 1, or None for all.")

    def fit(self, x: Float[Array, "..."]) -> Float[Array, "groups outputs levels"]:
        """The levels of every part."""
        return lax.map(self.levels.fit, self._parts(x), batch_size=_AT_ONCE).reshape(*self._counts(x), -1)

    def snap(self, x: Float[Array, "..."], levels: Float[Array, "groups outputs levels"]) -> Float[Array, "..."]:
        """Every non-zero entry at the nearest level of its part."""
        flat = levels.reshape(-1, levels.shape[-1])
        return self._whole(jax.vmap(self.levels.snap)(self._parts(x), flat), x)

    def project(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The projection of every part; shape and dtype stay."""
        return self._whole(lax.map(self.levels.project, self._parts(x), batch_size=_AT_ONCE), x)

    def contains(self, x: Float[Array, "..."]) -> Bool[Array, ""]:
        """Whether every part lies in the inner set."""
        return jnp.all(lax.map(self.levels.contains, self._parts(x), batch_size=_AT_ONCE))

    def support(self, x: Float[Array, "..."]) -> Bool[Array, "..."]:
        """The inner support of every part."""
        return self._whole(lax.map(self.levels.support, self._parts(x), batch_size=_AT_ONCE), x)

    def _counts(self, x: Array) -> tuple[int, int]:
        """Groups and outputs."""
        if x.ndim < 1 or not x.size:
            raise ValueError(f"PerOutput: shape {x.shape} has no outputs: exempt the leaf.")
        outputs = x.shape[-1]
        inputs = x.size // outputs
        if self.inputs is not None and inputs % self.inputs:
            raise ValueError(
                f"PerOutput: inputs={self.inputs} does not divide the {inputs} inputs of shape {x.shape}: "
                "choose a divisor or exempt the leaf."
            )
        return inputs // (self.inputs or inputs), outputs

    def _parts(self, x: Array) -> Array:
        """(groups * outputs, inputs of a group)."""
        groups, outputs = self._counts(x)
        return jnp.moveaxis(x.reshape(groups, -1, outputs), 1, 2).reshape(groups * outputs, -1)

    def _whole(self, parts: Array, x: Array) -> Array:
        """Inverse of `_parts`."""
        groups, outputs = self._counts(x)
        return jnp.moveaxis(parts.reshape(groups, outputs, -1), 2, 1).reshape(x.shape)
