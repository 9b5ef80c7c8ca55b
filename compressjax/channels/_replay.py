"""The shrunk function without a rebuilt module: the traced program, replayed with smaller sizes.

Only a dozen primitives carry sizes in their parameters; everything else runs on smaller arrays as it is.  Literals stay
as traced (a mean still divides by the old width), so that the replay of shrunk parameters equals the traced function of
masked ones to rounding.  Constants, index vectors and random numbers are made at full size, then their removed
positions are dropped.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from compressjax.channels._program import Program, Step, Value, scan_counts, while_counts
from compressjax.channels._rules_shape import gather_axes
from compressjax.channels._terms import Term

# Made at full size whatever is removed, and cut afterwards.
MADE_WHOLE = frozenset({"iota", "random_bits"})


class Sizes:
    """What a keep set makes of axes and of parameters."""

    def __init__(self, keep: Mapping[str, np.ndarray]) -> None:
        self._keep = keep
        self._masks: dict[int, np.ndarray] = {}
        self._terms: list[Term] = []  # keeps the ids alive

    def mask(self, term: Term) -> np.ndarray:
        """Which positions stay."""
        mask = self._masks.get(id(term))
        if mask is None:
            mask = self._masks[id(term)] = term.mask(self._keep)
            self._terms.append(term)
        return mask

    def count(self, term: Term) -> int:
        """How many positions stay."""
        return int(self.mask(term).sum())

    def shape(self, value: Value) -> tuple[int, ...]:
        """The shape that is left."""
        return tuple(self.count(term) for term in value.terms)

    def take(self, value: Value, array: Any) -> Any:
        """The kept part of an array made at full size; NumPy stays NumPy."""
        for axis, term in enumerate(value.terms):
            mask = self.mask(term)
            if not mask.all():
                kept = np.flatnonzero(mask)
                array = array.take(kept, axis) if isinstance(array, np.ndarray) else jnp.take(array, kept, axis)
        return array

    def params(self, step: Step) -> dict[str, Any]:
        """The parameters of a step at the sizes that are left."""
        patch = _PATCHES.get(step.name)
        return {**step.params, **patch(self, step)} if patch else dict(step.params)

    def operands(self, step: Step, args: list[Any]) -> list[Any]:
        """What a step reads: a hook for replays that change it (`_masked_replay`)."""
        return args


def _slice_params(sizes: Sizes, step: Step) -> dict[str, Any]:
    p = step.params
    strides = p["strides"] or (1,) * len(step.ins[0].shape)
    starts, stops = [], []
    for i, term in enumerate(step.ins[0].terms):
        mask, start, stop = sizes.mask(term), p["start_indices"][i], p["limit_indices"][i]
        if strides[i] != 1 and step.outs[0].shape[i] != 1:
            starts.append(start)  # whole blocks come and go, so that the place within a block stays
            stops.append(stop if mask.all() else len(mask[mask]))
        else:
            starts.append(int(mask[:start].sum()))
            stops.append(int(mask[:stop].sum()) if strides[i] == 1 else int(mask[: start + 1].sum()))
    return {"start_indices": tuple(starts), "limit_indices": tuple(stops)}


def _pad_params(sizes: Sizes, step: Step) -> dict[str, Any]:
    config = []
    for term, (low, high, interior) in zip(step.outs[0].terms, step.params["padding_config"], strict=True):
        mask = sizes.mask(term)
        if not mask.all():
            low, high = int(mask[:low].sum()), int(mask[len(mask) - high :].sum())
        config.append((low, high, interior))
    return {"padding_config": tuple(config)}


def _split_params(sizes: Sizes, step: Step) -> dict[str, Any]:
    axis = step.params["axis"]
    return {"sizes": tuple(sizes.count(value.terms[axis]) for value in step.outs)}


def _conv_params(sizes: Sizes, step: Step) -> dict[str, Any]:
    groups, spec = step.params["feature_group_count"], step.params["dimension_numbers"]
    if groups == 1:
        return {}
    channels = sizes.count(step.ins[0].terms[spec.lhs_spec[1]])
    return {"feature_group_count": channels // sizes.count(step.ins[1].terms[spec.rhs_spec[1]])}


def _slice_sizes(sizes: Sizes, step: Step) -> dict[str, Any]:
    given, shape = step.params["slice_sizes"], step.ins[0].shape
    kept = sizes.shape(step.ins[0])
    return {"slice_sizes": tuple(k if g == n else g for g, n, k in zip(given, shape, kept, strict=True))}


def _gather_params(sizes: Sizes, step: Step) -> dict[str, Any]:
    placed = gather_axes(step)
    given, kept = step.params["slice_sizes"], _slice_sizes(sizes, step)["slice_sizes"]
    return {"slice_sizes": tuple(k if i in placed else g for i, (g, k) in enumerate(zip(given, kept, strict=True)))}


def _tile_params(sizes: Sizes, step: Step) -> dict[str, Any]:
    before, after = sizes.shape(step.ins[0]), sizes.shape(step.outs[0])
    return {"reps": tuple(b // a for a, b in zip(before, after, strict=True))}


_PATCHES: Mapping[str, Callable[[Sizes, Step], dict[str, Any]]] = {
    "broadcast_in_dim": lambda sizes, step: {"shape": sizes.shape(step.outs[0])},
    "reshape": lambda sizes, step: {"new_sizes": sizes.shape(step.outs[0])},
    "slice": _slice_params,
    "pad": _pad_params,
    "split": _split_params,
    "conv_general_dilated": _conv_params,
    "dynamic_slice": _slice_sizes,
    "gather": _gather_params,
    "tile": _tile_params,
}


def run(prog: Program, sizes: Sizes, args: Sequence[Any]) -> list[Any]:
    """Runs a program on arrays of the sizes that are left."""
    known: dict[int, Any] = dict(zip(map(id, prog.ins), args, strict=True))

    def read(value: Value) -> Any:
        if id(value) in known:
            return known[id(value)]
        known[id(value)] = sizes.take(value, value.const)
        return known[id(value)]

    for step in prog.steps:
        outs = _apply(step, sizes, [read(value) for value in step.ins])
        for value, out in zip(step.outs, outs, strict=True):
            known[id(value)] = out
    return [read(value) for value in prog.outs]


def _apply(step: Step, sizes: Sizes, args: list[Any]) -> Sequence[Any]:
    if step.bodies:
        return _LOOPS[step.name](step, sizes, args)
    args = sizes.operands(step, args)
    with jax.named_scope(step.path or step.name):
        out = step.primitive.bind(*args, **sizes.params(step))
    outs = out if step.primitive.multiple_results else [out]
    if step.name in MADE_WHOLE:
        outs = [sizes.take(value, array) for value, array in zip(step.outs, outs, strict=True)]
    return outs


def _scan(step: Step, sizes: Sizes, args: list[Any]) -> Sequence[Any]:
    consts, carried = scan_counts(step)
    p = step.params

    def body(carry: Any, xs: Any) -> tuple[Any, Any]:
        outs = run(step.bodies[0], sizes, [*args[:consts], *carry, *xs])
        return outs[:carried], outs[carried:]

    start, scanned = args[consts : consts + carried], args[consts + carried :]
    carry, ys = jax.lax.scan(body, start, scanned, p["length"], p["reverse"], p.get("unroll", 1))
    return [*carry, *ys]


def _while(step: Step, sizes: Sizes, args: list[Any]) -> Sequence[Any]:
    tests, consts, _ = while_counts(step)
    condition, body = step.bodies
    return jax.lax.while_loop(
        lambda carry: run(condition, sizes, [*args[:tests], *carry])[0],
        lambda carry: run(body, sizes, [*args[tests : tests + consts], *carry]),
        args[tests + consts :],
    )


def _cond(step: Step, sizes: Sizes, args: list[Any]) -> Sequence[Any]:
    branches = [lambda *operands, branch=branch: run(branch, sizes, operands) for branch in step.bodies]
    return jax.lax.switch(jnp.asarray(args[0], jnp.int32), branches, *args[1:])


_LOOPS: Mapping[str, Callable[[Step, Sizes, list[Any]], Sequence[Any]]] = {
    "scan": _scan,
    "while": _while,
    "cond": _cond,
}
