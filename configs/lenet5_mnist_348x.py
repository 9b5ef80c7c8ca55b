"""LeNet-5 on MNIST at the published 348x: three stages of unstructured ADMM pruning of the whole network.

The first two stages are the 71x and 167x models of `lenet5_mnist_71x` and `lenet5_mnist_167x` on the way.  Per-layer
counts of the published 167x and 348x models are not known; these are ours.
"""

from configs.common import LENET5, coarse, select, stage
from experiments.schema import Config, Fit

COUNTS = (60, 500, 520, 157)
PUBLISHED = "348x (arXiv 1907.02124)"


def get_config(profile: str = "full") -> Config:
    """Profiles: full, tiny and published."""
    if profile == "published":
        return coarse(COUNTS, PUBLISHED)
    config = Config(
        dataset="mnist",
        pretrain=Fit(epochs=10, shift=1),
        stages=(
            stage(LENET5, (100, 2000, 3600, 350), 6, 5, published="71.2x at 99.2 % (arXiv 1804.03294)"),
            stage(LENET5, (80, 1400, 900, 200), 6, 6, published="167x at 99.0 % (arXiv 1811.01907)"),
            stage(LENET5, COUNTS, 6, 10, published=PUBLISHED),
        ),
    )
    return select(config, profile)
