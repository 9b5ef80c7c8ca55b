"""CompactNet's question on a pretrained ResNet: do different platforms want different networks?

    --config=configs/resnet_trim.py            ResNet-20, 1.5x faster on each of three platforms
    --config=configs/resnet_trim.py:resnet56   ResNet-56, widths chosen by MACs or by this machine's measured latency

ResNet-20: greedy trimming with a decaying step (arXiv 1905.11669), filters ranked by their l2 norm, candidates judged
on validation images with re-estimated batch normalization; 35 steps of retraining.  ResNet-56: one ranking by Taylor
score over the cost that a channel's removal saves: by MACs, and by latency with widths in multiples of 8.  Retraining
is as long as for the cuts of ``resnet_shrink.py:resnet56``.
"""

from functools import partial

from configs.common import tiny_shrink
from configs.resnet_shrink import get_config as shrink_config
from experiments.cuts import Cut, ShrinkConfig


def get_config(profile: str = "full") -> ShrinkConfig:
    """Profiles: full (ResNet-20), resnet56, and tiny."""
    if profile == "tiny":
        return tiny_shrink(*(Cut(allocation="trim", cost=cost, removed=1 / 3) for cost in ("macs", "simd")))
    config = shrink_config(profile)
    config.trim_rounds, config.trim_images, config.validation = 6, 256, 2000
    if profile == "full":
        config.retrain.epochs = 0.1
        by = partial(Cut, allocation="trim", removed=1 / 3)
        config.cuts = (by(cost="systolic"), by(cost="fpga"), by(cost="host", multiple=8))
        return config
    config.score_images = 512
    by = partial(Cut, score="taylor", allocation="per_cost")
    config.cuts = (
        by(cost="macs", removed=0.5),
        by(cost="host", removed=0.2, multiple=8),
        by(cost="host", removed=0.3, multiple=8),
        by(cost="host", removed=0.4, multiple=8),
    )
    return config
