"""Adapters at the edge: NNX states, weights in PyTorch's layout, and trained networks."""

from compressjax.interop._nnx import from_nnx, to_nnx
from compressjax.interop._pretrained import from_torch_resnet, pretrained
from compressjax.interop._torch import from_torch

__all__ = ["from_nnx", "from_torch", "from_torch_resnet", "pretrained", "to_nnx"]
