"""Per-layer amounts by search, at a budget of MACs.

--config=configs/evolve_amounts.py            LeNet-5 on MNIST, a tenth of the MACs left
--config=configs/evolve_amounts.py:resnet20   ResNet-20 on CIFAR-10, pretrained, half of the MACs left
--config=configs/evolve_amounts.py:tiny       a minute, on the embedded digits
"""

from configs import tasks
from experiments.evolve_amounts_config import AmountsConfig


def get_config(profile: str = "full") -> AmountsConfig:
    """Profiles: full (LeNet-5), resnet20 and tiny."""
    if profile == "tiny":
        return AmountsConfig(task=tasks.digits(), population=6, generations=3, repeats=2)
    if profile == "full":
        return AmountsConfig(task=tasks.lenet5(), macs=0.1)
    if profile != "resnet20":
        raise ValueError(f"Unknown profile {profile!r}; choose full, resnet20 or tiny.")
    task = tasks.resnet(profile)
    task.fixed, task.validation = tasks.STREAM, 1000
    return AmountsConfig(task=task, macs=0.5, images=500, generations=12)
