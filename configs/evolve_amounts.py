"""Per-layer amounts by search, at a budget of MACs.

--config=configs/evolve_amounts.py            LeNet-5 on MNIST, a tenth of the MACs left
--config=configs/evolve_amounts.py:resnet20   ResNet-20 on CIFAR-10, pretrained, half of the MACs left
--config=configs/evolve_amounts.py:tiny       a minute, on the embedded digits
"""

from configs.cdc import STREAM
from experiments.evolve_amounts_config import AmountsConfig
from experiments.pruning_tasks import Task
from experiments.schema import Fit


def get_config(profile: str = "full") -> AmountsConfig:
    """Profiles: full (LeNet-5), resnet20 and tiny."""
    if profile == "tiny":
        task = Task(
            name="digits",
            model="lenet300",
            batch_size=64,
            widths=(32, 16),
            pretrain=Fit(epochs=20, learning_rate=2e-3),
            retrain=Fit(epochs=1),
            score_images=250,
        )
        return AmountsConfig(task=task, population=6, generations=3, repeats=2)
    if profile == "full":
        task = Task(
            name="lenet5",
            dataset="mnist",
            model="lenet5",
            pretrain=Fit(epochs=6, shift=1),
            retrain=Fit(epochs=0.5, learning_rate=2e-3, final_learning_rate=2e-5),
        )
        return AmountsConfig(task=task, macs=0.1)
    if profile != "resnet20":
        raise ValueError(f"Unknown profile {profile!r}; choose full, resnet20 or tiny.")
    task = Task(
        name="resnet20",
        dataset="cifar10",
        model="resnet20",
        load="pretrained",
        validation=2000,
        batch_size=64,
        fixed=STREAM,
        retrain=Fit(epochs=0.06, optimizer="sgd", learning_rate=0.02, final_learning_rate=1e-4, shift=4, flip=True),
    )
    return AmountsConfig(task=task, macs=0.5, images=500, generations=12)
