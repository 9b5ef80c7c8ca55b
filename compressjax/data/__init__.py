"""Image data sets as NumPy arrays, with seeded splits and a resumable sampler; published latency tables."""

from compressjax.data._latency import (
    Architectures,
    Block,
    BlockChoices,
    architecture_latencies,
    fbnet_blocks,
    haq_cycles,
    parse_block,
    phone_blocks,
)
from compressjax.data._load import Dataset, Split, load, names
from compressjax.data._sampler import Sampler

__all__ = [
    "Architectures",
    "Block",
    "BlockChoices",
    "Dataset",
    "Sampler",
    "Split",
    "architecture_latencies",
    "fbnet_blocks",
    "haq_cycles",
    "load",
    "names",
    "parse_block",
    "phone_blocks",
]
