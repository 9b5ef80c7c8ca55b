"""VGG-16 on CIFAR-10: half of the channels, and widths chosen by MACs or by this machine's measured latency.

    --config=configs/vgg_shrink.py             trains the dense network shortly, then halves every layer
    --config=configs/vgg_shrink.py:platforms   cuts of that network by MACs and by latency, at several amounts
    --config=configs/vgg_shrink.py:single      the same for one image at a time, where weights must come from memory

`platforms` and `single` start from the dense network of the first run: --config.load names its ``dense.cjx`` if that
run had another folder.  Six tenths of an epoch make no good VGG; they make one whose widths matter.
"""

from functools import partial

from configs.common import tiny_shrink
from experiments.cuts import Cut, ShrinkConfig
from experiments.schema import Fit

WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
DENSE = "runs/vgg16_shrink-seed0/dense.cjx"


def get_config(profile: str = "full") -> ShrinkConfig:
    """Profiles: full (training, half of the channels), platforms and single (cuts by MACs and by latency), and tiny."""
    if profile == "tiny":
        return tiny_shrink(Cut(score="l1", widths={"fc1/kernel": 40, "fc2/kernel": 20}))
    config = ShrinkConfig(
        dataset="cifar10",
        model="vgg16",
        batch_size=64,
        validation=2000,
        pretrain=Fit(epochs=0.6, learning_rate=1e-3, shift=4, flip=True),
        retrain=Fit(epochs=0.1, learning_rate=5e-4, shift=4, flip=True),
        reestimate_images=2048,
        checkpoint_every=1,
    )
    if profile == "full":
        config.cuts = (Cut(score="l1", widths={f"conv{i}/kernel": width // 2 for i, width in enumerate(WIDTHS, 1)}),)
        return config
    if profile not in ("platforms", "single"):
        raise ValueError(f"Unknown profile {profile!r}; choose full, platforms, single or tiny.")
    if profile == "single":
        config.latency_batch = 1
    config.load, config.score_images = DENSE, 512
    by = partial(Cut, score="taylor", allocation="per_cost")
    config.cuts = (
        by(cost="macs", removed=0.5),
        by(cost="macs", removed=0.75),
        by(cost="host", removed=0.5, multiple=8),
        by(cost="host", removed=0.65, multiple=8),
    )
    return config
