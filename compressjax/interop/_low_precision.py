"""Low precision inside of Linen models, without a change to the models.

`layer_inputs` lets a function see, and replace, what enters every `nn.Dense` and `nn.Conv`: to watch activations for
calibration (`inputs_of`), or to fake-quantize them while training.  `integer_layers` computes chosen layers on integer
codes, with int32 sums; what lies between them (ReLU, pooling) sees the scaled sums in float32.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import flax.linen as nn
from jaxtyping import Array, Float, Int

from compressjax import quantizers
from compressjax.quantizers import Integers


class IntegerLayer(NamedTuple):
    """A `Dense` or `Conv` layer on integers.

    Attributes:
      weights: Codes in the kernel's shape, with one step or one per output.
      bias: int32 codes in units of the product of the input's step and the weights', from `quantizers.round_bias`.
      inputs: The codes of the layer's input: from floats, () -> `Integers` with one step.
    """

    weights: Integers
    bias: Int[Array, "outputs"] | None
    inputs: Callable[[Float[Array, "..."]], Integers]


@contextmanager
def layer_inputs(change: Callable[[str, Any], Any]) -> Iterator[None]:
    """A context in which the input of every `nn.Dense` and `nn.Conv` passes a function first.

    Args:
      change: ``change(path, x)``: what the layer at `path`, such as ``"fc1"``, gets instead of `x`.

    >>> import jax, jax.numpy as jnp
    >>> from compressjax import zoo
    >>> model = zoo.build("lenet300", widths=(8, 4), input_shape=(4, 4, 1))
    >>> params = model.init(jax.random.key(0))
    >>> with layer_inputs(lambda path, x: 0.0 * x):
    ...     bool((model.apply(params, jnp.ones((3, 4, 4, 1))) == params["fc3"]["bias"][None]).all())
    True
    """

    def intercept(following: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if not _is_layer(context):
            return following(*args, **kwargs)
        path = "/".join(map(str, context.module.path))
        if "inputs" in kwargs:
            return following(*args, **{**kwargs, "inputs": change(path, kwargs["inputs"])})
        return following(change(path, args[0]), *args[1:], **kwargs)

    with nn.intercept_methods(intercept):
        yield


def inputs_of(apply: Callable[..., Any], params: Mapping[str, Any], x: Any) -> dict[str, Float[Array, "..."]]:
    """What enters every `nn.Dense` and `nn.Conv` of a model, for `quantizers.calibrate`.

    Args:
      apply: ``apply(params, x)``, such as ``model.apply``.
      params: Its parameters.
      x: A batch.

    Returns:
      Inputs by the path of their layer.

    Raises:
      ValueError: If a layer is called more than once: it has no one input.

    >>> import jax, jax.numpy as jnp
    >>> from compressjax import zoo
    >>> model = zoo.build("lenet300", widths=(8, 4), input_shape=(4, 4, 1))
    >>> params = model.init(jax.random.key(0))
    >>> {path: x.shape for path, x in inputs_of(model.apply, params, jnp.ones((3, 4, 4, 1))).items()}
    {'fc1': (3, 16), 'fc2': (3, 8), 'fc3': (3, 4)}
    """
    seen: dict[str, Any] = {}

    def note(path: str, x: Any) -> Any:
        if path in seen:
            raise ValueError(f"inputs_of: the layer {path!r} is called more than once; watch it with layer_inputs.")
        seen[path] = x
        return x

    with layer_inputs(note):
        apply(params, x)
    return seen


@contextmanager
def integer_layers(layers: Mapping[str, IntegerLayer]) -> Iterator[None]:
    """A context in which chosen `nn.Dense` and `nn.Conv` layers compute on integers; their float weights are not read.

    Args:
      layers: By path.

    Raises:
      ValueError: On a call inside, if a convolution has groups or another setting that integers do not cover.

    >>> import jax.numpy as jnp
    >>> weights = Integers(jnp.array([[2], [-1]], jnp.int8), jnp.float32(0.5))
    >>> codes = lambda x: quantizers.to_integers(x, jnp.float32(0.5), quantizers.Codes(4))
    >>> params = {"params": {"kernel": weights.value, "bias": jnp.zeros(1)}}
    >>> with integer_layers({"": IntegerLayer(weights, None, codes)}):
    ...     nn.Dense(1).apply(params, jnp.array([[1.5, 0.6]]))
    Array([[1.25]], dtype=float32)
    """

    def intercept(following: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        path = "/".join(map(str, context.module.path))
        if not _is_layer(context) or path not in layers:
            return following(*args, **kwargs)
        layer = layers[path]
        x = layer.inputs(kwargs.get("inputs", args[0] if args else None))
        if isinstance(context.module, nn.Dense):
            return quantizers.dense(x, layer.weights, layer.bias).value
        strides, padding = _strides_and_padding(context.module, path)
        return quantizers.convolution(x, layer.weights, layer.bias, strides, padding).value

    with nn.intercept_methods(intercept):
        yield


def _strides_and_padding(layer: Any, path: str) -> tuple[tuple[int, int], Any]:
    """Of a plain two-dimensional convolution.

    Raises:
      ValueError: If it is another kind.
    """
    padding = layer.padding
    if isinstance(padding, int):
        padding = ((padding, padding),) * 2
    elif not isinstance(padding, str):
        padding = tuple((pad, pad) if isinstance(pad, int) else tuple(pad) for pad in padding)
    others = {
        "more or fewer than two spatial axes": len(layer.kernel_size) != 2,
        "groups": layer.feature_group_count != 1,
        "dilation": any(_pair(d) != (1, 1) for d in (layer.kernel_dilation, layer.input_dilation)),
        "a mask of its own": layer.mask is not None,
        f"padding {padding!r}": isinstance(padding, str) and padding.upper() not in ("SAME", "VALID"),
    }
    for what, has in others.items():
        if has:
            raise ValueError(f"integer_layers: the convolution {path!r} has {what}, which integers do not cover.")
    return _pair(layer.strides), padding


def _pair(value: Any) -> Any:
    return (value or 1,) * 2 if value is None or isinstance(value, int) else tuple(value)


def _is_layer(context: nn.module.InterceptorContext) -> bool:
    # A subclass may do anything with its input.
    return context.method_name == "__call__" and type(context.module) in (nn.Dense, nn.Conv)
