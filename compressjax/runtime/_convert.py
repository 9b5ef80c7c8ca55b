"""Other engines' files, through converters that others maintain: ONNX by jax2onnx, LiteRT by jax2tf and TensorFlow.

Both are optional.  An ONNX file keeps blocks, channels and 8-bit codes, as plain operations; N:M, 4-bit codes and
codebooks need operations on int8 that ONNX does not have, and become float weights.  LiteRT has no operation for sums
over lists of blocks, so that its files hold dense weights.
"""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import numpy as np

import pallas_kernels as pk
from compressjax import trees
from compressjax.runtime._pack import Packed, is_packed, unpack
from compressjax.runtime._target import target


def to_onnx(function: Callable[[Any, Any], Any], params: trees.Tree, x: Any, *, symbolic: bool = True) -> bytes:
    """``function(params, x)`` as an ONNX model, with `params` inside.

    Args:
      function: Pure; takes parameters and one array.
      params: Packed or dense parameters.
      x: The input, or a `jax.ShapeDtypeStruct` in its place.
      symbolic: Whether the first axis of `x`, of float32, is the batch and may have any size.

    Returns:
      The contents of an `.onnx` file.

    Raises:
      ImportError: Without jax2onnx.
      ValueError: If the batch is to be symbolic and `x` is not float32.

    >>> import jax.numpy as jnp
    >>> try:
    ...     size = len(to_onnx(lambda w, x: x @ w, jnp.ones((3, 2)), jnp.ones((1, 3))))
    ... except ImportError:  # the extra is not installed
    ...     size = 1
    >>> size > 0
    True
    """
    jax2onnx = _optional("jax2onnx", "onnx")
    plain = jax.tree.map(lambda node: _plain(node) if is_packed(node) else node, params, is_leaf=is_packed)
    bound = target(plain, "cpu", "xla")
    if symbolic and (x.dtype != np.float32 or not x.shape):
        raise ValueError(f"to_onnx: a batch of {x.dtype} {tuple(x.shape)} cannot be symbolic: pass symbolic=False.")
    spec: Any = ("batch", *x.shape[1:]) if symbolic else jax.ShapeDtypeStruct(x.shape, x.dtype)
    return bytes(jax2onnx.to_onnx(lambda given: function(bound, given), [spec]).SerializeToString())


def to_litert(function: Callable[[Any, Any], Any], params: trees.Tree, x: Any) -> bytes:
    """``function(params, x)`` as a LiteRT model, with dense weights inside and the batch of `x`.

    Args:
      function: Pure; takes parameters and one array.
      params: Packed or dense parameters.
      x: The input, or a `jax.ShapeDtypeStruct` in its place.

    Returns:
      The contents of a `.tflite` file.

    Raises:
      ImportError: Without TensorFlow.

    >>> import jax.numpy as jnp
    >>> try:
    ...     size = len(to_litert(lambda w, x: x @ w, jnp.ones((3, 2)), jnp.ones((1, 3))))
    ... except ImportError:  # the extra is not installed
    ...     size = 1
    >>> size > 0
    True
    """
    tensorflow = _optional("tensorflow", "litert")
    jax2tf = _optional("jax.experimental.jax2tf", "litert")
    dense = unpack(params)
    graph = tensorflow.function(
        jax2tf.convert(lambda given: function(dense, given)),
        input_signature=[tensorflow.TensorSpec(x.shape, np.dtype(x.dtype))],
        autograph=False,
    )
    converter = tensorflow.lite.TFLiteConverter.from_concrete_functions([graph.get_concrete_function()], graph)
    return bytes(converter.convert())


def _plain(leaf: Packed) -> Packed:
    """The leaf without integers narrower than ONNX's operations take."""
    weights = leaf.weights
    codes = weights.values if isinstance(weights, pk.BlockSparse) else weights
    narrow = isinstance(codes, pk.Quantized) and (codes.bits == 4 or codes.codebook is not None)
    if narrow and codes is not weights:
        return Packed(weights.dequantize(), leaf.shape)
    return Packed(pk.Dense(weights.todense()), leaf.shape) if narrow or isinstance(weights, pk.NM) else leaf


def _optional(name: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{name} is not installed: pip install 'compressjax[{extra}]'.") from error
