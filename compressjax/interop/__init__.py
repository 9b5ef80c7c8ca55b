"""Adapters at the edge: NNX states, packed weights in Flax models, weights in PyTorch's layout, trained networks."""

from compressjax.interop._nnx import from_nnx, to_nnx
from compressjax.interop._packed import PackedLayer, packed_apply, packed_layers, packed_nnx
from compressjax.interop._pretrained import from_torch_resnet, pretrained
from compressjax.interop._torch import from_torch

__all__ = [
    "PackedLayer",
    "from_nnx",
    "from_torch",
    "from_torch_resnet",
    "packed_apply",
    "packed_layers",
    "packed_nnx",
    "pretrained",
    "to_nnx",
]
