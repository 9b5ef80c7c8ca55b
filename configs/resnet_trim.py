"""CompactNet's question on a pretrained ResNet: do different platforms want different networks?

    --config=configs/resnet_trim.py            ResNet-20, 1.5x faster on each platform (and by MACs, for comparison)
    --config=configs/resnet_trim.py:resnet56   ResNet-56, widths chosen by MACs or by this machine's measured latency

Greedy trimming with a decaying step (arXiv 1905.11669): filters ranked by their l2 norm, candidates judged on
validation images with re-estimated batch normalization, short retraining at the end.
"""

from configs.resnet_shrink import get_config as shrink_config
from experiments.cuts import Cut, ShrinkConfig


def get_config(profile: str = "resnet20") -> ShrinkConfig:
    """Profiles: resnet20 and resnet56."""
    if profile not in ("resnet20", "resnet56"):
        raise ValueError(f"Unknown profile {profile!r}; choose resnet20 or resnet56.")
    config = shrink_config(profile)
    config.trim_rounds, config.trim_images = 6, 512
    if profile == "resnet20":
        costs = ("macs", "simd", "systolic", "fpga", "host")
        config.cuts = tuple(Cut(allocation="trim", cost=cost, removed=1 / 3) for cost in costs)
        return config
    config.cuts = tuple(
        Cut(score="taylor", allocation="per_cost", cost=cost, removed=removed)
        for removed in (0.3, 0.5, 0.65)
        for cost in ("macs", "host")
    )
    return config
