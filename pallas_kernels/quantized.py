"""Low-bit weights: int8 and int4 codes with scales, or codes into a codebook."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pallas_kernels import _check
from pallas_kernels._pytree import pytree, static
from pallas_kernels.dense import Dense

BITS = (4, 8)


@pytree
class Quantized:
    """A tensor [..., K, N] as codes: ``codes * scale``, or ``codebook[codes] * scale``.

    Two 4-bit codes share a byte: the low nibble holds the first half of the K axis, the high nibble the second, so
    that a kernel unpacks them into two tiles without interleaving.

    Attributes:
      codes: int8 [..., K, N], or [..., K / 2, N] for 4 bits; with a codebook they are unsigned.
      scale: Float [..., K / group, N]: one factor per output and group of inputs.  Its dtype is that of the weights.
      codebook: Float [levels], or None for evenly spaced levels.
      shape: [..., K, N].
      bits: 4 or 8.

    >>> w = Quantized.from_dense(np.array([[1.0, -0.5], [-0.25, 0.5]], np.float32), bits=8)
    >>> w.codes.tolist()
    [[127, -127], [-32, 127]]
    >>> w.nbytes, w.todense().tolist()
    (12, [[1.0, -0.5], [-0.25196..., 0.5]])
    """

    codes: Any
    scale: Any
    codebook: Any
    shape: tuple[int, ...] = static()
    bits: int = static()

    @classmethod
    def from_dense(
        cls, dense: Float[Array, "..."] | np.ndarray, bits: int = 8, group: int | None = None
    ) -> "Quantized":
        """Rounds to the nearest of 2**bits - 1 evenly spaced levels, symmetric, fitted to the largest magnitude.

        Args:
          dense: Concrete weights [..., K, N], finite floats.
          bits: 8 or 4.
          group: Inputs that share a scale; default: all K of them.

        Returns:
          The codes, with scales in the dtype of `dense`.

        Raises:
          ValueError: For other bits, a group that does not divide K, an odd K for 4 bits, or bad weights.
        """
        weights = _weights(dense)
        *lead, k, n = weights.shape
        group = k if group is None else group
        _check.divides(k, group, "Quantized: the number of inputs")
        largest = 2 ** (_check_bits(bits) - 1) - 1
        grouped = weights.astype(np.float32).reshape(*lead, k // group, group, n)
        scale = np.abs(grouped).max(-2) / largest
        empty, scale = scale == 0, scale.astype(weights.dtype)
        if (scale[~empty] == 0).any() or not np.isfinite(scale.astype(np.float32) * largest).all():
            raise ValueError(f"Quantized: the scales of these weights do not fit {weights.dtype}: pack float32.")
        scale = np.where(empty, 1, scale).astype(weights.dtype)
        codes = np.rint(grouped / scale.astype(np.float32)[..., None, :]).clip(-largest, largest)
        return cls.from_codes(codes.astype(np.int8).reshape(weights.shape), jnp.asarray(scale), bits=bits)

    @classmethod
    def from_codes(cls, codes: Any, scale: Any, codebook: Any = None, *, bits: int) -> "Quantized":
        """Packs integer codes [..., K, N] that are known already; see the class for the shapes.

        Raises:
          ValueError: If a code needs more bits, or shapes do not fit.
        """
        codes = np.asarray(codes)
        scale = jnp.asarray(scale)
        *lead, k, n = codes.shape
        if not np.issubdtype(codes.dtype, np.integer):
            raise ValueError(f"Quantized: codes are integers, not {codes.dtype}.")
        half = 2 ** (_check_bits(bits) - 1)
        low, high = (-half, half - 1) if codebook is None else (0, len(codebook) - 1)
        if codebook is not None and len(codebook) > 2 * half:
            raise ValueError(f"Quantized: a codebook of {len(codebook)} levels needs more than {bits} bits.")
        if codes.size and (codes.min() < low or codes.max() > high):
            raise ValueError(f"Quantized: codes run from {codes.min()} to {codes.max()}; {low} to {high} can be held.")
        if scale.ndim != codes.ndim or scale.shape[:-2] != tuple(lead) or scale.shape[-1] != n:
            raise ValueError(
                f"Quantized: the scale has shape {scale.shape}; codes {codes.shape} need [..., groups, {n}]."
            )
        _check.divides(k, scale.shape[-2], "Quantized: the number of inputs")
        packed = codes.astype(np.uint8) if codebook is not None else codes.astype(np.int8).view(np.uint8)
        if bits == 4:
            _check.divides(k, 2, "Quantized: with 4 bits the number of inputs")
            packed = (packed[..., : k // 2, :] & 15) | (packed[..., k // 2 :, :] << 4)
        levels = None if codebook is None else jnp.asarray(codebook, scale.dtype)
        return cls(jnp.asarray(packed.view(np.int8)), scale, levels, tuple(codes.shape), bits)

    @property
    def dtype(self) -> Any:
        return self.scale.dtype

    @property
    def group(self) -> int:
        """Inputs that share a scale."""
        return self.shape[-2] // self.scale.shape[-2]

    @property
    def nbytes(self) -> int:
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self))

    def integers(self) -> Array:
        """The codes, one per weight: int8 [..., K, N] (uint8 with a codebook)."""
        codes = self.codes
        if self.codebook is not None:
            codes = jax.lax.bitcast_convert_type(codes, jnp.uint8)
        if self.bits == 8:
            return codes
        # Shifting left, then right, extends the sign of a signed nibble.
        return jnp.concatenate([(codes << 4) >> 4, codes >> 4], -2)

    def todense(self) -> Float[Array, "..."]:
        """The weights; differentiable with respect to the scale and the codebook."""
        codes = self.integers()
        if self.codebook is None:
            values = codes.astype(self.dtype)
        else:
            # A level of exactly zero is a pruned weight: it has no gradient, and stays zero.
            levels = jnp.where(self.codebook == 0, 0, self.codebook)
            values = levels[codes.astype(jnp.int32)]
        *lead, k, n = self.shape
        grouped = values.reshape(*lead, k // self.group, self.group, n)
        return (grouped * self.scale[..., None, :]).reshape(self.shape)

    def dequantize(self) -> Dense:
        """The same matrix with float values; differentiable with respect to the scale and the codebook."""
        return Dense(self.todense())


def _weights(dense: Any) -> np.ndarray:
    if getattr(dense, "ndim", 0) < 2:
        raise ValueError(f"Quantized packs tensors [..., inputs, outputs]; got shape {np.shape(dense)}.")
    flat = dense.reshape(-1, dense.shape[-1])
    return _check.dense_weights(flat, "Quantized").reshape(dense.shape)


def _check_bits(bits: int) -> int:
    if bits not in BITS:
        raise ValueError(f"Quantized: bits is {bits}; choose one of {BITS}.")
    return bits
