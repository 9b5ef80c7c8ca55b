"""Training under constraints: optax transforms that wrap any optimizer.

Each has the contract of `optax.GradientTransformationExtraArgs`: `update` needs `params`, extra arguments reach the
inner optimizer, and the state is a NamedTuple of arrays, so that it jits, vmaps and checkpoints.  Progressive
compression is plain composition: run one, project, run the next with the next rules.
"""

from compressjax.training._admm import AdmmState, admm
from compressjax.training._admm_q import Approach, RandomProjection, SoftProjection
from compressjax.training._gradual_freeze import GradualFreezeState, gradual_freeze
from compressjax.training._gradual_magnitude import GradualMagnitudeState, gradual_magnitude
from compressjax.training._group_lasso import GroupLassoState, Reweight, group_lasso
from compressjax.training._learned_levels import WithLevels, learned_levels, quantized, with_levels
from compressjax.training._masked import MaskedState, masked
from compressjax.training._powerprop import power, powerprop, root
from compressjax.training._schedules import Coarse, coarse, geometric, half_cosine, staged
from compressjax.training._sharpness import sharpness_aware
from compressjax.training._slimming import slimming
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
    "AdmmState",
    "Approach",
    "Coarse",
    "GradualFreezeState",
    "GradualMagnitudeState",
    "GroupLassoState",
    "LogSumL1",
    "LogSumL2",
    "MaskedState",
    "Measure",
    "PNorm",
    "RandomProjection",
    "Reweight",
    "SoftProjection",
    "TernaryState",
    "TiedState",
    "Traffic",
    "WithLevels",
    "admm",
    "coarse",
    "geometric",
    "gradual_freeze",
    "gradual_magnitude",
    "group_lasso",
    "half_cosine",
    "learned_levels",
    "masked",
    "power",
    "powerprop",
    "quantized",
    "root",
    "sharpness_aware",
    "slimming",
    "ssgd",
    "staged",
    "straight_through",
    "ternarize",
    "ternary_gradients",
    "ternary_mean",
    "tied",
    "traffic",
    "with_levels",
]
