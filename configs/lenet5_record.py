"""LeNet-5 on MNIST towards the smallest file: the ladder of `lenet5_mnist_best`, then equally spaced levels.

What a file holds beside weights is kept lean: biases of a few levels, zeros among them, and scales of four digits.  The
context coder takes care of the rest (docs/storage.md).
"""

from configs.common import quantize, select
from configs.lenet5_mnist_best import get_config as best
from experiments.schema import Config


def get_config(profile: str = "full") -> Config:
    """Profiles: full and tiny."""
    config = best()
    config.quantize = (
        quantize(2, {"*/kernel": 2}, quantizer="levels", lean=True, length=4.0, published="1,110x of the whole file"),
        quantize(3, {"*/kernel": 2}, quantizer="levels", lean=True, length=4.0, published="2,800x of the whole file"),
    )
    return select(config, profile)
