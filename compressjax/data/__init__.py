"""Image data sets as NumPy arrays, with seeded splits and a resumable sampler."""

from compressjax.data._load import Dataset, Split, load, names
from compressjax.data._sampler import Sampler

__all__ = ["Dataset", "Sampler", "Split", "load", "names"]
