"""Channels out of pretrained CIFAR-10 ResNets: which score should choose them?

    --config=configs/resnet_shrink.py            ResNet-20: 30, 50, 70 % of MACs, the same share of every group
    --config=configs/resnet_shrink.py:resnet56   ResNet-56: 33, 50, 67 %, the same widths for every score

The weights come with the data and were trained on all 50,000 training images, so validation images are no unseen ones
here; they only order the candidates of greedy trimming.  Retraining is short: these are accuracies after a fraction of
the usual 100 to 200 epochs.
"""

from configs.common import tiny_shrink
from experiments.cuts import Cut, ShrinkConfig
from experiments.schema import Fit

SCORES = ("l1", "geometric_median", "taylor", "norm_scale", "importance", "random")

# ResNet-56: channels between the two convolutions of a block, by stage, instead of 16, 32, 64.  Multiples of 8, which
# the vector units of most processors want; 33, 50 and 67 % of the MACs go.
INNER = ((8, 24, 48), (8, 16, 32), (8, 8, 16))


def widths(inner: tuple[int, ...]) -> dict[str, int]:
    """Rules for the first convolution of every block."""
    return {f"stage{stage}_block*/conv1/kernel": width for stage, width in enumerate(inner, 1)}


def get_config(profile: str = "full") -> ShrinkConfig:
    """Profiles: full (ResNet-20), resnet56, and tiny."""
    if profile == "tiny":
        return tiny_shrink(Cut(removed=0.5), Cut(score="taylor", allocation="global", removed=0.5))
    cuts = [Cut(score=score, removed=removed) for removed in (0.3, 0.5, 0.7) for score in SCORES]
    config = ShrinkConfig(
        dataset="cifar10",
        model="resnet20",
        load="pretrained",
        batch_size=128,
        cuts=(*cuts, Cut(score="taylor", allocation="global", removed=0.5)),
        retrain=Fit(
            epochs=0.25,
            optimizer="sgd",
            learning_rate=0.02,
            final_learning_rate=1e-4,
            weight_decay=5e-4,
            shift=4,
            flip=True,
        ),
        checkpoint_every=1,
    )
    if profile == "full":
        return config
    if profile != "resnet56":
        raise ValueError(f"Unknown profile {profile!r}; choose full, resnet56 or tiny.")
    config.model = "resnet56"
    config.cuts = tuple(Cut(score=score, widths=widths(inner)) for inner in INNER for score in SCORES[:-1])
    config.retrain.epochs = 0.15
    config.reestimate_images, config.validation = 2048, 2000
    return config
