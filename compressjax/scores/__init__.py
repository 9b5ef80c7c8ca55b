"""Saliency scores: which weights matter.  A score is a leaf dictionary; larger means more worth keeping."""

from compressjax.scores._magnitude import magnitude

__all__ = ["magnitude"]
