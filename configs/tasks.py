"""The networks that several searches prune: trained on what two processor cores can do, retrained for a moment."""

from experiments.schema import Fit
from experiments.task_config import Task

STREAM = ("conv0/*", "fc/*")  # every channel of a residual stream is made by one or read by the other


def digits() -> Task:
    """A small LeNet-300-100 on the embedded digits, for tiny profiles."""
    return Task(
        name="digits",
        model="lenet300",
        batch_size=64,
        widths=(32, 16),
        pretrain=Fit(epochs=20, learning_rate=2e-3),
        retrain=Fit(epochs=1),
        score_images=250,
    )


def lenet5() -> Task:
    """LeNet-5 on MNIST, half an epoch of retraining."""
    return Task(
        name="lenet5",
        dataset="mnist",
        model="lenet5",
        pretrain=Fit(epochs=6, shift=1),
        retrain=Fit(epochs=0.5, learning_rate=2e-3, final_learning_rate=2e-5),
    )


def resnet(model: str) -> Task:
    """A pretrained ResNet on CIFAR-10, forty steps of retraining; judged on half of the test split, for time."""
    return Task(
        name=model,
        dataset="cifar10",
        model=model,
        load="pretrained",
        validation=500,
        batch_size=64,
        test_images=5000,
        retrain=Fit(epochs=0.06, optimizer="sgd", learning_rate=0.02, final_learning_rate=1e-4, shift=4, flip=True),
    )
