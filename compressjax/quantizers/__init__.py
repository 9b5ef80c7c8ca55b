"""Quantizers: level sets as constraints, gradient estimators on them, integer codes and arithmetic on those."""

from compressjax.projections._base import Quantizer
from compressjax.quantizers._binary import Binary, Ternary
from compressjax.quantizers._calibrate import Seen, calibrate, least_error, min_max, observe, percentile
from compressjax.quantizers._codebook import Codebook
from compressjax.quantizers._coded import Coded
from compressjax.quantizers._dorefa import (
    DoReFaActivations,
    DoReFaWeights,
    dorefa_activations,
    dorefa_gradients,
    dorefa_weights,
)
from compressjax.quantizers._estimators import Learnable, fake_quantize
from compressjax.quantizers._integers import (
    Codes,
    Integers,
    convolution,
    dense,
    largest_sum,
    requantize,
    round_bias,
    to_integers,
)
from compressjax.quantizers._learned_clip import LearnedClip, pact
from compressjax.quantizers._learned_codebook import LearnedCodebook, lookup
from compressjax.quantizers._learned_step import LearnedStep, lsq
from compressjax.quantizers._levels import Levels
from compressjax.quantizers._per_output import PerOutput
from compressjax.quantizers._power_of_two import PowerOfTwo
from compressjax.quantizers._rate import Rates, code_length, fit_scale, rate_distortion, rates, soft_code_length

__all__ = [
    "Binary",
    "Codebook",
    "Coded",
    "Codes",
    "DoReFaActivations",
    "DoReFaWeights",
    "Integers",
    "Learnable",
    "LearnedClip",
    "LearnedCodebook",
    "LearnedStep",
    "Levels",
    "PerOutput",
    "PowerOfTwo",
    "Quantizer",
    "Rates",
    "Seen",
    "Ternary",
    "calibrate",
    "code_length",
    "convolution",
    "dense",
    "dorefa_activations",
    "dorefa_gradients",
    "dorefa_weights",
    "fake_quantize",
    "fit_scale",
    "largest_sum",
    "least_error",
    "lookup",
    "lsq",
    "min_max",
    "observe",
    "pact",
    "percentile",
    "rate_distortion",
    "rates",
    "requantize",
    "round_bias",
    "soft_code_length",
    "to_integers",
]
