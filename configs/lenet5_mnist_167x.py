"""LeNet-5 on MNIST at the published 167x: two stages of unstructured ADMM pruning, then quantization.

Per-layer counts of the published model are not known; these are ours.  The "published" profile has the coarse schedule
of the release.
"""

from configs.common import LENET5, coarse, quantize, select, stage
from experiments.schema import Config, Fit

COUNTS = (80, 1400, 900, 200)
PUBLISHED = "167x at 99.0 % (arXiv 1811.01907)"


def get_config(profile: str = "full") -> Config:
    """Profiles: full, tiny and published."""
    if profile == "published":
        return coarse(COUNTS, PUBLISHED)
    config = Config(
        dataset="mnist",
        pretrain=Fit(epochs=10, shift=1),
        stages=(
            stage(LENET5, (100, 2000, 3600, 350), 6, 5, published="71.2x at 99.2 % (arXiv 1804.03294)"),
            stage(LENET5, COUNTS, 8, 8, published=PUBLISHED),
        ),
        quantize=(
            quantize(1, {"conv*/kernel": 3, "fc*/kernel": 2}, published="1,910x of weight data (arXiv 1811.01907)"),
        ),
    )
    return select(config, profile)
