"""Pass 1: the equations between axes that each primitive stands for.

A rule takes a step and the axes of its operands and returns the axes of its results.  What has no rule keeps all its
axes whole: nothing is guessed from shapes.
"""

from collections.abc import Callable
from typing import Any

from jax import dtypes
from jax import numpy as jnp

from compressjax.channels import _rules_shape
from compressjax.channels._dims import ONE, Conflict, Dim, divide, freeze, new, note, same
from compressjax.channels._program import Program, Reason, Step, Value, scan_counts, while_counts

Axes = list[Dim]
Rule = Callable[[Step, list[Axes]], list[Axes]]

# Elementwise in every operand and result; operands may be scalars or have axes of size 1.
_NAMES = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp clz complex conj
    convert_element_type copy copy_p cos cosh digamma div eq eq_to erf erf_inv erfc exp exp2 expm1 floor ge gt igamma
    igamma_grad_a igammac imag integer_pow is_finite le le_to lgamma log log1p log2 logistic lt lt_to max min mul mulhi
    name ne neg nextafter not one_minus_square or polygamma population_count pow random_gamma_grad real reduce_precision
    regularized_incomplete_beta rem round rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sign sin
    sinh sqrt square stop_gradient sub tan tanh xor zeta
"""
ELEMENTWISE = frozenset(_NAMES.split())
# One result per operand, each with its operand's axes.
IDENTITIES = frozenset({"device_put", "optimization_barrier", "sharding_constraint", "pvary", "pcast", "reshard"})
# Besides elementwise ones, what may meet axes of size 0, as in `jax.lax.associative_scan`.
_EMPTY = frozenset({"slice", "concatenate", "pad"})
# Where a step hands on the data of one operand, so that a parameter leaf can be recognized behind it.
_LAYOUT = frozenset(
    {"convert_element_type", "copy", "transpose", "reshape", "squeeze", "broadcast_in_dim", "name", "reduce_precision"}
    | IDENTITIES
)


def axes_of(value: Value) -> Axes:
    """The axes of a value; those of a constant are unknowns of its own."""
    if len(value.dims) != len(value.shape):
        value.dims = [new(n, note="closed-over constant") for n in value.shape]
    return value.dims


def solve(prog: Program) -> None:
    """Lays down the equations of all steps; the axes of ``prog.ins`` are given."""
    for step in prog.steps:
        ins = [axes_of(value) for value in step.ins]
        try:
            empty = any(0 in value.shape for value in (*step.ins, *step.outs))
            if empty and step.name not in ELEMENTWISE and step.name not in _EMPTY:
                raise Conflict("has an axis of size 0")
            outs = _RULES.get(step.name, _unknown)(step, ins)
        except Conflict as conflict:
            outs = _whole(step, ins, f"cannot be followed: {conflict}")
        for value, dims in zip(step.outs, outs, strict=True):
            value.dims = dims
        if step.name in _LAYOUT:
            for value, operand in zip(step.outs, step.ins, strict=False):
                value.source = operand.source


def _whole(step: Step, ins: list[Axes], text: str) -> list[Axes]:
    """Keeps every axis of a step whole."""
    why = Reason(text, step)
    for d in (d for axes in ins for d in axes):
        freeze(d, why)
    return [[new(n, frozen=why) for n in value.shape] for value in step.outs]


def _unknown(step: Step, ins: list[Axes]) -> list[Axes]:
    return _whole(step, ins, f"is not followed: there is no rule for {step.name}")


def _elementwise(step: Step, ins: list[Axes]) -> list[Axes]:
    shape = step.outs[0].shape
    out: Axes = [ONE] * len(shape)
    for axes in ins:
        for i, d in enumerate(axes):  # scalars have no axes
            if d.n != shape[i]:
                continue
            if out[i] is ONE:
                out[i] = d
            elif d.n > 1:
                same(out[i], d, Reason("joins two axes that are put together differently", step))
    return [out for _ in step.outs]


def _identity(step: Step, ins: list[Axes]) -> list[Axes]:
    return [list(axes) for axes in ins]


def _bitcast(step: Step, ins: list[Axes]) -> list[Axes]:
    if step.ins[0].shape != step.outs[0].shape:
        return _whole(step, ins, "changes the number of elements")
    return [ins[0]]


def _dot_general(step: Step, ins: list[Axes]) -> list[Axes]:
    (contract, batch) = step.params["dimension_numbers"]
    left, right = ins
    why = Reason("joins two axes that are put together differently", step)
    for pairs in (contract, batch):
        for i, j in zip(*pairs, strict=True):
            same(left[i], right[j], why)
    out = [left[i] for i in batch[0]]
    for axes, taken in ((left, (*contract[0], *batch[0])), (right, (*contract[1], *batch[1]))):
        out += [d for i, d in enumerate(axes) if i not in taken]
    return [out]


def _conv(step: Step, ins: list[Axes]) -> list[Axes]:
    p = step.params
    if p["batch_group_count"] != 1:
        return _whole(step, ins, "is not followed: it has batch groups")
    spec = p["dimension_numbers"]
    left, right = ins
    why = Reason("joins two axes that are put together differently", step)
    out: Axes = [ONE] * len(left)
    out[spec.out_spec[0]] = left[spec.lhs_spec[0]]
    out[spec.out_spec[1]] = right[spec.rhs_spec[0]]
    outer, inner = divide(left[spec.lhs_spec[1]], p["feature_group_count"])
    step.groups = outer
    same(inner, right[spec.rhs_spec[1]], why)
    if outer is not ONE:
        same(outer, divide(right[spec.rhs_spec[0]], p["feature_group_count"])[0], why)
    slides = Reason("slides a window over this axis", step)
    for k, (i, j, o) in enumerate(zip(spec.lhs_spec[2:], spec.rhs_spec[2:], spec.out_spec[2:], strict=True)):
        pointwise = step.ins[1].shape[j] == p["window_strides"][k] == p["lhs_dilation"][k] == 1 and p["padding"][k] == (
            0,
            0,
        )
        if pointwise:
            out[o] = left[i]
        else:
            freeze(left[i], slides)
            freeze(right[j], slides)
            out[o] = new(step.outs[0].shape[o], frozen=slides)
    return [out]


def _reduce_sum(step: Step, ins: list[Axes]) -> list[Axes]:
    taken = set(step.params["axes"])
    return [[d for i, d in enumerate(ins[0]) if i not in taken]]


def _reduce(step: Step, ins: list[Axes]) -> list[Axes]:
    """Reductions in which a removed channel would matter whatever it holds: the axis stays whole."""
    taken = set(step.params["axes"] if "axes" in step.params else step.params["dimensions"])
    for axes in ins:
        for i in taken & set(range(len(axes))):
            freeze(axes[i], Reason("runs over this axis", step))
    return [[d for i, d in enumerate(ins[0]) if i not in taken] for _ in step.outs]


def _along(step: Step, ins: list[Axes]) -> list[Axes]:
    """Cumulative sums, sorting, flipping: same shape, but positions along some axes mix or move."""
    p = step.params
    taken = p["dimensions"] if "dimensions" in p else [p["axis"] if "axis" in p else p["dimension"]]
    out = _elementwise(step, ins)[0]
    for i in taken:
        freeze(out[i], Reason("runs over this axis", step))
    return [out for _ in step.outs]


def _top_k(step: Step, ins: list[Axes]) -> list[Axes]:
    axis = step.params.get("axis", -1) % len(ins[0])
    why = Reason("runs over this axis", step)
    freeze(ins[0][axis], why)
    out = list(ins[0])
    out[axis] = new(step.outs[0].shape[axis], frozen=why)
    return [out for _ in step.outs]


def _iota(step: Step, ins: list[Axes]) -> list[Axes]:
    out = [new(n) for n in step.outs[0].shape]
    note(out[step.params["dimension"]], "index-dependent constant")
    return [out]


def _random_bits(step: Step, ins: list[Axes]) -> list[Axes]:
    keys = step.ins[0].shape
    drawn = step.outs[0].shape[len(keys) :]
    return [[*ins[0], *(new(n, note="random numbers") for n in drawn)]]


def _scan(step: Step, ins: list[Axes]) -> list[Axes]:
    body = step.bodies[0]
    consts, carried = scan_counts(step)
    whole = consts + carried
    why = Reason("runs over this axis", step)
    for axes in ins[whole:]:
        freeze(axes[0], why)
    for value, axes in zip(body.ins, [*ins[:whole], *(axes[1:] for axes in ins[whole:])], strict=True):
        value.dims = list(axes)
    for value, operand in zip(body.ins, step.ins, strict=True):
        value.source = operand.source
    solve(body)
    for before, after in zip(ins[consts:whole], body.outs[:carried], strict=True):
        _join(before, axes_of(after), Reason("carries this axis from one turn to the next", step))
    return [*ins[consts:whole], *([new(step.params["length"], frozen=why), *axes_of(v)] for v in body.outs[carried:])]


def _while(step: Step, ins: list[Axes]) -> list[Axes]:
    condition, body = step.bodies
    tests, consts, _ = while_counts(step)
    carry = ins[tests + consts :]
    for inner, given in ((condition, [*ins[:tests], *carry]), (body, [*ins[tests : tests + consts], *carry])):
        for value, axes in zip(inner.ins, given, strict=True):
            value.dims = list(axes)
        solve(inner)
    for before, after in zip(carry, body.outs, strict=True):
        _join(before, axes_of(after), Reason("carries this axis from one turn to the next", step))
    return carry


def _cond(step: Step, ins: list[Axes]) -> list[Axes]:
    outs: list[Axes] = []
    for branch in step.bodies:
        for value, axes in zip(branch.ins, ins[1:], strict=True):
            value.dims = list(axes)
        solve(branch)
        given = [axes_of(value) for value in branch.outs]
        for a, b in zip(outs, given, strict=False):
            _join(a, b, Reason("chooses between differently made axes", step))
        outs = outs or given
    return outs


def _join(a: Axes, b: Axes, why: Any) -> None:
    for x, y in zip(a, b, strict=True):
        same(x, y, why)


def is_float(dtype: Any) -> bool:
    """Whether masking can write a zero into arrays of this dtype: floats and complex numbers, no codes or keys."""
    return bool(dtypes.issubdtype(dtype, jnp.inexact))


_RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(IDENTITIES, _identity),
    **dict.fromkeys(
        (*(f"reduce_{name}" for name in ("max", "min", "prod", "and", "or", "xor")), "argmax", "argmin"), _reduce
    ),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "sort", "rev"), _along),
    **_rules_shape.RULES,
    "bitcast_convert_type": _bitcast,
    "dot_general": _dot_general,
    "conv_general_dilated": _conv,
    "reduce_sum": _reduce_sum,
    "top_k": _top_k,
    "iota": _iota,
    "random_bits": _random_bits,
    "scan": _scan,
    "while": _while,
    "cond": _cond,
}
