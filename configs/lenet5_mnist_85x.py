"""LeNet-5 on MNIST at the published 85x: unstructured ADMM pruning of the whole network.

Per-layer counts of the published model are not known; these are ours.
"""

from configs.common import LENET5, as_published, stage
from experiments.schema import Config


def get_config(profile: str = "full") -> Config:
    """Profiles: full, tiny, and published (the coarse schedule of the release)."""
    return as_published(
        profile,
        stage(LENET5, (100, 1750, 2880, 330), 8, 6, published="85x at 99.2 % (ADMM-NN, arXiv 1812.11677)"),
    )
