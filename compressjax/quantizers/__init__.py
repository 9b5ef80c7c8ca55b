"""Quantizers: level sets as constraints, and gradient estimators on them."""

from compressjax.projections._base import Quantizer
from compressjax.quantizers._codebook import Codebook
from compressjax.quantizers._estimators import fake_quantize
from compressjax.quantizers._levels import Levels

__all__ = ["Codebook", "Levels", "Quantizer", "fake_quantize"]
