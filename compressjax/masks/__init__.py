"""Masks: scores and a budget become boolean arrays; budgets over layers; ramps over time."""

from compressjax.masks._allocate import allocate, erk, global_, uniform
from compressjax.masks._apply import apply, from_scores, top_k_mask
from compressjax.masks._iterative import iterative
from compressjax.masks._ramp import cubic, linear
from compressjax.masks._random import random

__all__ = [
    "allocate",
    "apply",
    "cubic",
    "erk",
    "from_scores",
    "global_",
    "iterative",
    "linear",
    "random",
    "top_k_mask",
    "uniform",
]
