"""Networks as Flax Linen modules over plain nested dictionaries; widths are arguments."""

from compressjax.zoo._lenet import LeNet5, LeNet300
from compressjax.zoo._model import Model, build, names, widths_of
from compressjax.zoo._norm import BatchNorm, LayerNorm, RMSNorm, reestimate, trainable, update_statistics
from compressjax.zoo._resnet import CifarResNet
from compressjax.zoo._vgg import VGG16

__all__ = [
    "VGG16",
    "BatchNorm",
    "CifarResNet",
    "LayerNorm",
    "LeNet5",
    "LeNet300",
    "Model",
    "RMSNorm",
    "build",
    "names",
    "reestimate",
    "trainable",
    "update_statistics",
    "widths_of",
]
