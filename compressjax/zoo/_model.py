"""Models by name: a network's static description and its two pure functions.

A model is its widths.  A network from which units were removed is the same module with smaller widths, so `build`
after `widths_of` is all that a shrunk network needs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from compressjax import trees
from compressjax.zoo._lenet import Images, LeNet5, LeNet300


@dataclass(frozen=True)
class _Architecture:
    """What a name stands for."""

    module: Callable[..., nn.Module]
    widths: tuple[int, ...]
    chain: tuple[str, ...]
    input_shape: tuple[int, int, int]
    smallest: int  # input height and width


_ARCHITECTURES: Mapping[str, _Architecture] = MappingProxyType(
    {
        "lenet5": _Architecture(LeNet5, (20, 50, 500), ("conv1", "conv2", "fc1", "fc2"), (28, 28, 1), 16),
        "lenet300": _Architecture(LeNet300, (300, 100), ("fc1", "fc2", "fc3"), (28, 28, 1), 1),
    }
)


# Un-jitted, Linen's initialization takes seconds; the module is static and hashable, so that a second call is free.
@partial(jax.jit, static_argnums=(0, 1))
def _init(module: nn.Module, input_shape: tuple[int, ...], key: PRNGKeyArray) -> dict[str, Any]:
    return module.init(key, jnp.zeros((1, *input_shape), jnp.float32))["params"]


@dataclass(frozen=True)
class Model:
    """A network: static, hashable, without arrays.  Made by `build`.

    Attributes:
      name: Its name in the zoo.
      widths: Units of each hidden layer.
      classes: Units of the last layer.
      input_shape: (height, width, channels) of one image.

    >>> model = build("lenet300", widths=(30, 10))
    >>> model.chain, model == build(**model.config)
    (('fc1', 'fc2', 'fc3'), True)
    """

    name: str
    widths: tuple[int, ...]
    classes: int
    input_shape: tuple[int, ...]

    @property
    def module(self) -> nn.Module:
        """The Linen module."""
        return _ARCHITECTURES[self.name].module(widths=self.widths, classes=self.classes)

    @property
    def config(self) -> dict[str, Any]:
        """The arguments of `build` that give this model, ready for JSON.

        >>> build("lenet300", widths=(30, 10)).config
        {'name': 'lenet300', 'widths': [30, 10], 'classes': 10, 'input_shape': [28, 28, 1]}
        """
        return {
            "name": self.name,
            "widths": list(self.widths),
            "classes": self.classes,
            "input_shape": list(self.input_shape),
        }

    @property
    def chain(self) -> tuple[str, ...]:
        """The layers in the order in which data passes them: what `compressjax.channels` needs to know."""
        return _ARCHITECTURES[self.name].chain

    def init(self, key: PRNGKeyArray) -> dict[str, Any]:
        """Fresh parameters: a plain nested dictionary, float32.

        Args:
          key: From `jax.random.key`.

        Returns:
          ``{layer: {"kernel": ..., "bias": ...}}``; kernels (kh, kw, in, out) or (in, out).
        """
        return _init(self.module, self.input_shape, key)

    def apply(self, params: Mapping[str, Any], x: Images) -> Float[Array, "n classes"]:
        """Logits of a batch.

        Args:
          params: From `init`.
          x: Float images (n, height, width, channels), scaled to [0, 1].

        Returns:
          Logits (n, classes).

        Raises:
          ValueError: If `x` is not a batch of images of `input_shape`.
        """
        if x.ndim != 4 or tuple(x.shape[1:]) != self.input_shape:
            raise ValueError(f"{self.name} takes images (n, *{self.input_shape}), not {tuple(x.shape)}: reshape them.")
        return self.module.apply({"params": params}, x)  # type: ignore[return-value]


def names() -> tuple[str, ...]:
    """The networks that `build` knows.

    >>> names()
    ('lenet5', 'lenet300')
    """
    return tuple(_ARCHITECTURES)


def _architecture(name: str) -> _Architecture:
    if name not in _ARCHITECTURES:
        raise ValueError(f"There is no network {name!r} in the zoo. Known: {', '.join(_ARCHITECTURES)}.")
    return _ARCHITECTURES[name]


def _positive(what: str, values: Sequence[int]) -> tuple[int, ...]:
    if any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in values):
        raise ValueError(f"{what} {tuple(values)} must be positive integers.")
    return tuple(values)


def build(
    name: str,
    *,
    widths: Sequence[int] | None = None,
    classes: int = 10,
    input_shape: Sequence[int] | None = None,
) -> Model:
    """Builds a network.

    Args:
      name: One of `names`.
      widths: Units of each hidden layer; by default the published ones.
      classes: Number of classes.
      input_shape: (height, width, channels) of one image.

    Returns:
      The model.

    Raises:
      ValueError: If the name is unknown, or widths, classes or input shape do not fit the network.

    >>> model = build("lenet5", widths=(10, 24, 80))
    >>> params = model.init(jax.random.key(0))
    >>> params["fc1"]["kernel"].shape, model.apply(params, jnp.zeros((2, 28, 28, 1))).shape
    ((384, 80), (2, 10))
    """
    known = _architecture(name)
    chosen = _positive("widths", known.widths if widths is None else widths)
    if len(chosen) != len(known.widths):
        raise ValueError(f"{name} has {len(known.widths)} hidden layers {known.chain[:-1]}, not widths {chosen}.")
    (classes,) = _positive("classes", (classes,))
    shape = _positive("input_shape", known.input_shape if input_shape is None else input_shape)
    if len(shape) != 3 or min(shape[:2]) < known.smallest:
        raise ValueError(
            f"input_shape {shape} must be (height, width, channels), >= {known.smallest} high and wide for {name}."
        )
    return Model(name, chosen, classes, shape)


def widths_of(name: str, params: Any) -> tuple[int, ...]:
    """The widths of a network's hidden layers, read from its parameters.

    Args:
      name: One of `names`.
      params: Its parameters, possibly with units removed.

    Returns:
      What `build` takes as `widths`.

    Raises:
      ValueError: If the name is unknown or a layer's kernel is missing.

    >>> widths_of("lenet300", build("lenet300", widths=(30, 10)).init(jax.random.key(0)))
    (30, 10)
    """
    leaves = trees.leaves(params)
    hidden = [f"{layer}/kernel" for layer in _architecture(name).chain[:-1]]
    for path in hidden:
        if path not in leaves:
            raise ValueError(f"{name} needs the leaf {path!r}, which is not among {', '.join(leaves)}.")
    return tuple(int(leaves[path].shape[-1]) for path in hidden)
