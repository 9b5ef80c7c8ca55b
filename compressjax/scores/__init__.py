"""Saliency scores: what matters; larger means more worth keeping.

`magnitude`, `wanda`, `snip`, `grasp` and `synflow` score single weights and return a leaf dictionary.  The others score
the members of coupled groups (channels, heads, layers) and return a dictionary from group name to vector; they add over
all places of the groups that they are given, so select first: ``l2(params, producers(groups, params))`` sees only the
kernels that make a channel.
"""

from compressjax.scores._geometric_median import geometric_median
from compressjax.scores._grasp import grasp
from compressjax.scores._importance import importance
from compressjax.scores._magnitude import magnitude
from compressjax.scores._norms import l1, l2
from compressjax.scores._random import random
from compressjax.scores._scale import norm_scale
from compressjax.scores._snip import snip
from compressjax.scores._synflow import synflow
from compressjax.scores._taylor import TaylorSums, taylor, taylor_add, taylor_mean, taylor_start
from compressjax.scores._wanda import wanda

__all__ = [
    "TaylorSums",
    "geometric_median",
    "grasp",
    "importance",
    "l1",
    "l2",
    "magnitude",
    "norm_scale",
    "random",
    "snip",
    "synflow",
    "taylor",
    "taylor_add",
    "taylor_mean",
    "taylor_start",
    "wanda",
]
