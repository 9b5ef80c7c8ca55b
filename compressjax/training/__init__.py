"""Training under constraints: optax transforms that wrap any optimizer.

Each has the contract of `optax.GradientTransformationExtraArgs`: `update` needs `params`, extra arguments reach the
inner optimizer, and the state is a NamedTuple of arrays, so that it jits, vmaps and checkpoints.  Progressive
compression is plain composition: run one, project, run the next with the next rules.

Distillation is a term of the loss instead: `output_loss`, `hint_loss` and `discriminant_loss` are plain functions.
"""

from compressjax.training._acdc import AcdcState, acdc
from compressjax.training._admm import AdmmState, admm
from compressjax.training._admm_q import Approach, RandomProjection, SoftProjection
from compressjax.training._discriminant import (
    Discriminants,
    ScatterSums,
    discriminants,
    scatter_add,
    scatter_discriminants,
    scatter_start,
)
from compressjax.training._distill import discriminant_loss, hint_loss, output_loss
from compressjax.training._dynamic_sparse import DynamicSparseState, dynamic_sparse
from compressjax.training._gradual_freeze import GradualFreezeState, gradual_freeze
from compressjax.training._gradual_magnitude import GradualMagnitudeState, gradual_magnitude
from compressjax.training._group_lasso import GroupLassoState, Reweight, group_lasso
from compressjax.training._latent import LatentState, latent
from compressjax.training._learned_levels import WithLevels, learned_levels, quantized, with_levels
from compressjax.training._masked import MaskedState, masked
from compressjax.training._powerprop import power, powerprop, root
from compressjax.training._rate_penalty import RatePenaltyState, rate_penalty
from compressjax.training._rewind import rewind
from compressjax.training._rigl import rigl
from compressjax.training._schedules import Coarse, coarse, geometric, half_cosine, staged
from compressjax.training._set import set_
from compressjax.training._sharpness import sharpness_aware
from compressjax.training._slimming import slimming
from compressjax.training._slots import reset_slots
from compressjax.training._soft_threshold import SoftThreshold, soft_threshold, thresholded
from compressjax.training._ssgd import LogSumL1, LogSumL2, Measure, PNorm, ssgd
from compressjax.training._straight_through import straight_through
from compressjax.training._ternary import (
    TernaryState,
    Traffic,
    ternarize,
    ternary_gradients,
    ternary_mean,
    traffic,
)
from compressjax.training._tied import TiedState, tied

__all__ = [
    "AcdcState",
    "AdmmState",
    "Approach",
    "Coarse",
    "Discriminants",
    "DynamicSparseState",
    "GradualFreezeState",
    "GradualMagnitudeState",
    "GroupLassoState",
    "LatentState",
    "LogSumL1",
    "LogSumL2",
    "MaskedState",
    "Measure",
    "PNorm",
    "RandomProjection",
    "RatePenaltyState",
    "Reweight",
    "ScatterSums",
    "SoftProjection",
    "SoftThreshold",
    "TernaryState",
    "TiedState",
    "Traffic",
    "WithLevels",
    "acdc",
    "admm",
    "coarse",
    "discriminant_loss",
    "discriminants",
    "dynamic_sparse",
    "geometric",
    "gradual_freeze",
    "gradual_magnitude",
    "group_lasso",
    "half_cosine",
    "hint_loss",
    "latent",
    "learned_levels",
    "masked",
    "output_loss",
    "power",
    "powerprop",
    "quantized",
    "rate_penalty",
    "reset_slots",
    "rewind",
    "rigl",
    "root",
    "scatter_add",
    "scatter_discriminants",
    "scatter_start",
    "set_",
    "sharpness_aware",
    "slimming",
    "soft_threshold",
    "ssgd",
    "staged",
    "straight_through",
    "ternarize",
    "ternary_gradients",
    "ternary_mean",
    "thresholded",
    "tied",
    "traffic",
    "with_levels",
]
