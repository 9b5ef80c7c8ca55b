"""LeNet-300-100 on MNIST: three stages of ADMM pruning, then 3-bit codebooks."""

from configs.common import LENET300, quantize, select, stage
from experiments.schema import Config, Distill, Fit


def get_config(profile: str = "full") -> Config:
    """Profiles: full and tiny."""
    config = Config(
        dataset="mnist",
        model="lenet300",
        pretrain=Fit(epochs=20, shift=1),
        stages=(
            stage(LENET300, (11000, 2100, 250), 10, 10, published="12x (Han et al., arXiv 1506.02626)"),
            stage(LENET300, (5200, 1100, 180), 10, 15),
            stage(LENET300, (2900, 700, 140), 10, 20),
        ),
        quantize=(quantize(1, {"*/kernel": 3}),),
        distill=Distill(weight=0.5, temperature=3.0),
    )
    return select(config, profile)
