"""LeNet-5 on MNIST at the published 71x: unstructured ADMM pruning of the whole network, with the release's counts."""

from configs.common import LENET5, as_published, stage
from experiments.schema import Config


def get_config(profile: str = "full") -> Config:
    """Profiles: full, tiny, and published (the coarse schedule of the release)."""
    return as_published(
        profile,
        stage(LENET5, (100, 2000, 3600, 350), 8, 6, published="71.2x at 99.2 % (arXiv 1804.03294)"),
    )
