r"""The published semantics on raw feature matrices, slowly and exactly: the oracle of the fast programs.

A raw expression is a nested tuple ``(operator, operand, ...)`` of names and numbers.  Its operands are, per channel and
class:

    P  Q       rows of the class, and of the rest (samples x positions)
    X          all rows
    mP mQ mX   their means over samples, vectors
    N          number of classes
    WI  W      the channel's own weights, and those of all channels (channels x weights)

Operators forgive shapes: of two arrays the longer last axis is cut to the shorter, numbers broadcast, trace and inverse
of a number are the number and its reciprocal, and of a vector they take its first entry.  The inverse is a
pseudo-inverse with 1e-4 added to the diagonal; "medoid" is the row with the smallest summed distance to the others.
Nothing is protected.  The score is the sum over classes of the expression, and of its entries if it is a vector.

Source: Liu, Kung, Wentzlaff, GECCO 2022 (arXiv 2110.10876), and its released operators.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

Raw = Any  # ("add", "P", 1.0): operator and operands; or a name; or a number

RIDGE = 1e-4


def _cut(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Both operands on the shorter last axis."""

    def wrapped(a: Any, b: Any) -> Any:
        if np.ndim(a) and np.ndim(b):
            size = min(np.shape(a)[-1], np.shape(b)[-1])
            a, b = a[..., :size], b[..., :size]
        return function(a, b)

    return wrapped


def _product(a: Any, b: Any) -> Any:
    if not np.ndim(a) or not np.ndim(b):
        return a * b
    size = min(np.shape(a)[-1], np.shape(b)[0])
    return a[..., :size] @ b[:size]


def _square_of(a: Any) -> Any:
    size = min(a.shape)
    return a[:size, :size]


def _trace(a: Any) -> Any:
    if np.ndim(a) < 2:
        return a if not np.ndim(a) else a[0]
    return np.trace(a)


def _inverse(a: Any) -> Any:
    if np.ndim(a) < 2:
        return 1 / (a if not np.ndim(a) else a[0])
    a = _square_of(a)
    return np.linalg.pinv(a + RIDGE * np.eye(len(a)))


def _medoid(a: Any) -> Any:
    apart = np.linalg.norm(a[:, None] - a[None], axis=-1)
    return a[np.argmin(apart.sum(axis=1))]


OPERATORS: dict[str, Callable[..., Any]] = {
    "add": _cut(np.add),
    "sub": _cut(np.subtract),
    "mul": _cut(np.multiply),
    "div": _cut(np.divide),
    "matmul": _product,
    "outer": lambda a, b: np.outer(a, b),
    "transpose": np.transpose,
    "trace": _trace,
    "pinv": _inverse,
    "abs": np.abs,
    "square": np.square,
    "sqrt": np.sqrt,
    "mean": np.mean,
    "rowmean": lambda a: np.mean(a, axis=0),
    "sum": np.sum,
    "std": np.std,
    "var": np.var,
    "rows": lambda a: float(len(a)) if np.ndim(a) else 1.0,
    "eps": lambda a: a + 1e-4,
    "ridge": lambda a: a + 0.05,
    "medoid": _medoid,
}

_GAP = ("sub", ("mean", "P"), ("mean", "Q"))
_VP, _VQ = ("var", "P"), ("var", "Q")
_BOTH = ("ridge", ("add", _VP, _VQ))
_ERROR = ("eps", ("add", ("div", _VP, ("rows", "P")), ("div", _VQ, ("rows", "Q"))))
_RATIOS = ("add", ("div", _VP, ("ridge", _VQ)), ("div", _VQ, ("ridge", _VP)))
_SP, _SQ = ("std", "P"), ("std", "Q")
_SPREADS = ("add", ("div", _SP, ("add", _SQ, 0.2)), ("div", _SQ, ("add", _SP, 0.2)))


def _norm(x: Raw) -> Raw:
    return ("sum", ("square", x))


# The formulas of `_known` over raw matrices.
RAW: dict[str, Raw] = {
    "abs_snr": ("div", ("abs", _GAP), ("eps", ("add", _SP, _SQ))),
    "fdr": ("div", ("square", _GAP), ("eps", ("add", _VP, _VQ))),
    "sym_div": ("add", _RATIOS, ("div", ("square", _GAP), _BOTH)),
    "two_t": ("div", ("abs", _GAP), ("sqrt", _ERROR)),
    "l1": ("sum", ("abs", "WI")),
    "l2": ("sqrt", ("sum", ("square", "WI"))),
    "medoid": ("sqrt", _norm(("sub", "WI", ("medoid", "W")))),
    "f1": ("sum", ("add", _VP, ("div", ("square", ("sub", _VQ, "mX")), _BOTH))),
    "f2": (
        "sum",
        (
            "add",
            _RATIOS,
            (
                "div",
                (
                    "square",
                    ("sub", ("add", ("mul", ("mul", ("std", "mX"), _VQ), "mX"), _VP), ("mean", "Q")),
                ),
                _BOTH,
            ),
        ),
    ),
    "f3": ("sum", ("div", ("square", ("sub", "mX", _VQ)), ("sqrt", _ERROR))),
    "f4": (
        "sum",
        ("add", ("add", ("div", _VP, ("ridge", ("div", _VQ, ("rows", "Q")))), ("ridge", ("abs", _GAP))), "mQ"),
    ),
    "inspired1": (
        "add",
        _SPREADS,
        (
            "div",
            ("add", _norm(("sub", "mX", "mP")), _norm(("sub", "mX", "mQ"))),
            ("add", ("add", _SP, _SQ), 0.2),
        ),
    ),
    "inspired2": ("div", _norm(("sub", "mX", "mQ")), _BOTH),
}


def oracle(
    raw: Raw,
    features: Float[Any, "samples channels positions"],
    labels: Int[Any, " samples"],
    weights: Float[Any, "channels weights"],
) -> Float[np.ndarray, " channels"]:
    """Scores of all channels by one raw expression, in float64.

    Args:
      raw: Nested tuples.
      features: A layer's feature maps.
      labels: Classes; those that occur count.
      weights: One row per channel.

    Returns:
      float64.

    Raises:
      ValueError: If the expression names what is not there.

    >>> features, labels = np.array([[[1.0]], [[3.0]]]), np.array([0, 1])
    >>> oracle(("abs", ("sub", ("mean", "P"), ("mean", "Q"))), features, labels, np.ones((1, 1)))
    array([4.])
    """
    features, weights = np.asarray(features, np.float64), np.asarray(weights, np.float64)
    classes = np.unique(labels)
    out = np.zeros(features.shape[1])
    for channel in range(features.shape[1]):
        rows = features[:, channel]
        for number in classes:
            own, rest = rows[labels == number], rows[labels != number]
            operands = {
                "P": own,
                "Q": rest,
                "X": rows,
                "mP": own.mean(axis=0),
                "mQ": rest.mean(axis=0),
                "mX": rows.mean(axis=0),
                "N": float(len(classes)),
                "WI": weights[channel],
                "W": weights,
            }
            out[channel] += np.sum(_value(raw, operands))
    return out


def _value(raw: Raw, operands: dict[str, Any]) -> Any:
    if isinstance(raw, str):
        if raw not in operands:
            raise ValueError(f"There is no operand {raw!r}; there are {', '.join(operands)}.")
        return operands[raw]
    if not isinstance(raw, tuple):
        return raw
    if raw[0] not in OPERATORS:
        raise ValueError(f"There is no operator {raw[0]!r}; there are {', '.join(OPERATORS)}.")
    return OPERATORS[raw[0]](*(_value(part, operands) for part in raw[1:]))
