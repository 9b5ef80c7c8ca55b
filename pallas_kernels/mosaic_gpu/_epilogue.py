"""Which activations a kernel can apply before it writes, and in what form."""

from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels._interface import Activation, Epilogue

# Primitives the compiler has for tiles in registers, on every version of JAX that is tested.
ELEMENTWISE = (
    *("abs", "add", "and", "broadcast_in_dim", "convert_element_type", "div", "eq", "erf", "exp", "exp2", "ge", "gt"),
    *("integer_pow", "le", "log", "logistic", "lt", "max", "min", "mul", "ne", "neg", "not", "or", "rsqrt"),
    *("select_n", "sign", "square", "sub", "tanh"),
)
CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr"}


def split(epilogue: Epilogue) -> tuple[Epilogue, Epilogue]:
    """What the kernel does, and what XLA does to its result.

    Args:
      epilogue: All that is asked for.

    Returns:
      The activation is in the first one if the compiler has all of its primitives; then the second does nothing.  If
      not, the kernel writes float32, so that there is one rounding.

    >>> kernel, rest = split(Epilogue(jax.nn.relu, jnp.bfloat16))
    >>> kernel.activation is not None, rest.activation is None
    (True, True)
    >>> kernel, rest = split(Epilogue(jnp.sort, jnp.bfloat16))
    >>> kernel.activation is None, rest.activation is jnp.sort
    (True, True)
    """
    activation, dtype = epilogue.activation, epilogue.out_dtype
    if activation is None:
        return epilogue, Epilogue(None, dtype)
    if _known(jax.make_jaxpr(activation)(jnp.zeros((8, 8)))):
        return Epilogue(_inlined(activation), dtype), Epilogue(None, dtype)
    return Epilogue(None, jnp.float32), epilogue


def _known(closed: Any) -> bool:
    """Whether all of it is elementwise and there are no constant arrays."""
    if getattr(closed, "consts", ()):
        return False
    for equation in getattr(closed, "jaxpr", closed).eqns:
        name = equation.primitive.name
        inner = CALLS.get(name)
        if not (_known(equation.params[inner]) if inner in equation.params else name in ELEMENTWISE):
            return False
    return True


def _inlined(activation: Activation) -> Activation:
    """The same function without calls: the kernel compiler of 0.10 does not look into functions with custom rules."""

    def apply(x: jax.Array) -> jax.Array:
        closed = jax.make_jaxpr(activation)(jax.ShapeDtypeStruct(x.shape, x.dtype))
        return _evaluate(closed.jaxpr, [x])[0]

    return apply


def _evaluate(jaxpr: Any, arguments: list[Any]) -> list[Any]:
    values = dict(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if hasattr(atom, "val") else values[atom]

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        inner = equation.params.get(CALLS.get(equation.primitive.name, ""))
        if inner is not None:
            results = _evaluate(getattr(inner, "jaxpr", inner), operands)
        else:
            results = equation.primitive.bind(*operands, **equation.params)
            results = results if equation.primitive.multiple_results else [results]
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]
