"""What the configurations share: layer names, one rung of a ladder, and the tiny profile."""

from collections.abc import Sequence

from experiments.cuts import Cut, ShrinkConfig
from experiments.schema import Admm, Config, Fit, Quantize, Stage

LENET5 = ("conv1/kernel", "conv2/kernel", "fc1/kernel", "fc2/kernel")
LENET300 = ("fc1/kernel", "fc2/kernel", "fc3/kernel")


def stage(
    layers: Sequence[str],
    counts: Sequence[int],
    prune: float,
    retrain: float,
    *,
    rho: float = 0.3,
    shift: int = 1,
    published: str = "",
) -> Stage:
    """ADMM with frequent refreshes towards per-layer counts, then masked retraining; epochs of each."""
    return Stage(
        keep=dict(zip(layers, counts, strict=True)),
        prune=Admm(epochs=prune, learning_rate=2e-3, final_learning_rate=2e-4, rho=rho, shift=shift),
        retrain=Fit(epochs=retrain, learning_rate=2e-3, final_learning_rate=2e-5, shift=shift),
        published=published,
    )


def quantize(
    index: int,
    bits: dict[str, int],
    *,
    quantizer: str = "codebook",
    shift: int = 1,
    length: float = 1.0,
    lean: bool = False,
    published: str = "",
) -> Quantize:
    """Equalized units, ADMM towards the levels, gradual freezing, tuning of the levels; `length` scales the epochs."""
    return Quantize(
        stage=index,
        bits=bits,
        quantizer=quantizer,
        lean=lean,
        admm=Admm(epochs=length, learning_rate=1e-3, final_learning_rate=5e-4, shift=shift),
        freeze=Fit(epochs=4 * length, learning_rate=2e-3, final_learning_rate=1e-3, shift=shift),
        tune=Fit(epochs=2 * length, learning_rate=2e-3, final_learning_rate=1e-5, shift=shift),
        published=published,
    )


def as_published(profile: str, *stages: Stage, quantized: Sequence[Quantize] = ()) -> Config:
    """LeNet-5 on MNIST without a structured cut; "published" replaces the stages by the release's coarse schedule.

    That is the TensorFlow release of arXiv 1804.03294: Adam, batch 50, 30 iterations x 5,000 steps with one refresh of
    Z and U each, rho 1e-4, then 20,000 steps of masked retraining; 172 epochs in all.  Left out: its dropout and weight
    decay in pretraining and retraining.
    """
    if profile == "published":
        last = stages[-1]
        return Config(
            dataset="mnist",
            batch_size=50,
            pretrain=Fit(epochs=18, learning_rate=1e-3, final_learning_rate=1e-3),
            stages=(
                Stage(
                    keep=last.keep,
                    prune=Admm(epochs=136, learning_rate=1e-3, every=0, iterations=30, rho=1e-4),
                    retrain=Fit(epochs=18, learning_rate=1e-3, final_learning_rate=1e-3),
                    published=last.published,
                ),
            ),
        )
    config = Config(dataset="mnist", pretrain=Fit(epochs=10, shift=1), stages=stages, quantize=tuple(quantized))
    return select(config, profile)


def select(config: Config, profile: str) -> Config:
    """The configuration itself for "full"; for "tiny" the same phases, one short epoch each, on the embedded digits."""
    if profile == "full":
        return config
    if profile != "tiny":
        raise ValueError(f"Unknown profile {profile!r}; choose full or tiny.")
    config.dataset, config.batch_size = "digits", 64
    fits: list[Fit] = [config.pretrain, config.recover]
    for item in config.stages:
        fits += [item.prune, item.retrain]
        item.prune.every, item.prune.iterations = min(item.prune.every, 4), 4
    for quantized in config.quantize:
        fits += [quantized.admm, quantized.freeze, quantized.tune]
    for fit in fits:
        fit.epochs = 1
    return config


def tiny_shrink(*cuts: Cut) -> ShrinkConfig:
    """The tiny profile of shrink runs: LeNet-300-100 on the embedded digits, an epoch or two per phase."""
    return ShrinkConfig(
        model="lenet300",
        batch_size=64,
        pretrain=Fit(epochs=2, learning_rate=2e-3),
        cuts=cuts,
        retrain=Fit(epochs=1),
        score_images=128,
        trim_rounds=2,
        trim_images=100,
        latency_batch=8,
    )
