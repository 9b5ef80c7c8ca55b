"""Models by name: a network's static description and its pure functions.

A model is its widths, and a few options that widths cannot tell.  A network from which units were removed is the same
module with smaller widths, so `Model.like` is all that a shrunk network needs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from compressjax import trees
from compressjax.zoo import _decoder, _lenet, _mobilenet, _resnet, _vgg, _vit
from compressjax.zoo._architecture import Architecture, Kept
from compressjax.zoo._initial import initial
from compressjax.zoo._layers import Images
from compressjax.zoo._norm import STATISTICS

_ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        **_lenet.ARCHITECTURES,
        **_resnet.ARCHITECTURES,
        **_vgg.ARCHITECTURES,
        **_mobilenet.ARCHITECTURES,
        **_vit.ARCHITECTURES,
        **_decoder.ARCHITECTURES,
    }
)

Tokens = Int[Array, "n t"] | Int[np.ndarray, "n t"]


# Un-jitted, Linen's initialization takes seconds; the module is static and hashable, so that a second call is free.
@partial(jax.jit, static_argnums=(0, 1))
def _init(module: nn.Module, input_shape: tuple[int, ...], key: PRNGKeyArray) -> dict[str, Any]:
    return module.init(key, jnp.zeros((1, *input_shape), jnp.float32))["params"]


@dataclass(frozen=True)
class Model:
    """A network: static, hashable, without arrays.  Made by `build`.

    Attributes:
      name: Its name in the zoo.
      widths: Units of each hidden layer, or of each group of layers that must agree; `axes` says which.
      classes: Units of the last layer; for a network on tokens the size of the vocabulary.
      input_shape: (height, width, channels) of one image, or (length,) of a sequence of tokens.
      options: What else defines the network, as sorted (name, value) pairs.

    >>> model = build("lenet300", widths=(30, 10))
    >>> model.chain, model == build(**model.config)
    (('fc1', 'fc2', 'fc3'), True)
    """

    name: str
    widths: tuple[int, ...]
    classes: int
    input_shape: tuple[int, ...]
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def module(self) -> nn.Module:
        """The Linen module."""
        return _ARCHITECTURES[self.name].module(widths=self.widths, classes=self.classes, **dict(self.options))

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
            **{name: _listed(value) for name, value in self.options},
        }

    @property
    def chain(self) -> tuple[str, ...]:
        """The layers in the order in which data passes them, for networks that are chains of layers; else empty."""
        return _ARCHITECTURES[self.name].chain

    @property
    def axes(self) -> tuple[tuple[str, int], ...]:
        """For each entry of `widths`, one axis of one leaf that has this size: (path, axis).

        >>> build("lenet300").axes
        (('fc1/kernel', 1), ('fc2/kernel', 1))
        """
        return tuple((width.path, width.axis) for width in _ARCHITECTURES[self.name].layout(dict(self.options)))

    def init(self, key: PRNGKeyArray) -> dict[str, Any]:
        """Fresh parameters: a plain nested dictionary, float32.

        Args:
          key: From `jax.random.key`.

        Returns:
          ``{layer: {"kernel": ..., "bias": ...}}``; kernels (kh, kw, in, out) or (in, out).  Batch normalizations hold
          ``scale``, ``bias``, ``mean`` and ``var``.
        """
        # Recorded results start from Linen's own draws for the chains.
        start = _init if self.chain else initial
        return start(self.module, self.input_shape, key)

    def apply(self, params: Mapping[str, Any], x: Images | Tokens) -> Float[Array, "n ... classes"]:
        """Logits of a batch, with stored statistics in every batch normalization.

        Args:
          params: From `init`.
          x: Float images (n, height, width, channels), scaled to [0, 1]; a network that wants them standardized does so
            itself.  Or tokens (n, t).

        Returns:
          Logits (n, classes), or (n, t, classes) for tokens.

        Raises:
          ValueError: If `x` is not a batch of images of `input_shape`, or not a batch of sequences.
        """
        self._check(x)
        return self.module.apply({"params": params}, x)  # type: ignore[return-value]

    def apply_train(
        self, params: Mapping[str, Any], x: Images | Tokens
    ) -> tuple[Float[Array, "n ... classes"], dict[str, Float[Array, " channels"]]]:
        """Logits of a batch, with the statistics of the batch itself in every batch normalization.

        Args:
          params: From `init`.
          x: As for `apply`.

        Returns:
          Logits, and the statistics by path (``"norm1/mean"``, ``"norm1/var"``), for `update_statistics`; none for a
          network without batch normalization.

        Raises:
          ValueError: As for `apply`.

        >>> model = build("resnet20", widths=(2, 3), blocks=(1,), input_shape=(4, 4, 3))
        >>> params = model.init(jax.random.key(0))
        >>> logits, statistics = jax.eval_shape(model.apply_train, params, jnp.ones((5, 4, 4, 3)))
        >>> logits.shape, len(statistics), statistics["stage1_block0/norm1/var"].shape
        ((5, 10), 6, (3,))
        """
        self._check(x)
        logits, state = self.module.apply({"params": params}, x, mutable=[STATISTICS])
        return logits, trees.leaves(state.get(STATISTICS, {}))

    def like(self, params: Any, kept: Kept | None = None) -> "Model":
        """This network after units were removed from its parameters.

        Widths are read from the parameters.  Where the module also depends on *which* units are left, `kept` tells it:
        the zero channels of shortcuts (``resnet20`` ...) and the rotated pairs (``decoder``).  Numbers that must not
        follow the widths, such as the divisor of a norm, stay.

        Args:
          params: Parameters of this network, some units removed.
          kept: For axes of leaves, (path, axis), which of this network's positions are still there: bool (old size,).
            May hold any axes; those that matter and are missing are taken as whole.

        Returns:
          The model that these parameters belong to.

        Raises:
          ValueError: If the parameters are not this network's, or `kept` is needed.

        >>> model = build("lenet300", widths=(30, 10))
        >>> model.like(build("lenet300", widths=(20, 5)).init(jax.random.key(0))).widths
        (20, 5)
        """
        known = _ARCHITECTURES[self.name]
        masks = {axis: np.asarray(mask, bool) for axis, mask in (kept or {}).items()}
        options = known.remember(dict(self.options), masks)
        widths = _read_widths(self.name, params, known.layout(options))
        return build(self.name, widths=widths, classes=self.classes, input_shape=self.input_shape, **options)

    def _check(self, x: Any) -> None:
        """Refuses what is no batch of this network's inputs; sequences may have any length."""
        wanted = self.input_shape
        if x.ndim != len(wanted) + 1 or (len(wanted) == 3 and tuple(x.shape[1:]) != wanted):
            what = f"images (n, *{wanted})" if len(wanted) == 3 else "tokens (n, length)"
            raise ValueError(f"{self.name} takes {what}, not {tuple(x.shape)}: reshape them.")


def names() -> tuple[str, ...]:
    """The networks that `build` knows.

    >>> names()[:3]
    ('lenet5', 'lenet300', 'resnet20')
    """
    return tuple(_ARCHITECTURES)


def _architecture(name: str) -> Architecture:
    if name not in _ARCHITECTURES:
        raise ValueError(f"There is no network {name!r} in the zoo. Known: {', '.join(_ARCHITECTURES)}.")
    return _ARCHITECTURES[name]


def _positive(what: str, values: Sequence[int]) -> tuple[int, ...]:
    if any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in values):
        raise ValueError(f"{what} {tuple(values)} must be positive integers.")
    return tuple(values)


def _static(value: Any) -> Any:
    """Lists, as JSON has them, to tuples."""
    return tuple(_static(item) for item in value) if isinstance(value, (list, tuple)) else value


def _listed(value: Any) -> Any:
    """Inverse of `_static`."""
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def build(
    name: str,
    *,
    widths: Sequence[int] | None = None,
    classes: int | None = None,
    input_shape: Sequence[int] | None = None,
    **options: Any,
) -> Model:
    """Builds a network.

    Args:
      name: One of `names`.
      widths: Units of each hidden layer; by default the published ones.
      classes: Number of classes; by default the published one.
      input_shape: (height, width, channels) of one image, or (length,) of a sequence of tokens.
      **options: What else the network takes, such as ``blocks`` of a ``resnet20``; JSON values.

    Returns:
      The model.

    Raises:
      ValueError: If the name or an option is unknown, or widths, classes, input shape or options do not fit the
        network.

    >>> model = build("lenet5", widths=(10, 24, 80))
    >>> params = model.init(jax.random.key(0))
    >>> params["fc1"]["kernel"].shape, model.apply(params, jnp.zeros((2, 28, 28, 1))).shape
    ((384, 80), (2, 10))
    """
    known = _architecture(name)
    unknown = [option for option in options if option not in known.options]
    if unknown:
        takes = ", ".join(known.options) or "none"
        raise ValueError(f"{name} has no option {unknown[0]!r}; its options: {takes}.")
    chosen = {option: _static(options.get(option, value)) for option, value in known.options.items()}
    layout = known.layout(chosen)
    sizes = _positive("widths", [width.published for width in layout] if widths is None else widths)
    if len(sizes) != len(layout):
        raise ValueError(f"{name} has {len(layout)} hidden layers {_units(layout)}, not widths {sizes}.")
    (outputs,) = _positive("classes", (known.classes if classes is None else classes,))
    shape = _positive("input_shape", known.input_shape if input_shape is None else input_shape)
    if len(shape) != len(known.input_shape) or min(shape[:2]) < known.smallest:
        raise ValueError(
            f"input_shape {shape} must be (height, width, channels), >= {known.smallest} high and wide for {name}."
            if len(known.input_shape) == 3
            else f"input_shape {shape} must be (length,), the number of tokens, for {name}."
        )
    complete = known.complete(sizes, shape, chosen)
    return Model(name, sizes, outputs, shape, tuple(sorted(complete.items())))


def _units(layout: Sequence[Any]) -> tuple[str, ...]:
    return tuple(width.path.rsplit("/", 1)[0] for width in layout)


def _read_widths(name: str, params: Any, layout: Sequence[Any]) -> tuple[int, ...]:
    leaves = trees.leaves(params)
    for path, axis in ((width.path, width.axis) for width in layout):
        if path not in leaves:
            raise ValueError(f"{name} needs the leaf {path!r}, which is not among {', '.join(leaves)}.")
        if leaves[path].ndim <= axis:
            raise ValueError(f"{name} needs an axis {axis} of {path}, which has shape {tuple(leaves[path].shape)}.")
    return tuple(int(leaves[width.path].shape[width.axis]) for width in layout)


def widths_of(name: str, params: Any, **options: Any) -> tuple[int, ...]:
    """The widths of a network's hidden layers, read from its parameters.

    Args:
      name: One of `names`.
      params: Its parameters, possibly with units removed.
      **options: Options of `build` that set how many layers there are, if not the published ones.

    Returns:
      What `build` takes as `widths`.

    Raises:
      ValueError: If the name is unknown or a layer's kernel is missing.

    >>> widths_of("lenet300", build("lenet300", widths=(30, 10)).init(jax.random.key(0)))
    (30, 10)
    """
    known = _architecture(name)
    return _read_widths(name, params, known.layout({**known.options, **options}))
