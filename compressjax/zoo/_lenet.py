"""LeNet-5 (the Caffe variant) and LeNet-300-100.

LeNet-5: conv 5x5 (20) - pool 2x2 - conv 5x5 (50) - pool 2x2 - dense 500 - dense 10; 430,500 weights and 580 biases.
LeNet-300-100: dense 300 - dense 100 - dense 10; 266,200 weights and 410 biases.  ReLU after every hidden layer,
convolutions without padding, features flattened in (height, width, channel) order.

Reference: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition", 1998.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from compressjax.zoo._architecture import Architecture, Options, Width
from compressjax.zoo._layers import Images


def max_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n h//2 w//2 c"]:
    """Maximum over 2x2 windows; an odd last row or column is dropped.

    Written as a reduction of a reshaped array, because the gradient of `reduce_window` is slow on CPU: this form makes
    a whole LeNet-5 training step about 1.6 times as fast.

    >>> import jax.numpy as jnp
    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1)).ravel().tolist()
    [5.0, 7.0, 13.0, 15.0]
    """
    n, h, w, c = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))


class LeNet5(nn.Module):
    """Caffe LeNet-5.

    Attributes:
      widths: Units of conv1, conv2 and fc1.
      classes: Units of fc2.

    >>> shapes = jax.eval_shape(LeNet5().init, jax.random.key(0), jax.numpy.zeros((1, 28, 28, 1)))["params"]
    >>> shapes["conv2"]["kernel"].shape, shapes["fc1"]["kernel"].shape
    ((5, 5, 20, 50), (800, 500))
    """

    widths: tuple[int, ...] = (20, 50, 500)
    classes: int = 10

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "n classes"]:
        for name, width in zip(("conv1", "conv2"), self.widths[:2], strict=True):
            x = nn.Conv(width, (5, 5), padding="VALID", name=name)(x)
            # Pooling first gives the same values as ReLU first, on a quarter of the entries.
            x = jax.nn.relu(max_pool(x))
        x = x.reshape(x.shape[0], -1)
        x = jax.nn.relu(nn.Dense(self.widths[2], name="fc1")(x))
        return nn.Dense(self.classes, name="fc2")(x)


class LeNet300(nn.Module):
    """LeNet-300-100; flattens its input.

    Attributes:
      widths: Units of fc1 and fc2.
      classes: Units of fc3.

    >>> shapes = jax.eval_shape(LeNet300().init, jax.random.key(0), jax.numpy.zeros((1, 28, 28, 1)))["params"]
    >>> shapes["fc1"]["kernel"].shape, shapes["fc3"]["kernel"].shape
    ((784, 300), (100, 10))
    """

    widths: tuple[int, ...] = (300, 100)
    classes: int = 10

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "n classes"]:
        x = x.reshape(x.shape[0], -1)
        for name, width in zip(("fc1", "fc2"), self.widths, strict=True):
            x = jax.nn.relu(nn.Dense(width, name=name)(x))
        return nn.Dense(self.classes, name="fc3")(x)


def _layout5(options: Options) -> Sequence[Width]:
    return [Width(20, "conv1/kernel", 3), Width(50, "conv2/kernel", 3), Width(500, "fc1/kernel", 1)]


def _layout300(options: Options) -> Sequence[Width]:
    return [Width(300, "fc1/kernel", 1), Width(100, "fc2/kernel", 1)]


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "lenet5": Architecture(
            LeNet5, _layout5, 10, (28, 28, 1), 16, MappingProxyType({}), chain=("conv1", "conv2", "fc1", "fc2")
        ),
        "lenet300": Architecture(
            LeNet300, _layout300, 10, (28, 28, 1), 1, MappingProxyType({}), chain=("fc1", "fc2", "fc3")
        ),
    }
)
