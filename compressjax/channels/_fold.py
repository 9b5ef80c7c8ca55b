"""Elementwise primitives on single known numbers, for pass 2: in NumPy, so that nothing is compiled.

A number is known or not (None).  What is unknown is taken to be finite: 0 times anything is 0, and 0 over anything is
0, of either sign; what depends on the sign is not known.  Where a masked channel would become infinite or nan, masking
is no reference, and `Undefined` is raised.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from compressjax.channels._program import Step

Number = float | int | bool | complex | None


class Undefined(Exception):
    """A masked channel becomes infinite or nan; the message is a clause."""


_SAME = ("convert_element_type", "copy", "copy_p", "name", "stop_gradient", "reduce_precision")
_FUNCTIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        **dict.fromkeys(_SAME, lambda x: x),
        **{name: getattr(np, name) for name in ("abs", "sign", "floor", "ceil", "sqrt", "cbrt")},
        **{name: getattr(np, name) for name in ("exp", "exp2", "expm1", "log", "log1p", "log2")},
        **{name: getattr(np, name) for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh", "square")},
        **{f"a{name}": getattr(np, f"arc{name}") for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh", "tan2")},
        "conj": np.conj,
        "real": np.real,
        "imag": np.imag,
        "complex": lambda x, y: x + 1j * y,
        "neg": np.negative,
        "logistic": lambda x: 1 / (1 + np.exp(-x)),
        "rsqrt": lambda x: 1 / np.sqrt(x),
        "erf": lambda x: math.erf(float(x)),
        "erfc": lambda x: math.erfc(float(x)),
        "erf_inv": lambda x: x if x == 0 else None,
        "round": lambda x: x if x == round(x) else None,
        "is_finite": np.isfinite,
        "one_minus_square": lambda x: 1 - x * x,
        "add": np.add,
        "add_any": np.add,
        "sub": np.subtract,
        "mul": np.multiply,
        "div": np.divide,
        "rem": np.fmod,
        "max": np.maximum,
        "min": np.minimum,
        "pow": np.power,
        "integer_pow": lambda x, y: np.power(x, float(y)),
        "eq": np.equal,
        "ne": np.not_equal,
        "lt": np.less,
        "le": np.less_equal,
        "gt": np.greater,
        "ge": np.greater_equal,
        "clamp": lambda low, x, high: np.clip(x, low, high),
    }
)
_LOGIC: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor, "not": np.logical_not}
)
# A zero of unknown sign makes these infinite, also of unknown sign.
_POLES = frozenset({"div", "pow", "integer_pow"})
# With an infinite operand beside an unknown one, these still give something finite or infinite as they should.
_ORDER = frozenset({"max", "min", "eq", "ne", "lt", "le", "gt", "ge", "clamp"})


def uniform(const: Any) -> Number:
    """The number that fills a constant, if it is one."""
    if isinstance(const, jax.core.Tracer) or not hasattr(const, "dtype"):
        return None
    if not (jax.dtypes.issubdtype(const.dtype, np.number) or jax.dtypes.issubdtype(const.dtype, np.bool_)):
        return None
    array = np.asarray(const)
    return array.flat[0].item() if array.size and (array == array.flat[0]).all() else None


def agreed(numbers: Sequence[Number]) -> Number:
    """The one number that all are, if they are."""
    first = numbers[0]
    return first if first is not None and all(n is not None and n == first for n in numbers[1:]) else None


def finite(number: Number) -> bool:
    """Whether a number may be multiplied by 0 without harm; an unknown one may."""
    return number is None or bool(np.isfinite(number))


def fold(step: Step, numbers: Sequence[Number]) -> Number:
    """What an elementwise step makes of known and unknown numbers.

    Raises:
      Undefined: If the result is nan, or infinite times or over something unknown.
    """
    name = step.name
    if name == "select_n":
        which, *cases = numbers
        return agreed(cases) if which is None else cases[int(np.real(which))]
    if any(n is None for n in numbers):
        return _partly(name, numbers)
    dtype = step.outs[0].dtype
    integer = jax.dtypes.issubdtype(dtype, np.integer)
    boolean = jax.dtypes.issubdtype(step.ins[0].dtype, np.bool_)
    function = _FUNCTIONS.get(name) or (_LOGIC.get(name) if boolean else None)
    if function is None or (integer and name in ("div", "rem", "pow", "integer_pow")):
        return None
    if name == "atan2" and all(n == 0 for n in numbers):  # 0 or pi, by signs
        return None
    with np.errstate(all="ignore"):
        value = function(*(np.asarray(n) for n in numbers), *([step.params["y"]] if name == "integer_pow" else []))
        if value is None:
            return None
        result = np.asarray(value).astype(dtype)
    if not integer and np.isnan(result):
        raise Undefined("makes a masked channel nan")
    if name in _POLES and not integer and np.isinf(result) and 0 in numbers:
        raise Undefined("divides by a masked channel, which is 0")
    return result.item()


def _partly(name: str, numbers: Sequence[Number]) -> Number:
    """Results that do not depend on what is unknown."""
    if name in _ORDER:
        return None
    if not all(finite(n) for n in numbers):
        raise Undefined("makes a masked channel infinite")
    zero = [n is not None and n == 0 for n in numbers]
    if name == "div" and zero[1]:
        raise Undefined("divides by a masked channel, which is 0")
    if (name in ("mul", "and") and any(zero)) or (name == "div" and zero[0]):
        return numbers[zero.index(True)]
    return None
