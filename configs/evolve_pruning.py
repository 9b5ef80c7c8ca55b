"""A pruning function evolved on two tasks that two processor cores can do, and tried on networks it never saw.

--config=configs/evolve_pruning.py               LeNet-5 on MNIST and a quarter of VGG-16 on CIFAR-10; then ResNet-20
--config=configs/evolve_pruning.py:lenet5        LeNet-5 alone, then a small network on the digits
--config=configs/evolve_pruning.py:accelerator   the whole VGG-16 and longer retraining, for an accelerator (not run)
--config=configs/evolve_pruning.py:tiny          a minute, on the embedded digits

The published search (arXiv 2110.10876) prunes LeNet-5 to 5-11-40 in three rounds and VGG-16 in two, with 100 epochs of
retraining after each.  Here there is one round and a fraction of an epoch.
"""

from configs import tasks
from configs.storage_study import QUARTER
from experiments.evolve_config import EvolveConfig
from experiments.schema import Fit
from experiments.task_config import Task

COMPARED = ("f1", "f2", "f3", "f4", "geometric_median", "taylor", "random")
VGG = (10, 10, 20, 20, 38, 38, 38, 77, 77, 77, 77, 77, 77)  # the published shares, of a quarter of the channels
INNER = (8, 16, 32)  # ResNet-20: half of the channels between the two convolutions of a block


def get_config(profile: str = "full") -> EvolveConfig:
    """Profiles: full, lenet5, accelerator and tiny."""
    if profile == "tiny":
        task = tasks.digits()
        task.kept = {"fc1/kernel": 6, "fc2/kernel": 5}
        return EvolveConfig(
            tasks=(task,), population=8, generations=2, finalists=2, repeats=2, longer=2, compared=("f2", "random")
        )
    if profile not in ("full", "lenet5", "accelerator"):
        raise ValueError(f"Unknown profile {profile!r}; choose full, lenet5, accelerator or tiny.")
    lenet5 = tasks.lenet5()
    lenet5.kept = {"conv1/kernel": 5, "conv2/kernel": 11, "fc1/kernel": 40}
    augment = {"shift": 4, "flip": True}
    vgg = Task(
        name="vgg",
        dataset="cifar10",
        model="vgg16",
        widths=QUARTER,
        batch_size=64,
        pretrain=Fit(epochs=6, learning_rate=2e-3, **augment),
        kept={f"conv{i}/kernel": width for i, width in enumerate(VGG, 1)},
        retrain=Fit(epochs=0.15, learning_rate=1e-3, final_learning_rate=1e-5, **augment),
    )
    resnet20 = tasks.resnet("resnet20")
    resnet20.kept = {f"stage{stage}_block*/conv1/kernel": width for stage, width in enumerate(INNER, 1)}
    digits = Task(
        name="digits",
        model="lenet300",
        batch_size=64,
        pretrain=Fit(epochs=20),
        kept={"fc1/kernel": 20, "fc2/kernel": 10},
        retrain=Fit(epochs=3, learning_rate=2e-3, final_learning_rate=2e-5),
    )
    config = EvolveConfig(tasks=(lenet5, vgg), transfer=(resnet20, digits), longer=4, compared=COMPARED)
    if profile == "lenet5":
        config.tasks, config.transfer = (lenet5,), (digits,)
    elif profile == "accelerator":
        config.population, config.generations = 40, 15
        vgg.widths, vgg.batch_size = (), 128
        vgg.kept = {f"conv{i}/kernel": 4 * width for i, width in enumerate(VGG, 1)}
        vgg.pretrain.epochs, vgg.retrain.epochs, lenet5.retrain.epochs, resnet20.retrain.epochs = 160, 20, 20, 40
        for task in (lenet5, vgg, resnet20):
            task.loop = "scan"
    return config
