"""LeNet-5 on MNIST at the published 348x: three stages of unstructured ADMM pruning of the whole network.

The first two stages are the 71x and 167x models on the way.  Per-layer counts of the published 167x and 348x models are
not known; these are ours.
"""

from configs.common import LENET5, as_published, stage
from experiments.schema import Config


def get_config(profile: str = "full") -> Config:
    """Profiles: full, tiny, and published (the coarse schedule of the release)."""
    return as_published(
        profile,
        stage(LENET5, (100, 2000, 3600, 350), 6, 5, published="71.2x at 99.2 % (arXiv 1804.03294)"),
        stage(LENET5, (80, 1400, 900, 200), 6, 6, published="167x at 99.0 % (arXiv 1811.01907)"),
        stage(LENET5, (60, 500, 520, 157), 6, 10, published="348x (arXiv 1907.02124)"),
    )
