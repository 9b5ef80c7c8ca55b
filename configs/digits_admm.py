"""The demo: LeNet-5 on real handwritten digits that come with scikit-learn; minutes on two cores, mostly compilation.

The same phases as `lenet5_mnist_best`, on 1,797 small images instead of 70,000.
"""

from configs.common import LENET5, quantize, select, stage
from experiments.schema import Config, Fit


def get_config(profile: str = "full") -> Config:
    """Profiles: full and tiny."""
    config = Config(
        dataset="digits",
        batch_size=32,
        pretrain=Fit(epochs=10, shift=1),
        widths=(8, 16, 40),
        recover=Fit(epochs=8, learning_rate=2e-3, shift=1),
        stages=(stage(LENET5, (110, 700, 550, 160), 14, 14),),
        quantize=(quantize(0, {"*/kernel": 3}, quantizer="levels", length=1.5),),
        control=True,
        log_every=2,
        checkpoint_every=12,
    )
    return select(config, profile)
