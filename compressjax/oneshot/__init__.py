"""One-shot compression of single layers on calibration activations, and its stream through a network.

A method is a function ``method(w, statistics, constraint)`` of a kernel (inputs, outputs), the streamed statistics of
what enters the layer, and one of the library's constraints.  `compress` takes a network through it layer by layer.
"""

from compressjax.oneshot._alps import alps
from compressjax.oneshot._magnitude import magnitude
from compressjax.oneshot._sparsegpt import sparsegpt
from compressjax.oneshot._statistics import Statistics, add, output_error, shortage, start
from compressjax.oneshot._stream import Layer, compress
from compressjax.oneshot._wanda import wanda

__all__ = [
    "Layer",
    "Statistics",
    "add",
    "alps",
    "compress",
    "magnitude",
    "output_error",
    "shortage",
    "sparsegpt",
    "start",
    "wanda",
]
