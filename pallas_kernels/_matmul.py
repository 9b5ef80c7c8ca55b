"""The front door: ``y = activation(x @ w + bias)`` for every format, with gradients."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pallas_kernels._choose import implementation_of
from pallas_kernels._interface import Activation, Epilogue, Format, wide
from pallas_kernels._prepare import Prepared
from pallas_kernels.block_sparse import BlockSparse


@dataclass(frozen=True)
class _How:
    """Everything static about a product."""

    implementation: str
    platform: str | None
    interpret: bool
    epilogue: Epilogue
    strict: bool

    def choose(self, operation: str, x: Any, w: Format) -> Any:
        """The module that computes `operation`.

        Gradients fall back where the chosen one has no kernel, and so does what `prepare` chose for other rows.
        """
        strict = self.strict and operation == "matmul"
        return implementation_of(self.implementation, operation, x, w, self.platform, self.interpret, strict)


def matmul(
    x: Float[Array, "... K"],
    w: Format | Prepared,
    bias: Float[Array, "N"] | None = None,
    activation: Activation | None = None,
    *,
    implementation: str = "auto",
    platform: str | None = None,
    out_dtype: Any = None,
    interpret: bool = False,
) -> Float[Array, "... N"]:
    """``activation(x @ w + bias)`` with packed weights, in one kernel where there is one.

    Differentiable with respect to `x`, `bias` and the float leaves of `w`: weights outside of the pattern have no
    gradient, so that training keeps the pattern.  Sums are accumulated in float32 and rounded once.

    Args:
      x: Activations; float32, bfloat16 or float16.
      w: Packed weights, or what `prepare` made of them.
      bias: One value per output.
      activation: Elementwise function such as `jax.nn.relu`; pass the same object every time, or jit compiles anew.
      implementation: "auto", or one of `IMPLEMENTATIONS`.  Prepared weights know theirs.
      platform: "cpu", "gpu" or "tpu": what the program is for; default: JAX's default backend.
      out_dtype: Of the result; default: the dtype of `x`.
      interpret: Runs Pallas kernels in interpret mode, on any platform: slow, for tests.

    Returns:
      The product.

    Raises:
      ValueError: If shapes do not fit, or an implementation named explicitly cannot compute this product.

    Source: the operation set (DSD, SDD and transposes) is that of MegaBlocks, arXiv 2211.15841.

    >>> from pallas_kernels import BlockSparse
    >>> w = BlockSparse.from_dense(np.kron(np.eye(2), np.ones((2, 2), np.float32)), (2, 2))
    >>> matmul(jnp.arange(4.0), w, activation=jax.nn.relu).tolist()
    [1.0, 1.0, 5.0, 5.0]
    """
    strict = implementation != "auto"
    if isinstance(w, Prepared):
        if implementation == "auto":
            implementation, strict = w.implementation, w.required
        platform = platform or w.platform
        w = w.weights
    x = jnp.asarray(x)
    if x.ndim < 1 or x.shape[-1] != w.shape[0]:
        raise ValueError(f"matmul: x has shape {x.shape} and the weights are {w.shape}: the inputs do not fit.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"matmul: x has dtype {x.dtype}; the kernels multiply floats: cast it.")
    bias = None if bias is None else jnp.asarray(bias)
    if bias is not None and bias.shape != w.shape[1:]:
        raise ValueError(f"matmul: the bias has shape {bias.shape}; these weights have {w.shape[1]} outputs.")
    how = _How(implementation, platform, interpret, Epilogue(activation, jnp.dtype(out_dtype or x.dtype)), strict)
    return _matmul(how, x.reshape(-1, x.shape[-1]), w, bias).reshape(*x.shape[:-1], w.shape[1])


def matmul_transposed(
    g: Float[Array, "... N"],
    w: Format,
    *,
    implementation: str = "auto",
    platform: str | None = None,
    out_dtype: Any = None,
    interpret: bool = False,
) -> Float[Array, "... K"]:
    """``g @ w.T``: the gradient of the input; the arguments are those of `matmul`.

    >>> from pallas_kernels import BlockSparse
    >>> w = BlockSparse.from_dense(np.array([[1.0, 0.0], [0.0, 2.0]]), (1, 1))
    >>> matmul_transposed(jnp.ones(2), w).tolist()
    [1.0, 2.0]
    """
    g = jnp.asarray(g)
    if g.ndim < 1 or g.shape[-1] != w.shape[1]:
        raise ValueError(f"matmul_transposed: g has shape {g.shape} and the weights are {w.shape}: they do not fit.")
    rows = g.reshape(-1, g.shape[-1])
    chosen = implementation_of(implementation, "transposed", rows, w, platform, interpret)
    dx = chosen.transposed(rows, w, jnp.dtype(out_dtype or g.dtype), interpret=interpret)
    return dx.reshape(*g.shape[:-1], w.shape[0])


def outer(
    x: Float[Array, "... K"],
    g: Float[Array, "... N"],
    w: Format,
    *,
    implementation: str = "auto",
    platform: str | None = None,
    interpret: bool = False,
) -> Float[Array, "..."]:
    """``x.T @ g`` on the pattern of `w`: the gradient of its values, in their shape; arguments as for `matmul`.

    >>> from pallas_kernels import BlockSparse
    >>> w = BlockSparse.from_dense(np.array([[1.0, 0.0], [0.0, 2.0]]), (1, 1))
    >>> outer(jnp.array([[3.0, 4.0]]), jnp.array([[1.0, 10.0]]), w).ravel().tolist()
    [3.0, 40.0]
    """
    x, g = jnp.asarray(x), jnp.asarray(g)
    if x.shape[:-1] != g.shape[:-1] or (x.shape[-1], g.shape[-1]) != tuple(w.shape):
        raise ValueError(f"outer: x {x.shape} and g {g.shape} do not fit weights {w.shape}.")
    rows, cotangents = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
    pattern = w.dequantize()
    chosen = implementation_of(implementation, "outer", rows, pattern, platform, interpret)
    return _live(chosen.outer(rows, cotangents, pattern, interpret=interpret), pattern)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _matmul(how: _How, x: Array, w: Format, bias: Array | None) -> Array:
    return how.choose("matmul", x, w).matmul(x, w, bias, how.epilogue, interpret=how.interpret)


def _forward(how: _How, x: Array, w: Format, bias: Array | None) -> tuple[Array, Any]:
    if how.epilogue.activation is None:
        return _matmul(how, x, w, bias), (x, w, bias, None)
    # The gradient of the activation needs what it was applied to.
    linear = Epilogue(None, wide(x.dtype))
    before = how.choose("matmul", x, w).matmul(x, w, bias, linear, interpret=how.interpret)
    return how.epilogue(before, None), (x, w, bias, before)


def _backward(how: _How, residuals: Any, dy: Any) -> tuple[Array, Any, Array | None]:
    x, w, bias, before = residuals
    dy = jnp.asarray(dy)
    if before is not None:
        _, pull = jax.vjp(lambda z: how.epilogue(z, None), before)
        (dy,) = pull(dy)
    dbias = None if bias is None else dy.sum(0, dtype=jnp.promote_types(dy.dtype, jnp.float32)).astype(bias.dtype)
    dx = how.choose("transposed", dy, w).transposed(dy, w, x.dtype, interpret=how.interpret)
    return dx, _weight_gradient(how, x, dy, w), dbias


def _weight_gradient(how: _How, x: Array, dy: Array, w: Format) -> Any:
    """The cotangent of every leaf of `w`: that of its float values, pulled back to scales and codebooks."""
    leaves, structure = jax.tree.flatten(w)
    is_float = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]

    def values(floats: list[Array]) -> Array:
        rest = iter(floats)
        filled = [next(rest) if f else leaf for f, leaf in zip(is_float, leaves, strict=True)]
        return jax.tree.unflatten(structure, filled).dequantize().values

    floats = [leaf for f, leaf in zip(is_float, leaves, strict=True) if f]
    _, pull = jax.vjp(values, floats)
    pattern = w.dequantize()
    dvalues = how.choose("outer", x, pattern).outer(x, dy, pattern, interpret=how.interpret)
    cotangents = iter(pull(_live(dvalues.astype(pattern.dtype), pattern))[0])
    zero = (np.zeros(leaf.shape, jax.dtypes.float0) for leaf in leaves)
    return jax.tree.unflatten(structure, [next(cotangents) if f else z for f, z in zip(is_float, zero, strict=True)])


def _live(values: Array, w: Format) -> Array:
    """No gradient for blocks that only complete a list: zero stays zero."""
    return jnp.where(w.live[:, None, None], values, 0) if isinstance(w, BlockSparse) else values


_matmul.defvjp(_forward, _backward)
