"""Quantizers: level sets as constraints, and gradient estimators on them."""

from compressjax.projections._base import Quantizer
from compressjax.quantizers._binary import Binary, Ternary
from compressjax.quantizers._codebook import Codebook
from compressjax.quantizers._estimators import fake_quantize
from compressjax.quantizers._levels import Levels
from compressjax.quantizers._power_of_two import PowerOfTwo

__all__ = ["Binary", "Codebook", "Levels", "PowerOfTwo", "Quantizer", "Ternary", "fake_quantize"]
