"""LeNet-5 on MNIST at the published 85x: unstructured ADMM pruning of the whole network in one stage.

Per-layer counts of the published model are not known; these are ours.  The "published"
profile has the coarse schedule of the release: few refreshes, thousands of steps between them, 172 epochs in all.
"""

from configs.common import LENET5, coarse, select, stage
from experiments.schema import Config, Fit

COUNTS = (100, 1750, 2880, 330)
PUBLISHED = "85x at 99.2 % (ADMM-NN, arXiv 1812.11677)"


def get_config(profile: str = "full") -> Config:
    """Profiles: full, tiny and published."""
    if profile == "published":
        return coarse(COUNTS, PUBLISHED)
    config = Config(
        dataset="mnist",
        pretrain=Fit(epochs=10, shift=1),
        stages=(stage(LENET5, COUNTS, 8, 6, published=PUBLISHED),),
    )
    return select(config, profile)
