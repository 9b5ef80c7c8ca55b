"""Our recipe for LeNet-5 on MNIST: cut units first, then prune progressively, with distillation from the dense network.

One run climbs a ladder of four stages; each stage's network is kept, so one command answers several published figures.
"""

from experiments.schema import Admm, Config, Distill, Fit, Quantize, Stage

LAYERS = ("conv1/kernel", "conv2/kernel", "fc1/kernel", "fc2/kernel")


def stage(counts: tuple[int, ...], prune: float, retrain: float, published: str = "") -> Stage:
    """Pruning to per-layer counts, then masked retraining."""
    return Stage(
        keep=dict(zip(LAYERS, counts, strict=True)),
        prune=Admm(epochs=prune, learning_rate=2e-3, final_learning_rate=2e-4, rho=0.05, initial_rho=1e-3, shift=1),
        retrain=Fit(epochs=retrain, learning_rate=2e-3, final_learning_rate=2e-5, shift=1),
        published=published,
    )


def quantize(index: int, conv: int, fc: int, published: str = "") -> Quantize:
    """ADMM towards a codebook, gradual freezing, tuning of the levels."""
    return Quantize(
        stage=index,
        bits={"conv*/kernel": conv, "fc*/kernel": fc},
        admm=Admm(epochs=3, learning_rate=5e-4, final_learning_rate=1e-4, rho=0.05, initial_rho=1e-3, shift=1),
        freeze=Fit(epochs=4, learning_rate=5e-4, final_learning_rate=1e-4, shift=1),
        tune=Fit(epochs=3, learning_rate=5e-4, final_learning_rate=1e-5, shift=1),
        published=published,
    )


def get_config(profile: str = "full") -> Config:
    """Profiles: full (about 20 minutes on one core) and tiny (a smoke test on the embedded digits)."""
    config = Config(
        dataset="mnist",
        pretrain=Fit(epochs=10, shift=1),
        widths=(10, 24, 80),
        recover=Fit(epochs=6, learning_rate=2e-3, shift=1),
        stages=(
            stage((140, 2100, 2400, 420), 6, 6, "85x at 99.2 % (ADMM-NN, arXiv 1812.11677)"),
            stage((115, 1100, 900, 270), 8, 8, "167x at 99.0 % (arXiv 1811.01907)"),
            stage((100, 780, 470, 200), 8, 12, "246x (arXiv 1903.09769)"),
            stage((88, 600, 370, 178), 8, 16, "348x at about 99.0 % (arXiv 1907.02124)"),
        ),
        quantize=(
            quantize(1, 3, 3, "1,910x of weight data at 99.0 % (arXiv 1811.01907)"),
            quantize(2, 2, 2, "4,438x of weight data"),
        ),
        distill=Distill(weight=0.5, temperature=3.0),
    )
    if profile == "tiny":
        config.dataset, config.batch_size = "digits", 32
        fits = [config.pretrain, config.recover]
        fits += [fit for item in config.stages for fit in (item.prune, item.retrain)]
        fits += [fit for item in config.quantize for fit in (item.admm, item.freeze, item.tune)]
        for fit in fits:
            fit.epochs = 1
    return config
