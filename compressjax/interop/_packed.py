"""Packed weights inside of Flax models, without a change to the models.

Linen: `packed_layers` is a context in which every `nn.Dense` and `nn.Conv` whose kernel is packed multiplies with it in
that form; the model, its `apply` and everything around stay as they are.  NNX: `packed_nnx` returns a copy of the model
in which such layers are replaced, by path.

A packed convolution takes the place of whatever function the layer was told to convolve with.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from compressjax import runtime, trees
from compressjax.runtime import Packed, is_packed


@contextmanager
def packed_layers() -> Iterator[None]:
    """A context in which Linen's `Dense` and `Conv` layers understand packed kernels.

    Raises:
      ValueError: On a call inside, naming the layer: if its packed parameter belongs to a layer of another kind, or to
        a convolution with groups, dilated inputs, a mask, or another padding than zeros.

    >>> from compressjax import zoo
    >>> model = zoo.build("lenet300", widths=(8, 4), input_shape=(4, 4, 1))
    >>> params = model.init(jax.random.key(0))
    >>> packed = runtime.pack(params, {"*/kernel": runtime.As(block=(2, 2))})
    >>> with packed_layers():
    ...     model.apply(packed, jnp.ones((3, 4, 4, 1))).shape
    (3, 10)
    """
    with nn.intercept_methods(_intercept):
        yield


def packed_apply(module: nn.Module, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
    """``module.apply({"params": params}, *args, **kwargs)`` with packed kernels.

    Args:
      module: A Linen module.
      params: Its parameters, some leaves packed.
      *args: Inputs.
      **kwargs: As for the module's `apply`.

    Returns:
      What `apply` returns.

    Raises:
      ValueError: As `packed_layers`.

    >>> layer = nn.Dense(3)
    >>> params = layer.init(jax.random.key(0), jnp.ones((1, 4)))["params"]
    >>> packed = runtime.pack(params, {"kernel": runtime.As(block=(2, 3))})
    >>> x = jnp.ones((2, 4))
    >>> bool(jnp.allclose(packed_apply(layer, packed, x), layer.apply({"params": params}, x)))
    True
    """
    with packed_layers():
        return module.apply({"params": params}, *args, **kwargs)


def _intercept(following: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
    module = context.module
    if context.method_name != "__call__" or module.scope is None:
        return following(*args, **kwargs)
    own = module.variables.get("params", {})
    names = [name for name, leaf in own.items() if is_packed(leaf)]
    if not names:
        return following(*args, **kwargs)
    path = "/".join(map(str, module.path))
    x = kwargs.get("inputs", args[0] if args else None)
    # A subclass may do anything with its kernel.
    if type(module) in (nn.Dense, nn.Conv) and names == ["kernel"] and x is not None:
        return _multiply(_settings(module, path), own["kernel"], own.get("bias"), x)
    raise ValueError(
        f"{path}/{names[0]} is packed, but a {type(module).__name__} does not multiply by it as Dense and Conv do: "
        "exempt it from packing."
    )


@dataclass(frozen=True)
class _Settings:
    """What the layers of both libraries say about themselves, under the same names."""

    path: str
    window: tuple[int, ...] | None  # None for a dense layer
    strides: tuple[int, int]
    padding: runtime.Padding
    dilation: tuple[int, int]
    dtype: Any


def _settings(layer: Any, path: str) -> _Settings:
    """The settings of a layer.

    Raises:
      ValueError: If packed weights cannot do what it does.
    """
    window = getattr(layer, "kernel_size", None)
    if window is None:
        return _Settings(path, None, (1, 1), "SAME", (1, 1), layer.dtype)
    window = (window,) if isinstance(window, int) else tuple(window)
    padding = layer.padding
    if isinstance(padding, int):
        padding = (padding,) * len(window)
    if not isinstance(padding, str):
        padding = tuple((pad, pad) if isinstance(pad, int) else tuple(pad) for pad in padding)
    own = {
        "more or fewer than two spatial axes": len(window) != 2,
        "groups": layer.feature_group_count != 1,
        "dilated inputs": _each(layer.input_dilation, len(window)) != (1,) * len(window),
        "a mask of its own": layer.mask is not None,
        f"padding {padding!r}": isinstance(padding, str) and padding.upper() not in ("SAME", "VALID"),
    }
    for what, has in own.items():
        if has:
            raise ValueError(f"{path}/kernel is packed, but this convolution has {what}: exempt it from packing.")
    strides, dilation = _each(layer.strides, 2), _each(layer.kernel_dilation, 2)
    return _Settings(path, window, strides, padding, dilation, layer.dtype)


def _each(value: int | Sequence[int] | None, count: int) -> Any:
    return (value or 1,) * count if value is None or isinstance(value, int) else tuple(value)


def _multiply(settings: _Settings, kernel: Packed, bias: jax.Array | None, x: jax.Array) -> jax.Array:
    """What the layer computes, with a packed kernel."""
    dtype = settings.dtype
    if dtype is None:
        dtype = jnp.result_type(x, kernel.dtype, *([] if bias is None else [bias]))
    x = jnp.asarray(x, dtype)
    try:
        if settings.window is None:
            return runtime.linear(x, kernel, bias)
        if kernel.shape[:-2] != settings.window:
            raise ValueError(
                f"the window of the layer is {settings.window} and that of the kernel {kernel.shape[:-2]}."
            )
        lead = x.shape[:-3]
        out = runtime.conv(
            x.reshape(-1, *x.shape[-3:]),
            kernel,
            bias,
            strides=settings.strides,
            padding=settings.padding,
            dilation=settings.dilation,
        )
        return out.reshape(*lead, *out.shape[1:])
    except ValueError as error:
        raise ValueError(f"{settings.path}: {error}") from error


class PackedLayer(nnx.Module):
    """An `nnx.Linear` or `nnx.Conv` with a packed kernel.

    Attributes:
      kernel: `nnx.Param` with a `runtime.Packed` in it.
      bias: `nnx.Param`, or None.
      settings: Those of the layer it replaces.

    >>> layer = nnx.Linear(4, 2, rngs=nnx.Rngs(0))
    >>> packed = runtime.pack({"k": layer.kernel.get_value()}, {"k": runtime.As(channels=True)})["k"]
    >>> PackedLayer(layer, packed, "layer")(jnp.ones((3, 4))).shape
    (3, 2)
    """

    def __init__(self, layer: nnx.Linear | nnx.Conv, kernel: Packed, path: str):
        self.kernel = nnx.Param(kernel)
        self.bias = nnx.data(layer.bias)
        self.settings = nnx.static(_settings(layer, path))

    def __call__(self, x: jax.Array) -> jax.Array:
        bias = None if self.bias is None else self.bias[...]
        return _multiply(self.settings, self.kernel.get_value(), bias, x)


def packed_nnx(model: nnx.Module, params: Any) -> nnx.Module:
    """A copy of an NNX model whose `Linear` and `Conv` layers multiply by packed kernels.

    Args:
      model: The model; it stays as it is.
      params: Parameters with packed leaves, as a nested dictionary with the model's paths: `runtime.pack` of
        `from_nnx(nnx.state(model, nnx.Param))`.  Leaves that are not packed are taken over too.

    Returns:
      The copy.

    Raises:
      ValueError: If a packed leaf is no kernel of such a layer, or a path is unknown.

    >>> model = nnx.Sequential(nnx.Linear(4, 8, rngs=nnx.Rngs(0)), jax.nn.relu, nnx.Linear(8, 2, rngs=nnx.Rngs(1)))
    >>> from compressjax.interop import from_nnx
    >>> params = runtime.pack(from_nnx(nnx.state(model, nnx.Param)), {"*/kernel": runtime.As(block=(2, 2))})
    >>> packed_nnx(model, params)(jnp.ones((3, 4))).shape
    (3, 2)
    """
    copy = nnx.clone(model)
    modules = {"/".join(map(str, path)): module for path, module in nnx.iter_modules(copy)}
    state = nnx.state(copy)
    known = trees.leaves(state)
    flat = {
        trees.path_string(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params, is_leaf=is_packed)
    }
    unknown = [path for path in flat if path not in known]
    if unknown:
        raise ValueError(f"The model has no parameter {unknown[0]!r}. It has: {', '.join(known)}.")
    nnx.update(copy, trees.update(state, {path: leaf for path, leaf in flat.items() if not is_packed(leaf)}))
    for path, leaf in flat.items():
        if not is_packed(leaf):
            continue
        owner, _, name = path.rpartition("/")
        layer = modules.get(owner)
        # A subclass may do anything with its kernel.
        if type(layer) not in (nnx.Linear, nnx.Conv) or name != "kernel":
            raise ValueError(
                f"{path} is packed, but a {type(layer).__name__} does not multiply by it as Linear and Conv do: "
                "exempt it from packing."
            )
        assert isinstance(layer, nnx.Linear | nnx.Conv)
        replacement = PackedLayer(layer, leaf, owner)
        if not owner:
            return replacement
        replaced = False
        for parent in modules.values():  # a layer may be shared: it is one, wherever it stands
            if isinstance(parent, nnx.List):
                for i, member in enumerate(parent):
                    if member is layer:
                        parent[i], replaced = replacement, True
            else:
                for place, member in list(vars(parent).items()):
                    if member is layer:
                        setattr(parent, place, replacement)
                        replaced = True
                    elif _holds(member, layer):
                        setattr(parent, place, nnx.data(_replaced(member, layer, replacement)))
                        replaced = True
        if not replaced:
            raise ValueError(f"{path} is packed, but its layer cannot be replaced where it stands: use nnx.List.")
    return copy


def _holds(node: Any, layer: Any) -> bool:
    """Whether plain containers have a layer in them."""
    members = node.values() if type(node) is dict else node if type(node) in (list, tuple) else ()
    return node is layer or any(_holds(member, layer) for member in members)


def _replaced(node: Any, layer: Any, replacement: Any) -> Any:
    """Plain containers with another layer in the place of one."""
    if type(node) is dict:
        return {key: _replaced(member, layer, replacement) for key, member in node.items()}
    if type(node) in (list, tuple):
        return type(node)(_replaced(member, layer, replacement) for member in node)
    return replacement if node is layer else node
