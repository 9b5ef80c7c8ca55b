"""Pass 1 for the primitives that carry sizes or move data: reshape, slice, pad, concatenate, gather, windows, ...

The rules are those of `_rules`: axes of the operands in, axes of the results out.
"""

from collections.abc import Callable

from compressjax.channels._dims import ONE, Dim, cut, divide, dsum, freeze, new, prod, same
from compressjax.channels._program import Reason, Step

Axes = list[Dim]


def blocks(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """The shortest runs of axes that a reshape turns into each other, without axes of size 1.

    >>> blocks((2, 3, 4, 1), (6, 2, 2))
    [([0, 1], [0]), ([2], [1, 2])]
    """
    left, right = ([i for i, n in enumerate(shape) if n != 1] for shape in (before, after))
    out = []
    while left and right:
        i, j = [left.pop(0)], [right.pop(0)]
        m, n = before[i[0]], after[j[0]]
        while m != n:
            if m < n:
                i.append(left.pop(0))
                m *= before[i[-1]]
            else:
                j.append(right.pop(0))
                n *= after[j[-1]]
        out.append((i, j))
    return out


def _reshape(step: Step, ins: list[Axes]) -> list[Axes]:
    if step.params.get("dimensions") is not None:
        why = Reason("reshapes in another order", step)
        for d in ins[0]:
            freeze(d, why)
        return [[new(n, frozen=why) for n in step.outs[0].shape]]
    shape = step.outs[0].shape
    out: Axes = [ONE] * len(shape)
    for left, right in blocks(step.ins[0].shape, shape):
        if len(right) == 1:
            out[right[0]] = prod(ins[0][i] for i in left)
            continue
        for j in right:
            out[j] = new(shape[j])
        same(prod(ins[0][i] for i in left), prod(out[j] for j in right), Reason("regroups this axis unevenly", step))
    return [out]


def _broadcast_in_dim(step: Step, ins: list[Axes]) -> list[Axes]:
    shape, where = step.outs[0].shape, step.params["broadcast_dimensions"]
    source = {j: d for j, d in zip(where, ins[0], strict=True) if d.n == shape[j]}
    return [[source[j] if j in source else new(n) for j, n in enumerate(shape)]]


def _transpose(step: Step, ins: list[Axes]) -> list[Axes]:
    return [[ins[0][i] for i in step.params["permutation"]]]


def _squeeze(step: Step, ins: list[Axes]) -> list[Axes]:
    gone = {i % len(ins[0]) for i in step.params["dimensions"]}
    return [[d for i, d in enumerate(ins[0]) if i not in gone]]


def _concatenate(step: Step, ins: list[Axes]) -> list[Axes]:
    axis = step.params["dimension"]
    why = Reason("joins two axes that are put together differently", step)
    for axes in ins[1:]:
        for i, (a, b) in enumerate(zip(ins[0], axes, strict=True)):
            if i != axis:
                same(a, b, why)
    out = list(ins[0])
    out[axis] = dsum([axes[axis] for axes in ins])
    return [out]


def _stack(step: Step, ins: list[Axes]) -> list[Axes]:
    why = Reason("joins two axes that are put together differently", step)
    for axes in ins[1:]:
        for a, b in zip(ins[0], axes, strict=True):
            same(a, b, why)
    out = list(ins[0])
    out.insert(step.params["axis"], dsum([ONE] * len(ins)))
    return [out]


def _unstack(step: Step, ins: list[Axes]) -> list[Axes]:
    axis = step.params["axis"]
    freeze(ins[0][axis], Reason("takes this axis apart", step))
    return [ins[0][:axis] + ins[0][axis + 1 :] for _ in step.outs]


def between(d: Dim, start: int, stop: int) -> Dim:
    """The positions from `start` to `stop` of an axis."""
    if stop < d.n:
        d = cut(d, stop)[0]
    return cut(d, start)[1] if start > 0 else d


def _split(step: Step, ins: list[Axes]) -> list[Axes]:
    axis, start, outs = step.params["axis"], 0, []
    for size in step.params["sizes"]:
        out = list(ins[0])
        out[axis] = between(ins[0][axis], start, start + size)
        outs.append(out)
        start += size
    return outs


def _slice(step: Step, ins: list[Axes]) -> list[Axes]:
    p = step.params
    strides = p["strides"] or (1,) * len(ins[0])
    out: Axes = []
    for i, (d, start, stop, stride) in enumerate(
        zip(ins[0], p["start_indices"], p["limit_indices"], strides, strict=True)
    ):
        size = step.outs[0].shape[i]
        if size == d.n:
            out.append(d)
        elif size == 0:
            out.append(new(0, frozen=Reason("is empty", step)))
        elif stride == 1 or size == 1:
            out.append(between(d, start, start + 1 if size == 1 else stop))
        elif d.n % stride == 0 and start < stride and size == d.n // stride:
            outer, inner = divide(d, d.n // stride)
            freeze(inner, Reason("takes every so many positions", step))
            out.append(outer)
        else:
            why = Reason("takes every so many positions", step)
            freeze(d, why)
            out.append(new(size, frozen=why))
    return [out]


def _pad(step: Step, ins: list[Axes]) -> list[Axes]:
    out: Axes = []
    for i, (d, (low, high, interior)) in enumerate(zip(ins[0], step.params["padding_config"], strict=True)):
        if low < 0 or high < 0 or interior:
            why = Reason("pads inside this axis or cuts it", step)
            freeze(d, why)
            out.append(new(step.outs[0].shape[i], frozen=why))
        else:
            out.append(dsum([*([new(low)] if low else []), d, *([new(high)] if high else [])]))
    return [out]


def _tile(step: Step, ins: list[Axes]) -> list[Axes]:
    return [[prod([new(rep), d]) for rep, d in zip(step.params["reps"], ins[0], strict=True)]]


def gather_axes(step: Step) -> dict[int, int]:
    """For every axis of the operand that a gather keeps as an axis: its place in the result."""
    numbers = step.params["dimension_numbers"]
    rank = len(step.ins[0].shape)
    kept = [i for i in range(rank) if i not in (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)]
    return dict(zip(kept, numbers.offset_dims, strict=True))


def _gather(step: Step, ins: list[Axes]) -> list[Axes]:
    numbers, sizes = step.params["dimension_numbers"], step.params["slice_sizes"]
    operand, indices = ins
    why = Reason("looks up positions of this axis", step)
    shape = step.outs[0].shape
    out: Axes = [ONE] * len(shape)
    batch = iter(indices[:-1])
    for j in range(len(shape)):
        if j not in numbers.offset_dims:
            out[j] = next(batch)
    for i, j in zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True):
        same(operand[i], indices[j], why)
    placed = gather_axes(step)
    for i, d in enumerate(operand):
        if i in numbers.operand_batching_dims:
            continue
        if i in placed and sizes[i] == d.n:
            out[placed[i]] = d
            continue
        freeze(d, why)
        if i in placed:
            out[placed[i]] = new(sizes[i], frozen=why)
    freeze(indices[-1], why)
    return [out]


def _dynamic_slice(step: Step, ins: list[Axes]) -> list[Axes]:
    why = Reason("takes a part that is chosen at run time", step)
    out: Axes = []
    for d, size in zip(ins[0], step.params["slice_sizes"], strict=True):
        if size != d.n:
            freeze(d, why)
        out.append(d if size == d.n else new(size, frozen=why))
    return [out]


def _dynamic_update_slice(step: Step, ins: list[Axes]) -> list[Axes]:
    why = Reason("writes a part that is chosen at run time", step)
    for d, part in zip(ins[0], ins[1], strict=True):
        if d.n == part.n:
            same(d, part, why)
        else:
            freeze(d, why)
            freeze(part, why)
    return [ins[0]]


SCATTERS = tuple(f"scatter{kind}" for kind in ("", "-add", "-mul", "-min", "-max"))


def scatter_axes(step: Step) -> dict[int, int]:
    """For every axis of the operand that a scatter writes in full: the axis of the updates that holds it."""
    numbers = step.params["dimension_numbers"]
    operand, updates = step.ins[0].shape, step.ins[2].shape
    left_out = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    window = [i for i in range(len(operand)) if i not in left_out]
    placed = dict(zip(window, numbers.update_window_dims, strict=True))
    chosen = numbers.scatter_dims_to_operand_dims
    return {i: j for i, j in placed.items() if i not in chosen and operand[i] == updates[j]}


def _scatter(step: Step, ins: list[Axes]) -> list[Axes]:
    why = Reason("writes at positions of this axis that are chosen at run time", step)
    operand, indices, updates = ins
    placed = scatter_axes(step)
    for i, j in placed.items():
        same(operand[i], updates[j], why)
    others = [d for i, d in enumerate(operand) if i not in placed]
    others += [d for j, d in enumerate(updates) if j not in placed.values()]
    for d in (*others, *indices):
        freeze(d, why)
    return [list(operand)]


def _reduce_window(step: Step, ins: list[Axes]) -> list[Axes]:
    p = step.params
    why = Reason("slides a window over this axis", step)
    out: Axes = []
    for i, d in enumerate(ins[0]):
        settings = (p[key][i] for key in ("window_dimensions", "window_strides", "base_dilation"))
        if all(n == 1 for n in settings) and tuple(p["padding"][i]) == (0, 0):
            out.append(d)
        else:
            freeze(d, why)
            out.append(new(step.outs[0].shape[i], frozen=why))
    return [out]


RULES: dict[str, Callable[[Step, list[Axes]], list[Axes]]] = {
    "reshape": _reshape,
    "broadcast_in_dim": _broadcast_in_dim,
    "transpose": _transpose,
    "squeeze": _squeeze,
    "concatenate": _concatenate,
    "stack": _stack,
    "unstack": _unstack,
    "split": _split,
    "slice": _slice,
    "pad": _pad,
    "tile": _tile,
    "gather": _gather,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    **dict.fromkeys(SCATTERS, _scatter),
    **dict.fromkeys(("reduce_window_sum", "reduce_window_max", "reduce_window_min"), _reduce_window),
}
