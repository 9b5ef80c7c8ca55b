"""Laying packed weights out for the machine that will multiply with them."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pallas_kernels import native
from pallas_kernels._calibration import DENSE, FORMS, Calibration, has_form
from pallas_kernels._choose import platform_name, refusal
from pallas_kernels._interface import Format
from pallas_kernels._pytree import pytree, static
from pallas_kernels.block_sparse import BlockSparse
from pallas_kernels.channels import Channels
from pallas_kernels.dense import Dense
from pallas_kernels.quantized import Quantized

# Predictions err: a sparse form must promise this much before it replaces the dense one.
MARGIN = 1.25


@pytree
class Prepared:
    """Packed weights with the implementation that was chosen for them; made by `prepare`.

    Attributes:
      weights: A format; `Dense` where the sparse form would have been slower.
      implementation: One of `IMPLEMENTATIONS`.
      platform: "cpu", "gpu" or "tpu".
      reason: One sentence: why this implementation.
      required: Whether another implementation must not step in where this one cannot compute a product.
    """

    weights: Any
    implementation: str = static()
    platform: str = static()
    reason: str = static()
    required: bool = static(default=False)

    @property
    def shape(self) -> tuple[int, int]:
        return self.weights.shape

    @property
    def dtype(self) -> Any:
        return self.weights.dtype

    @property
    def nbytes(self) -> int:
        return self.weights.nbytes

    def todense(self) -> Float[Array, "K N"]:
        """The whole matrix, with zeros."""
        return self.weights.todense()


def prepare(
    w: Format,
    rows: int,
    *,
    platform: str | None = None,
    calibration: Calibration | None = None,
    use_native: bool | None = None,
) -> Prepared:
    """Chooses how to multiply with concrete weights, and lays them out for it, once.

    On the CPU the choice is by measurement: the fastest form predicted, and the dense one unless a sparse form promises
    to be clearly faster.  On TPUs and GPUs nothing has been measured: their kernel is taken where it takes the weights.

    Args:
      w: Packed weights.
      rows: Rows of the activations it will meet: batch, times positions of a convolution.
      platform: "cpu", "gpu" or "tpu": what the program is for; default: JAX's default backend.
      calibration: Measurements of `calibrate` for this machine; default: those that come with the package.
      use_native: Whether the C++ kernel may be chosen; default: if it can be built, which the first call tries.

    Returns:
      The weights for `matmul`, with the reason of the choice.  They are meant for inference: a dense form would train
      weights outside of the pattern too.

    Raises:
      ValueError: If `rows` is below 1 or the platform unknown.

    >>> import numpy as np
    >>> from pallas_kernels import BlockSparse
    >>> half = BlockSparse.from_dense(np.kron(np.eye(2), np.ones((2, 2), np.float32)), (2, 2))
    >>> prepare(half, 128, platform="cpu").implementation
    'xla'
    """
    if rows < 1:
        raise ValueError(f"prepare: rows is {rows}; at least one row is multiplied.")
    platform = platform_name(platform)
    if platform != "cpu":
        return _prepare_elsewhere(w, rows, platform)
    if isinstance(w, BlockSparse) and w.dtype == jnp.float32:
        return _prepare_blocks(w, rows, calibration or Calibration.default(), use_native)
    if isinstance(w, Channels):
        return Prepared(w, "xla", platform, "xla: what is left is a smaller dense matrix")
    if isinstance(w, Quantized) and rows <= 4 and w.bits == 8 and _native(use_native):
        why = refusal("native", "matmul", jax.ShapeDtypeStruct((rows, w.shape[0]), jnp.float32), w, platform)
        if why is None:
            return Prepared(w, "native", platform, "native: few rows, and the weights are read as bytes")
    reason = f"dense: XLA has no fast product on the CPU for {type(w).__name__}, so it is unfolded once"
    return Prepared(_outputs_first(w), "xla", platform, reason)


def _prepare_blocks(w: BlockSparse, rows: int, calibration: Calibration, use_native: bool | None) -> Prepared:
    forms = [form for form in FORMS if has_form(form, rows, w) and (form != "native" or _native(use_native))]
    predicted = {form: calibration.predict(form, w.block, rows, w.shape, w.density) for form in forms}
    dense = max(DENSE, key=predicted.__getitem__)
    best = max(predicted, key=predicted.__getitem__)
    if predicted[best] < MARGIN:
        best = dense
    tail = f"for blocks of {w.block[0]}x{w.block[1]}, {rows} rows, density {w.density:.2g}"
    if best in DENSE:
        fastest = max(set(forms) - set(DENSE), key=predicted.__getitem__)
        reason = f"dense: the fastest sparse form, {fastest}, is predicted {predicted[fastest]:.2g}x as fast {tail}"
    else:
        reason = f"{best}: predicted {predicted[best]:.2g}x as fast as dense {tail}"
    implementation, layout = FORMS[best]
    return Prepared(layout(w.dequantize()), implementation, "cpu", reason)


def _prepare_elsewhere(w: Format, rows: int, platform: str) -> Prepared:
    kernel = {"gpu": "mosaic_gpu", "tpu": "mosaic_tpu"}[platform]
    x = jax.ShapeDtypeStruct((rows, w.shape[0]), w.dtype)
    why = refusal(kernel, "matmul", x, w, platform)
    if why is None:
        return Prepared(w, kernel, platform, f"{kernel}: it has a kernel for these weights; not measured")
    return Prepared(Dense(w.todense()), "xla", platform, f"dense: {kernel} has no kernel here: {why}")


def _outputs_first(w: Format) -> Dense:
    return w if isinstance(w, Dense) else Dense(jnp.asarray(w.todense().T), transposed=True)


def _native(wanted: bool | None) -> bool:
    """Whether the C++ kernel is wanted; by default, if it can be built, which is done here for the first time."""
    return native.ready() if wanted is None else wanted
