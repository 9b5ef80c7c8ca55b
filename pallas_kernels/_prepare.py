"""Laying packed weights out for the machine that will multiply with them."""

from typing import Any

from pallas_kernels._pytree import pytree, static


@pytree
class Prepared:
    """Packed weights with the implementation that was chosen for them.

    Attributes:
      weights: A format; `Dense` where the sparse form would have been slower.
      implementation: One of `IMPLEMENTATIONS`.
      platform: "cpu", "gpu" or "tpu".
      reason: One sentence: why this implementation.
    """

    weights: Any
    implementation: str = static()
    platform: str = static()
    reason: str = static()

    @property
    def shape(self) -> tuple[int, int]:
        return self.weights.shape

    @property
    def dtype(self) -> Any:
        return self.weights.dtype

    @property
    def nbytes(self) -> int:
        return self.weights.nbytes

    def todense(self) -> Any:
        """The whole matrix, with zeros."""
        return self.weights.todense()
