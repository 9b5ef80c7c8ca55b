"""What a traced program does, with the size of every axis as a term: the ground on which costs are counted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from compressjax.channels._program import Program, Step, Value, walk
from compressjax.channels._terms import Term


@dataclass(frozen=True)
class Operation:
    """One operation of a traced program, calls inlined.

    Multiply-adds are the product of all roles but ``groups``: of ``batch``, ``left``, ``right`` and ``contract`` for a
    `dot_general`; of ``batch``, ``space``, ``window``, ``in`` (channels per feature group) and ``out`` for a
    `conv_general_dilated`, counting padded positions and, if ``params["lhs_dilation"]`` is not 1, the zeros in between.

    Attributes:
      primitive: The primitive's name.
      path: Module path from the name stack; ``""`` for plain functions.
      trips: How often it runs per call: the product of the lengths of the scans around it.
      dynamic: Whether it lies in a while loop, so that `trips` is per iteration.
      inputs: Per operand the terms of its axes.
      outputs: Per result the terms of its axes.
      input_dtypes: Per operand its dtype.
      output_dtypes: Per result its dtype.
      sources: Per operand the path of the parameter leaf that it is, up to layout and dtype, or None.
      roles: For `dot_general` and `conv_general_dilated` the terms of their axes by role; otherwise empty.
      params: The primitive's parameters as traced.

    >>> import jax.numpy as jnp
    >>> from compressjax import channels
    >>> params = {"a": jnp.ones((4, 8)), "b": jnp.ones((8, 2))}
    >>> net = channels.trace(lambda p, x: x @ p["a"] @ p["b"], params, jnp.ones((3, 4)))
    >>> first = net.operations[0]
    >>> first.primitive, first.sources, {role: [str(t) for t in terms] for role, terms in first.roles.items()}
    ('dot_general', (None, 'a'), {'batch': [], 'left': ['3'], 'right': ['g0'], 'contract': ['4']})
    """

    primitive: str
    path: str
    trips: int
    dynamic: bool
    inputs: tuple[tuple[Term, ...], ...]
    outputs: tuple[tuple[Term, ...], ...]
    input_dtypes: tuple[Any, ...]
    output_dtypes: tuple[Any, ...]
    sources: tuple[str | None, ...]
    roles: Mapping[str, tuple[Term, ...]]
    params: Mapping[str, Any]


def operations(prog: Program, term: Callable[[Any], Term]) -> tuple[Operation, ...]:
    """All operations of a program, bodies of loops and branches after the loop or branch itself.

    Args:
      prog: A solved program, its values' terms set.
      term: Solved axis to term.
    """
    found: list[Operation] = []

    def visit(step: Step, trips: int, dynamic: bool) -> None:
        roles = _dot(step) if step.name == "dot_general" else {}
        if step.name == "conv_general_dilated" and step.params["batch_group_count"] == 1:
            count = step.params["feature_group_count"]
            roles = {**_conv(step), "groups": (term(step.groups) if step.groups.n == count else Term(count),)}
        found.append(
            Operation(
                primitive=step.name,
                path=step.path,
                trips=trips,
                dynamic=dynamic,
                inputs=_terms(step.ins),
                outputs=_terms(step.outs),
                input_dtypes=tuple(v.dtype for v in step.ins),
                output_dtypes=tuple(v.dtype for v in step.outs),
                sources=tuple(v.source for v in step.ins),
                roles=MappingProxyType(roles),
                params=MappingProxyType(dict(step.params)),
            )
        )

    walk(prog, visit)
    return tuple(found)


def _terms(values: list[Value]) -> tuple[tuple[Term, ...], ...]:
    return tuple(value.terms for value in values)


def _dot(step: Step) -> dict[str, tuple[Term, ...]]:
    contract, batch = step.params["dimension_numbers"]
    left, right = (value.terms for value in step.ins)
    return {
        "batch": tuple(left[i] for i in batch[0]),
        "left": tuple(t for i, t in enumerate(left) if i not in (*contract[0], *batch[0])),
        "right": tuple(t for i, t in enumerate(right) if i not in (*contract[1], *batch[1])),
        "contract": tuple(left[i] for i in contract[0]),
    }


def _conv(step: Step) -> dict[str, tuple[Term, ...]]:
    spec = step.params["dimension_numbers"]
    left, right, out = step.ins[0].terms, step.ins[1].terms, step.outs[0].terms
    return {
        "batch": (left[spec.lhs_spec[0]],),
        "space": tuple(out[i] for i in spec.out_spec[2:]),
        "window": tuple(right[i] for i in spec.rhs_spec[2:]),
        "in": (right[spec.rhs_spec[1]],),
        "out": (right[spec.rhs_spec[0]],),
    }
