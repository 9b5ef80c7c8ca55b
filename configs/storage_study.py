"""Structured or not: storage and speed by kind of sparsity and bits per weight.

--config=configs/storage_study.py            LeNet-5 on MNIST
--config=configs/storage_study.py:resnet20   ResNet-20 on CIFAR-10, from the pretrained weights
--config=configs/storage_study.py:vgg        VGG-16 with a quarter of the channels on CIFAR-10, trained shortly
--config=configs/storage_study.py:tiny       a minute, on the embedded digits

Retraining is short, so the ratios are far from published ones; all kinds of sparsity get the same.
"""

from experiments.schema import Admm, Fit
from experiments.study_config import Scheme, StudyConfig

QUARTER = (16, 16, 32, 32, 64, 64, 64, 128, 128, 128, 128, 128, 128)


def get_config(profile: str = "full") -> StudyConfig:
    """Profiles: full (LeNet-5), resnet20, vgg and tiny."""
    if profile == "full":
        return StudyConfig(
            dataset="mnist",
            model="lenet5",
            pretrain=Fit(epochs=4, shift=1),
            schemes=(
                Scheme("weights", (8, 16, 32, 64, 90)),
                Scheme("nm", (4, 8, 16)),
                Scheme("blocks", (6, 12, 24, 36)),
                Scheme("filters", (4, 8, 16, 24)),
            ),
            prune=Admm(epochs=1, learning_rate=2e-3, final_learning_rate=4e-4, rho=0.1, shift=1),
            retrain=Fit(epochs=1, learning_rate=2e-3, final_learning_rate=2e-5, shift=1),
            quantize=Fit(epochs=0.6, learning_rate=1e-3, final_learning_rate=2e-5, shift=1),
            tolerance=0.003,
            block=(5, 5),
        )
    if profile == "tiny":
        short = Fit(epochs=1)
        return StudyConfig(
            model="lenet300",
            batch_size=64,
            widths=(64, 32),
            pretrain=Fit(epochs=2, learning_rate=2e-3),
            schemes=tuple(Scheme(kind, (2, 4)) for kind in ("weights", "nm", "blocks", "filters")),
            prune=Admm(epochs=1, every=4),
            retrain=short,
            quantize=short,
            bits=(2, 8),
            tolerance=0.05,
            latency_repeats=3,
        )
    cifar = StudyConfig(
        dataset="cifar10",
        batch_size=64,
        validation=2000,
        prune=Admm(epochs=0.1, learning_rate=1e-3, final_learning_rate=3e-4, rho=0.1, every=8, shift=4, flip=True),
        retrain=Fit(epochs=0.1, learning_rate=1e-3, final_learning_rate=1e-5, shift=4, flip=True),
        quantize=Fit(epochs=0.06, learning_rate=5e-4, final_learning_rate=1e-5, shift=4, flip=True),
        tolerance=0.03,
        block=(4, 4),
        checkpoint_every=1,
    )
    if profile == "resnet20":
        cifar.model, cifar.load = "resnet20", "pretrained"
        # Trained weights: a step of 1e-3 loses more accuracy than the sparsity does.
        for fit in (cifar.prune, cifar.retrain):
            fit.learning_rate, fit.final_learning_rate = 2e-4, 2e-5
        cifar.schemes = (
            Scheme("weights", (2, 3, 4, 6)),
            Scheme("nm", (1.5, 2, 3)),
            Scheme("blocks", (1.25, 1.5, 2)),
            Scheme("filters", (1.1, 1.25, 1.5)),
        )
    elif profile == "vgg":
        cifar.model, cifar.widths = "vgg16", QUARTER
        cifar.pretrain = Fit(epochs=2, learning_rate=2e-3, shift=4, flip=True)
        cifar.schemes = (
            Scheme("weights", (4, 8, 16, 32)),
            Scheme("nm", (4, 8, 16)),
            Scheme("blocks", (3, 6, 12)),
            Scheme("filters", (2, 4, 8)),
        )
    else:
        raise ValueError(f"Unknown profile {profile!r}; choose full, resnet20, vgg or tiny.")
    return cifar
