"""Adapters at the edge: NNX states, and weights in PyTorch's layout."""

from compressjax.interop._nnx import from_nnx, to_nnx
from compressjax.interop._torch import from_torch

__all__ = ["from_nnx", "from_torch", "to_nnx"]
