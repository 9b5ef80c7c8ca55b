"""Constraints: closed sets of tensors with an exact Euclidean projection, and their use on parameter trees."""

from compressjax.projections._base import Constraint
from compressjax.projections._cardinality import Cardinality
from compressjax.projections._tree import Joint, project, supports

__all__ = ["Cardinality", "Constraint", "Joint", "project", "supports"]
