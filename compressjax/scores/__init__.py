"""Saliency scores: what matters; larger means more worth keeping.

`magnitude`, `wanda`, `snip`, `grasp` and `synflow` score single weights and return a leaf dictionary.  The others score
the members of coupled groups (channels, heads, layers) and return a dictionary from group name to vector; they add over
all places of the groups that they are given, so select first: ``l2(params, producers(groups, params))`` sees only the
kernels that make a channel.  Class-discriminative scores see labelled feature maps instead of weights: one vector per
feature map, and by `discriminative` and `feature_scores` one per group.

`class_clusters`, `coarse_labels` and `label_levels` make the labels for scores that look at classes.
"""

from compressjax.scores._absolute_snr import absolute_snr
from compressjax.scores._class_sums import ClassSums, class_add, class_start
from compressjax.scores._discriminant_information import discriminant_information, information_loss
from compressjax.scores._discriminative import class_statistics, discriminative, feature_scores
from compressjax.scores._fisher_ratio import fisher_ratio
from compressjax.scores._geometric_median import geometric_median, member_rows
from compressjax.scores._grasp import grasp
from compressjax.scores._hierarchy import (
    class_clusters,
    coarse_labels,
    confusion_distance,
    confusion_matrix,
    label_levels,
)
from compressjax.scores._importance import importance
from compressjax.scores._magnitude import magnitude
from compressjax.scores._mmd import mmd
from compressjax.scores._norms import l1, l2
from compressjax.scores._one_vs_rest import OneVsRest, one_vs_rest
from compressjax.scores._random import random
from compressjax.scores._scale import norm_scale
from compressjax.scores._snip import snip
from compressjax.scores._symmetric_divergence import symmetric_divergence
from compressjax.scores._synflow import synflow
from compressjax.scores._taylor import TaylorSums, taylor, taylor_add, taylor_mean, taylor_start
from compressjax.scores._two_sample_t import two_sample_t
from compressjax.scores._wanda import wanda

__all__ = [
    "ClassSums",
    "OneVsRest",
    "TaylorSums",
    "absolute_snr",
    "class_add",
    "class_clusters",
    "class_start",
    "class_statistics",
    "coarse_labels",
    "confusion_distance",
    "confusion_matrix",
    "discriminant_information",
    "discriminative",
    "feature_scores",
    "fisher_ratio",
    "geometric_median",
    "grasp",
    "importance",
    "information_loss",
    "l1",
    "l2",
    "label_levels",
    "magnitude",
    "member_rows",
    "mmd",
    "norm_scale",
    "one_vs_rest",
    "random",
    "snip",
    "symmetric_divergence",
    "synflow",
    "taylor",
    "taylor_add",
    "taylor_mean",
    "taylor_start",
    "two_sample_t",
    "wanda",
]
