"""Constraints: closed sets of tensors with an exact Euclidean projection, and their use on parameter trees."""

from compressjax.projections._base import Constraint
from compressjax.projections._blocks import Block, BlockColumns, BlockPunched, BlockRows
from compressjax.projections._both import Both
from compressjax.projections._cardinality import Cardinality
from compressjax.projections._coupled import Members, coupled
from compressjax.projections._groups import Channels, Columns, Filters, Groups
from compressjax.projections._low_rank import LowRank
from compressjax.projections._members import (
    GroupLike,
    MemberLike,
    matching,
    output_axes,
    producers,
    readers,
    under,
    whole,
)
from compressjax.projections._nm import NM
from compressjax.projections._pattern import Pattern
from compressjax.projections._submatrix import Submatrix
from compressjax.projections._tree import Joint, project, supports

__all__ = [
    "NM",
    "Block",
    "BlockColumns",
    "BlockPunched",
    "BlockRows",
    "Both",
    "Cardinality",
    "Channels",
    "Columns",
    "Constraint",
    "Filters",
    "GroupLike",
    "Groups",
    "Joint",
    "LowRank",
    "MemberLike",
    "Members",
    "Pattern",
    "Submatrix",
    "coupled",
    "matching",
    "output_axes",
    "producers",
    "project",
    "readers",
    "supports",
    "under",
    "whole",
]
