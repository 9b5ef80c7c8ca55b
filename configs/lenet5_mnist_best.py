"""Our recipe for LeNet-5 on MNIST: cut units first, then prune progressively, taught by the dense network.

One run climbs a ladder of four stages and keeps the network of each, so one command answers several published figures.
The control is the same command with --config.solver=gradual_magnitude.
"""

from configs.common import LENET5, quantize, select, stage
from experiments.schema import Config, Distill, Fit


def get_config(profile: str = "full") -> Config:
    """Profiles: full, tiny, first (only the first stage), and further (beyond 400x); the last two do not quantize."""
    config = Config(
        dataset="mnist",
        pretrain=Fit(epochs=10, shift=1),
        widths=(10, 24, 80),
        recover=Fit(epochs=6, learning_rate=2e-3, shift=1),
        stages=(
            stage(LENET5, (140, 2100, 2400, 420), 6, 6, published="85x at 99.2 % (ADMM-NN, arXiv 1812.11677)"),
            stage(LENET5, (115, 1100, 900, 270), 8, 8, published="167x at 99.0 % (arXiv 1811.01907)"),
            stage(LENET5, (100, 780, 470, 200), 8, 12, published="246x (arXiv 1903.09769)"),
            stage(LENET5, (88, 600, 370, 178), 8, 16, published="348x (arXiv 1907.02124)"),
        ),
        quantize=(
            quantize(1, {"*/kernel": 3}, published="1,910x of weight data (arXiv 1811.01907)"),
            quantize(2, {"*/kernel": 2}, length=3.0, published="4,438x of weight data"),
            quantize(2, {"*/kernel": 3}, quantizer="levels", published="623x with positions (arXiv 1811.01907)"),
        ),
        distill=Distill(weight=0.5, temperature=3.0),
    )
    if profile == "first":
        config.stages, config.quantize = config.stages[:1], ()
        return config
    if profile == "further":
        last = stage(LENET5, (80, 520, 310, 160), 8, 20, published="348x (arXiv 1907.02124)")
        config.stages, config.quantize = (config.stages[0], config.stages[2], last), ()
        return config
    return select(config, profile)
