"""LeNet-5 on MNIST at the published 71x: unstructured ADMM pruning of the whole network in one stage.

The counts per layer are those of the release; biases are not pruned and not counted.  The "published"
profile has the coarse schedule of the release: few refreshes, thousands of steps between them, 172 epochs in all.
"""

from configs.common import LENET5, coarse, select, stage
from experiments.schema import Config, Fit

COUNTS = (100, 2000, 3600, 350)
PUBLISHED = "71.2x at 99.2 % (arXiv 1804.03294)"


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
