"""Networks as Flax Linen modules over plain nested dictionaries; widths are arguments."""

from compressjax.zoo._decoder import Decoder
from compressjax.zoo._lenet import LeNet5, LeNet300
from compressjax.zoo._mobilenet import MobileNetV2
from compressjax.zoo._model import Model, build, names, widths_of
from compressjax.zoo._norm import BatchNorm, LayerNorm, RMSNorm, reestimate, trainable, update_statistics
from compressjax.zoo._resnet import CifarResNet, ResNet
from compressjax.zoo._vgg import VGG16
from compressjax.zoo._vit import ViT

__all__ = [
    "VGG16",
    "BatchNorm",
    "CifarResNet",
    "Decoder",
    "LayerNorm",
    "LeNet5",
    "LeNet300",
    "MobileNetV2",
    "Model",
    "RMSNorm",
    "ResNet",
    "ViT",
    "build",
    "names",
    "reestimate",
    "trainable",
    "update_statistics",
    "widths_of",
]
