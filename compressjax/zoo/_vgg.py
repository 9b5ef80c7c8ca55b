"""VGG-16 with batch normalization, as it is used on CIFAR-10: 13 convolutions and one dense layer.

Five groups of 3x3 convolutions (64 64 - 128 128 - 256 256 256 - 512 512 512 - 512 512 512), each convolution followed
by batch normalization and ReLU, each group by 2x2 maximum pooling; then the mean over what is left of the image (one
pixel, for 32x32) and a dense layer.  Convolutions have no bias.  14,724,042 weights and biases with 10 classes.

Reference: K. Simonyan, A. Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015
(arXiv 1409.1556); this form for CIFAR-10 after H. Li et al., "Pruning filters for efficient ConvNets", ICLR 2017 (arXiv
1608.08710).
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from compressjax.zoo._architecture import Architecture, Options, Width, standardized
from compressjax.zoo._layers import Images, average, convolution, standardize
from compressjax.zoo._lenet import max_pool
from compressjax.zoo._norm import STATISTICS, BatchNorm

_WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
_POOLED = (2, 4, 7, 10, 13)  # convolutions that a pooling follows


class VGG16(nn.Module):
    """VGG-16 with batch normalization and one dense layer.

    Attributes:
      widths: Channels of conv1 .. conv13.
      classes: Units of fc.
      mean: Subtracted from each channel of the image, scaled to [0, 1].
      std: What each channel is then divided by.

    >>> shapes = jax.eval_shape(VGG16().init, jax.random.key(0), jax.numpy.zeros((1, 32, 32, 3)))["params"]
    >>> shapes["conv13"]["kernel"].shape, sorted(shapes["norm13"])
    ((3, 3, 512, 512), ['bias', 'mean', 'scale', 'var'])
    """

    widths: tuple[int, ...] = _WIDTHS
    classes: int = 10
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "n classes"]:
        h = standardize(x, self.mean, self.std)
        for number, width in enumerate(self.widths, 1):
            h = convolution(width, 3, name=f"conv{number}", training=self.is_mutable_collection(STATISTICS))(h)
            h = jax.nn.relu(BatchNorm(name=f"norm{number}")(h))
            if number in _POOLED:
                h = max_pool(h)
        return nn.Dense(self.classes, name="fc")(average(h))


def _layout(options: Options) -> Sequence[Width]:
    return [Width(width, f"conv{number}/kernel", 3) for number, width in enumerate(_WIDTHS, 1)]


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "vgg16": Architecture(
            VGG16, _layout, 10, (32, 32, 3), 32, MappingProxyType({"mean": None, "std": None}), standardized
        )
    }
)
