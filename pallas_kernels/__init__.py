"""Sparse and low-bit matrix products: packed formats, Pallas kernels, their references, and the choice by platform.

A *format* says which weights of a matrix [K, N] exist: `BlockSparse`, `NM`, `Channels`, `Quantized` and `Dense`, all
frozen pytrees.  An *implementation* says how to multiply: "mosaic_tpu", "mosaic_gpu", "native", "xla", "reference".
`matmul` multiplies with any of them and has gradients; `prepare` chooses by measurement.

This package knows arrays, not models: `compressjax.runtime` is its one client in the library.
"""

from pallas_kernels._calibration import Calibration, Measurement, calibrate
from pallas_kernels._choose import IMPLEMENTATIONS, refusal
from pallas_kernels._conv import conv, patches
from pallas_kernels._matmul import matmul, matmul_transposed, outer
from pallas_kernels._population import Population, population_matmul, stack
from pallas_kernels._prepare import Prepared, prepare
from pallas_kernels.block_sparse import BlockSparse
from pallas_kernels.channels import Channels
from pallas_kernels.dense import Dense
from pallas_kernels.nm import NM
from pallas_kernels.quantized import Quantized
from pallas_kernels.sliced import Sliced

__all__ = [
    "IMPLEMENTATIONS",
    "NM",
    "BlockSparse",
    "Calibration",
    "Channels",
    "Dense",
    "Measurement",
    "Population",
    "Prepared",
    "Quantized",
    "Sliced",
    "calibrate",
    "conv",
    "matmul",
    "matmul_transposed",
    "outer",
    "patches",
    "population_matmul",
    "prepare",
    "refusal",
    "stack",
]
