"""Dense matrices: what is left to do where a sparse form would be slower."""

from typing import Any

from jaxtyping import Array, Float

from pallas_kernels._pytree import pytree, static


@pytree
class Dense:
    """A matrix [K, N] in one of two layouts.

    Attributes:
      values: [K, N], or [N, K] if `transposed`: which is faster depends on sizes, batch and backend.
      transposed: Whether the outputs come first.

    >>> import numpy as np
    >>> Dense(np.ones((3, 2)), transposed=True).shape
    (2, 3)
    """

    values: Any
    transposed: bool = static(default=False)

    @property
    def shape(self) -> tuple[int, int]:
        return self.values.shape[::-1] if self.transposed else self.values.shape

    @property
    def dtype(self) -> Any:
        return self.values.dtype

    @property
    def nbytes(self) -> int:
        return self.values.nbytes

    def with_values(self, values: Any) -> "Dense":
        """The same layout with other values."""
        return Dense(values, self.transposed)

    def dequantize(self) -> "Dense":
        """Itself: its values are floats."""
        return self

    def todense(self) -> Float[Array, "K N"]:
        """The matrix, inputs first."""
        return self.values.T if self.transposed else self.values
