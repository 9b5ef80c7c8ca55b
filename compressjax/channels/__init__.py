"""Removing whole units from a network, so that it becomes a smaller dense one."""

from compressjax.channels._chain import cut, importance, mask_units, remove_dead, take

__all__ = ["cut", "importance", "mask_units", "remove_dead", "take"]
