"""Adapters at the edge: NNX, packed weights and low precision in Flax models, PyTorch's layout, trained networks."""

from compressjax.interop._low_precision import IntegerLayer, inputs_of, integer_layers, layer_inputs
from compressjax.interop._nnx import from_nnx, to_nnx
from compressjax.interop._packed import PackedLayer, packed_apply, packed_layers, packed_nnx
from compressjax.interop._pretrained import from_torch_resnet, pretrained
from compressjax.interop._torch import from_torch

__all__ = [
    "IntegerLayer",
    "PackedLayer",
    "from_nnx",
    "from_torch",
    "from_torch_resnet",
    "inputs_of",
    "integer_layers",
    "layer_inputs",
    "packed_apply",
    "packed_layers",
    "packed_nnx",
    "pretrained",
    "to_nnx",
]
