"""What an implementation is: a module with four functions, here as protocols.

Operands are matrices: `matmul` reshapes what has more axes.  Implementations accumulate in float32 (or wider) and round
once, to `out_dtype`.  A format's `values` may be `Quantized`; only `matmul` and `transposed` see those.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pallas_kernels.block_sparse import BlockSparse
from pallas_kernels.channels import Channels
from pallas_kernels.dense import Dense
from pallas_kernels.nm import NM
from pallas_kernels.quantized import Quantized
from pallas_kernels.sliced import Sliced

Format = BlockSparse | NM | Channels | Quantized | Dense | Sliced
Activation = Callable[[Array], Array]
OPERATIONS = ("matmul", "transposed", "outer")


@dataclass(frozen=True)
class Epilogue:
    """What follows a product before it is written: ``activation(product + bias)``, rounded to `out_dtype`.

    Attributes:
      activation: Elementwise function, or None.
      out_dtype: Of the result.
    """

    activation: Activation | None
    out_dtype: Any

    def __call__(self, product: Array, bias: Array | None) -> Array:
        """Applied to an accumulator, inside or outside of a kernel; the bias broadcasts against it."""
        if bias is not None:
            bias = jnp.expand_dims(bias, range(product.ndim - bias.ndim))  # ranks are never promoted silently
            product = product + bias.astype(product.dtype)
        if self.activation is not None:
            product = self.activation(product)
        return product.astype(self.out_dtype)


@runtime_checkable
class Implementation(Protocol):
    """One way to compute the products.  Modules implement it."""

    PLATFORMS: tuple[str, ...]  # of JAX: "cpu", "gpu", "tpu"

    def refuse(self, operation: str, x: jax.ShapeDtypeStruct, w: Format, interpret: bool = False) -> str | None:
        """Why this implementation cannot do `operation` for these operands, as a clause; None if it can.

        `x` is [M, K] for "matmul" and "outer", and the cotangent [M, N] for "transposed".  Interpreted kernels do not
        care which tiles suit the hardware.
        """
        ...

    def matmul(
        self, x: Float[Array, "M K"], w: Format, bias: Float[Array, "N"] | None, epilogue: Epilogue, *, interpret: bool
    ) -> Float[Array, "M N"]:
        """``epilogue(x @ w, bias)``."""
        ...

    def transposed(self, g: Float[Array, "M N"], w: Format, out_dtype: Any, *, interpret: bool) -> Float[Array, "M K"]:
        """``g @ w.T``: the gradient of the input."""
        ...

    def outer(
        self, x: Float[Array, "M K"], g: Float[Array, "M N"], w: Format, *, interpret: bool
    ) -> Float[Array, "..."]:
        """``x.T @ g`` on the pattern of `w`, in the shape and dtype of its values: the gradient of the weights."""
        ...


def wide(dtype: Any) -> Any:
    """The dtype products are accumulated in."""
    return jnp.promote_types(dtype, jnp.float32)


def on_pattern(dense: Array, w: Format) -> Array:
    """The entries of a dense gradient [K, N] where `w` has weights, in the layout of its values."""
    if isinstance(w, Quantized | Sliced):
        return dense
    if isinstance(w, Dense):
        return dense.T if w.transposed else dense
    return w.gather(dense)
