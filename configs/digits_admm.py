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
        pretrain=Fit(epochs=12, shift=1),
        widths=(8, 16, 40),
        recover=Fit(epochs=12, learning_rate=2e-3, shift=1),
        stages=(
            stage(LENET5, (120, 1000, 1200, 260), 10, 10),
            stage(LENET5, (90, 550, 450, 150), 10, 20),
        ),
        quantize=(quantize(1, {"conv*/kernel": 3, "fc*/kernel": 2}, length=3.0),),
        control=True,
        log_every=2,
        checkpoint_every=12,
    )
    return select(config, profile)
