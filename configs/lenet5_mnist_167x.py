"""LeNet-5 on MNIST at the published 167x: two stages of unstructured ADMM pruning, then quantization.

Per-layer counts of the published 167x model are not known; these are ours.
"""

from configs.common import LENET5, as_published, quantize, stage
from experiments.schema import Config


def get_config(profile: str = "full") -> Config:
    """Profiles: full, tiny, and published (the coarse schedule of the release)."""
    return as_published(
        profile,
        stage(LENET5, (100, 2000, 3600, 350), 6, 5, published="71.2x at 99.2 % (arXiv 1804.03294)"),
        stage(LENET5, (80, 1400, 900, 200), 8, 8, published="167x at 99.0 % (arXiv 1811.01907)"),
        quantized=[
            quantize(1, {"conv*/kernel": 3, "fc*/kernel": 2}, published="1,910x of weight data (arXiv 1811.01907)"),
        ],
    )
