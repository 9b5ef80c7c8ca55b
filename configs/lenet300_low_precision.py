"""LeNet-300-100 with 2 to 4 bits for weights and activations, by every quantizer, beside float at equal epochs.

--config=configs/lenet300_low_precision.py          MNIST
--config=configs/lenet300_low_precision.py:digits   the embedded digits: a minute or two
"""

from experiments.schema import Fit
from experiments.schemes import LowPrecisionConfig, Scheme

PAIRS = (
    ("lsq", "lsq"),
    ("lsq_channel", "lsq"),
    ("dorefa", "dorefa"),
    ("dorefa", "pact"),
    ("levels", "lsq"),
    ("power_of_two", "lsq"),
    ("codebook", "lsq"),
)


def get_config(profile: str = "full") -> LowPrecisionConfig:
    """Profiles: full, digits and tiny."""
    if profile not in ("full", "digits", "tiny"):
        raise ValueError(f"Unknown profile {profile!r}; choose full, digits or tiny.")
    config = LowPrecisionConfig(
        dataset="mnist",
        model="lenet300",
        pretrain=Fit(epochs=10, shift=1),
        schemes=tuple(Scheme(*pair, bits, bits) for bits in (4, 2) for pair in PAIRS),
        train=Fit(epochs=5, shift=1),
        log_every=5,
        checkpoint_every=10,
    )
    if profile != "full":
        config.dataset, config.batch_size = "digits", 32
        config.pretrain, config.train = Fit(epochs=30, shift=1), Fit(epochs=20, shift=1)
    if profile == "tiny":
        config.pretrain, config.train, config.batch_size = Fit(epochs=2), Fit(epochs=1), 128
        config.schemes = (Scheme("lsq", "lsq", 4, 4), Scheme("dorefa", "pact", 2, 3))
    return config
