"""Removing whole units from a network, so that it becomes a smaller dense one, and rescaling them."""

from compressjax.channels._allocate import allocate
from compressjax.channels._chain import cut, importance, mask_units, remove_dead, take
from compressjax.channels._dead import dead
from compressjax.channels._equalize import equalize, rescale
from compressjax.channels._fold_norm import fold_norm, fold_norms
from compressjax.channels._groups import Group, Member, Shrunk
from compressjax.channels._masked_replay import Shared, Slots, masked_replay, population_replay
from compressjax.channels._net import Net
from compressjax.channels._operations import Operation
from compressjax.channels._terms import Term
from compressjax.channels._trace import trace

__all__ = [
    "Group",
    "Member",
    "Net",
    "Operation",
    "Shared",
    "Shrunk",
    "Slots",
    "Term",
    "allocate",
    "cut",
    "dead",
    "equalize",
    "fold_norm",
    "fold_norms",
    "importance",
    "mask_units",
    "masked_replay",
    "population_replay",
    "remove_dead",
    "rescale",
    "take",
    "trace",
]
