"""From a function to its `Layers`, by walking its jaxpr.  Nothing is compiled or run.

Bodies of jit, remat, custom derivatives and scan are walked too; a scan's body counts once per step, of a `cond` the
branch with the most MACs.  Beside each value goes its *origin*: the parameters it is made of, or None if it depends on
the inputs.  That is how a weight is told from an activation, whichever side of a product it stands on, and why
quantized, masked or merged weights keep the name of their parameter.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.core
import numpy as np

from compressjax import trees
from compressjax.cost._layers import FIELDS, Geometry, Layers
from compressjax.cost._sizes import conv_sizes, dot_sizes, geometry, valid_taps

_CONTRACTIONS = ("dot_general", "conv_general_dilated")
# Contractions whose work the jaxpr's shapes do not tell, or that this room does not know.
_UNKNOWN = ("ragged_dot_general", "ragged_dot", "scaled_dot", "ffi_call", "custom_call")
_BODIES = (
    *("jit", "pjit", "call", "closed_call", "core_call", "core_closed_call", "remat", "remat2", "checkpoint"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
)


class _Origin(NamedTuple):
    leaves: frozenset[str]
    copies: int  # elements of the stacked parameter per element of this slice: the length of the scans around it


_Origins = Sequence[_Origin | None]
_CONSTANT = _Origin(frozenset(), 1)  # made by the program out of nothing
_CLOSED_OVER = _Origin(frozenset({"closed-over array"}), 1)


def layers(f: Callable[..., Any], params: Any, *xs: Any, while_steps: int | None = None) -> Layers:
    """Lists the contractions of ``f(params, *xs)``, in program order.

    Args:
      f: Any function that JAX can trace.
      params: Its parameters, a tree of arrays, numbers or `jax.ShapeDtypeStruct`.
      *xs: Its other arguments, likewise.
      while_steps: Steps to assume for every ``while`` loop that holds a contraction; the jaxpr does not tell.

    Returns:
      The layers; dense, with the bit-widths of the traced dtypes.

    Raises:
      ValueError: If the work of an operation cannot be known: a contraction in a ``while`` loop without `while_steps`,
        or a primitive with a body or a layout that this function does not follow; or if `while_steps` is below 1.

    >>> from compressjax import zoo
    >>> model = zoo.build("lenet5")
    >>> params = jax.eval_shape(model.init, jax.random.key(0))
    >>> net = layers(model.apply, params, jax.ShapeDtypeStruct((1, 28, 28, 1), "float32"))
    >>> net.names
    ('conv1/kernel', 'conv2/kernel', 'fc1/kernel', 'fc2/kernel')
    >>> net.inputs, net.outputs, net.positions
    (array([  1.,  20., 800., 500.]), array([ 20.,  50., 500.,  10.]), array([576.,  64.,   1.,   1.]))
    """
    if while_steps is not None and while_steps < 1:
        raise ValueError(f"while_steps={while_steps} must be at least 1: it is the length of a loop.")
    closed = jax.make_jaxpr(f)(params, *xs)
    sizes = {path: int(np.prod(np.shape(leaf))) for path, leaf in trees.leaves(params).items()}
    inputs: list[_Origin | None] = [_Origin(frozenset({path}), 1) for path in sizes]
    inputs += [None] * (len(closed.jaxpr.invars) - len(inputs))
    walk = _Walk(while_steps)
    found: list[_Entry] = []
    walk.body(closed, inputs, [True] * len(closed.jaxpr.outvars), 1.0, "", found)
    return _pack(found, sizes)


class _Entry(NamedTuple):
    """One contraction before its parameters are counted."""

    origin: _Origin | None
    place: str
    kind: str
    geometry: Geometry | None
    weight_operand: int
    numbers: Mapping[str, float]

    @property
    def macs(self) -> float:
        n = self.numbers
        return n["repeats"] * n["batch"] * n["positions"] * n["window"] * n["inputs"] * n["outputs"]


def _pack(entries: list[_Entry], sizes: Mapping[str, int]) -> Layers:
    """Counts each parameter once and turns the list into arrays."""
    left = {path: float(size) for path, size in sizes.items()}
    names: list[str] = []
    stored = []
    for entry in entries:
        elements = entry.numbers["window"] * entry.numbers["inputs"] * entry.numbers["outputs"]
        leaves = entry.origin.leaves - _CLOSED_OVER.leaves if entry.origin else ()
        owners = sorted(leaves, key=lambda leaf: (-sizes[leaf], leaf))
        want = elements * entry.origin.copies if entry.origin else 0.0
        closed_over = entry.origin is not None and entry.origin.leaves == _CLOSED_OVER.leaves
        stored.append(float(entry.origin.copies) if entry.origin and closed_over else 0.0)  # is stored, too
        for leaf in owners:
            taken = min(want, left[leaf])
            left[leaf] -= taken
            want -= taken
            stored[-1] += taken / max(elements, 1.0)
        name = (owners[0] if owners else "") or entry.place
        used = sum(other == name or other.startswith(f"{name}#") for other in names)
        names.append(f"{name}#{used + 1}" if used else name)
    columns = {
        field: np.array([entry.numbers.get(field, 1.0) for entry in entries], np.float64)
        for field in FIELDS
        if field != "stored"
    }
    return Layers(
        names=tuple(names),
        kinds=tuple(entry.kind for entry in entries),
        geometry=tuple(entry.geometry for entry in entries),
        weight_operands=tuple(entry.weight_operand for entry in entries),
        stored=np.array(stored, np.float64),
        **columns,
    )


def _join(origins: _Origins) -> _Origin | None:
    """Origin of a value computed from others."""
    known = [origin for origin in origins if origin is not None]
    if len(known) < len(origins):
        return None
    return _Origin(frozenset().union(*(o.leaves for o in known)), max((o.copies for o in known), default=1))


def _literal(atom: Any) -> bool:
    return isinstance(atom, jax.extend.core.Literal)


def _open(jaxpr: Any) -> Any:
    return jaxpr.jaxpr if isinstance(jaxpr, jax.extend.core.ClosedJaxpr) else jaxpr


def _inner(eqn: Any) -> Iterator[Any]:
    """The jaxprs among an equation's parameters."""
    for value in eqn.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, (jax.extend.core.ClosedJaxpr, jax.extend.core.Jaxpr)):
                yield _open(item)


def _contracts(jaxpr: Any) -> bool:
    return any(
        eqn.primitive.name in (*_CONTRACTIONS, *_UNKNOWN) or any(_contracts(inner) for inner in _inner(eqn))
        for eqn in jaxpr.eqns
    )


def _counts_only_in_its_body(loop: Any) -> bool:
    return _contracts(_open(loop.params["body_jaxpr"])) and not _contracts(_open(loop.params["cond_jaxpr"]))


class _Walk:
    """The walk, and what is the same all along it."""

    def __init__(self, while_steps: int | None) -> None:
        self.while_steps = while_steps

    def body(
        self, closed: Any, inputs: _Origins, wanted: list[bool], repeats: float, scope: str, found: list[_Entry]
    ) -> _Origins:
        """Walks a jaxpr, appends its contractions to `found`, and returns the origins of its results.

        What only serves results that are not `wanted` is passed over, as a compiler does.
        """
        jaxpr = _open(closed)
        env: dict[Any, _Origin | None] = dict.fromkeys(jaxpr.constvars, _CLOSED_OVER)
        env.update(zip(jaxpr.invars, inputs, strict=True))

        def read(atom: Any) -> _Origin | None:
            return _CONSTANT if _literal(atom) else env.get(atom, _CONSTANT)  # absent: not wanted

        live = {atom for atom, want in zip(jaxpr.outvars, wanted, strict=True) if want and not _literal(atom)}
        kept = []
        for eqn in reversed(jaxpr.eqns):
            if eqn.effects or any(var in live for var in eqn.outvars):
                kept.append((eqn, [var in live for var in eqn.outvars]))
                live.update(atom for atom in eqn.invars if not _literal(atom))
        for eqn, asked in reversed(kept):
            # Stacks inside a body are relative to the call, so that the caller's comes first.
            place = "/".join(part for part in (scope, str(eqn.source_info.name_stack)) if part)
            results = self.equation(eqn, [read(atom) for atom in eqn.invars], asked, repeats, place, found)
            env.update(zip(eqn.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def equation(
        self, eqn: Any, inputs: _Origins, wanted: list[bool], repeats: float, place: str, found: list[_Entry]
    ) -> _Origins:
        name = eqn.primitive.name
        everywhere = [_join(inputs)] * len(eqn.outvars)
        where = "/".join(part for part in (place, name) if part)
        if name in _CONTRACTIONS:
            found.append(_entry(eqn, inputs, repeats, where))
        elif name in _BODIES:
            inner = next(eqn.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in eqn.params)
            return self.body(inner, inputs, wanted, repeats, place, found)
        elif name == "scan":
            return self.scan(eqn, inputs, repeats, place, found)
        elif name == "cond":
            return self.cond(eqn, inputs, wanted, repeats, place, found)
        elif name == "while" and _counts_only_in_its_body(eqn):
            if self.while_steps is None:
                raise ValueError(
                    f"{where} is a loop of unknown length around a contraction: pass while_steps or write a scan."
                )
            inside, constants = inputs[eqn.params["cond_nconsts"] :], eqn.params["body_nconsts"]
            carried = range(constants, len(inside))
            return self.loop(eqn.params["body_jaxpr"], inside, carried, repeats * self.while_steps, place, found)
        elif name in _UNKNOWN or any(_contracts(inner) for inner in _inner(eqn)):
            raise ValueError(
                f"{where} holds work that cannot be counted from its jaxpr: cost the function without it, or write the "
                "operation with dot_general, conv_general_dilated or scan."
            )
        return everywhere

    def scan(self, eqn: Any, inputs: _Origins, repeats: float, place: str, found: list[_Entry]) -> _Origins:
        body, length = _open(eqn.params["jaxpr"]), eqn.params["length"]
        # Told by rank, because JAX versions name the counts differently: scanned inputs lose their first axis.
        scanned = [o.aval.ndim > i.aval.ndim for o, i in zip(eqn.invars, body.invars, strict=True)]
        carries = sum(o.aval.ndim == i.aval.ndim for o, i in zip(eqn.outvars, body.outvars, strict=True))
        inside = [
            _Origin(origin.leaves, origin.copies * length) if origin is not None and over else origin
            for origin, over in zip(inputs, scanned, strict=True)
        ]
        end = len(scanned) - sum(scanned)
        return self.loop(body, inside, range(end - carries, end), repeats * length, place, found)

    def loop(
        self, body: Any, inputs: _Origins, carried: range, repeats: float, place: str, found: list[_Entry]
    ) -> _Origins:
        """Walks a body whose inputs at `carried` are its own first results of the step before."""
        now, wanted = list(inputs), [True] * len(_open(body).outvars)
        while True:  # what starts as a parameter may depend on the inputs after a step; this only grows, so it ends
            results = self.body(body, now, wanted, repeats, place, [])
            then = now[:]
            for i, result in zip(carried, results, strict=False):
                then[i] = _join([now[i], result])
            if then == now:
                return self.body(body, now, wanted, repeats, place, found)
            now = then

    def cond(
        self, eqn: Any, inputs: _Origins, wanted: list[bool], repeats: float, place: str, found: list[_Entry]
    ) -> _Origins:
        tried: list[list[_Entry]] = []
        results = []
        for branch in eqn.params["branches"]:
            tried.append([])
            results.append(self.body(branch, inputs[1:], wanted, repeats, place, tried[-1]))
        found += max(tried, key=lambda entries: sum(entry.macs for entry in entries))
        return [_join([inputs[0], *options]) for options in zip(*results, strict=True)]


def _bits(dtype: Any) -> float:
    if jax.numpy.issubdtype(dtype, jax.numpy.integer):
        return float(jax.numpy.iinfo(dtype).bits)
    if jax.numpy.issubdtype(dtype, jax.numpy.floating):
        return float(jax.numpy.finfo(dtype).bits)
    return 8.0 * np.dtype(dtype).itemsize


def _entry(eqn: Any, inputs: _Origins, repeats: float, where: str) -> _Entry:
    avals = [atom.aval for atom in eqn.invars]
    lhs, rhs = (aval.shape for aval in avals)
    weight, kind, moves = 1, "dense", None
    if eqn.primitive.name == "dot_general":
        weight = 0 if inputs[1] is None and inputs[0] is not None else 1
        numbers = dot_sizes(eqn.params, (lhs, rhs), weight)
    else:
        out = eqn.outvars[0].aval.shape
        kind, moves = "conv", geometry(eqn.params, lhs, rhs)
        numbers = conv_sizes(eqn.params, lhs, rhs, out, eqn.params["feature_group_count"])
        numbers["valid_taps"] = valid_taps(moves, [out[axis] for axis in eqn.params["dimension_numbers"].out_spec[2:]])
    numbers["repeats"] = repeats
    numbers["weight_bits"] = _bits(avals[weight].dtype)
    numbers["activation_bits"] = _bits(avals[1 - weight].dtype)
    return _Entry(inputs[weight], where, kind if inputs[weight] is not None else "product", moves, weight, numbers)
