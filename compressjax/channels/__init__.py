"""Removing whole units from a network, so that it becomes a smaller dense one, and rescaling them."""

from compressjax.channels._chain import cut, importance, mask_units, remove_dead, take
from compressjax.channels._equalize import equalize, rescale

__all__ = ["cut", "equalize", "importance", "mask_units", "remove_dead", "rescale", "take"]
