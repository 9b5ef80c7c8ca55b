"""Pass 2: which groups may be removed.  The one question is what number a masked channel holds.

Masking writes 0 into every float leaf slice of a removed member.  From there the number is followed through the
program: a known one (0 after a product with 0, 1/2 after a sigmoid) or an unknown one.  A sum or a contraction over a
group is legal exactly when a masked member contributes 0 to it; all that is otherwise known about layers follows from
this rule.  Groups that break it are frozen with a sentence.  Groups do not act on each other, so nothing needs to be
solved again.
"""

from collections.abc import Callable, Sequence

from compressjax.channels._dims import Dim, atoms, find, freeze, note
from compressjax.channels._fold import Number, Undefined, agreed, finite, fold, uniform
from compressjax.channels._held import SOURCES, SURVIVES, Held, zero
from compressjax.channels._program import Program, Reason, Step, Value, scan_counts, while_counts
from compressjax.channels._rules import ELEMENTWISE, IDENTITIES, axes_of, is_float
from compressjax.channels._rules_shape import SCATTERS, between, blocks, scatter_axes


def freeze_illegal(prog: Program, candidates: set[Dim]) -> None:
    """Freezes the candidates whose masked members would still count somewhere.

    Args:
      prog: A solved program; float inputs along a candidate are leaves and masked to 0.
      candidates: Atoms that may be groups.
    """
    judge = _Judge(candidates)

    def masked(value: Value) -> Held:
        number = 0.0 if is_float(value.dtype) else None
        return judge.make(value, None, lambda _i, _a: number)

    judge.program(prog, [masked(value) for value in prog.ins])


class _Judge:
    """The pass over one program; freezes atoms as it goes."""

    def __init__(self, candidates: set[Dim]) -> None:
        self._candidates = candidates
        self._free: dict[Dim, tuple[Dim, ...]] = {}
        self._rules: dict[str, Callable[[Step, list[Held]], list[Held]]] = {
            "dot_general": self._dot,
            "conv_general_dilated": self._conv,
            "reduce_sum": self._reduce_sum,
            "reshape": self._reshape,
            "concatenate": self._concatenate,
            "stack": self._stack,
            "pad": self._pad,
            "dynamic_update_slice": self._update,
            **dict.fromkeys(SCATTERS, self._scatter),
            "scan": self._scan,
            "while": self._while,
            "cond": self._cond,
        }

    def free(self, d: Dim) -> tuple[Dim, ...]:
        """The candidates on an axis."""
        root = find(d)
        if root not in self._free:
            self._free[root] = tuple(a for a in atoms(root) if a in self._candidates)
        return self._free[root]

    def make(self, value: Value, whole: Number, at: Callable[[int, Dim], Number]) -> Held:
        """What a value holds, from a function of axis and group."""
        axes = tuple({a: at(i, a) for a in self.free(d)} for i, d in enumerate(axes_of(value)))
        return Held(whole, axes)

    def program(self, prog: Program, ins: Sequence[Held]) -> list[Held]:
        """Follows the numbers through a program."""
        known = dict(zip(map(id, prog.ins), ins, strict=True))

        def read(value: Value) -> Held:
            if id(value) not in known:
                number = uniform(value.const)
                known[id(value)] = self.make(value, number, lambda _i, _a: number)
            return known[id(value)]

        for step in prog.steps:
            held = [read(value) for value in step.ins]
            for value, out in zip(step.outs, self._step(step, held), strict=True):
                known[id(value)] = out
        return [read(value) for value in prog.outs]

    def _step(self, step: Step, held: list[Held]) -> list[Held]:
        if step.name in self._rules:
            return self._rules[step.name](step, held)
        if step.name in ELEMENTWISE:
            return [self._elementwise(step, held)]
        if step.name in IDENTITIES:
            return held
        source = SOURCES.get(step.name)
        return [
            self._unknown(value)
            if source is None or (step.name == "top_k" and number == 1)
            # The operands of a sort go separate ways; the results of a split all come from one.
            else self._moved(step, value, held[number] if step.name == "sort" else held[0], source(step))
            for number, value in enumerate(step.outs)
        ]

    def _unknown(self, value: Value) -> Held:
        return self.make(value, None, lambda _i, _a: None)

    def _moved(self, step: Step, value: Value, operand: Held, where: dict[int, int]) -> Held:
        survives = SURVIVES.get(step.name, lambda _, number: number)
        return self.make(value, survives(step, operand.all), lambda i, a: survives(step, operand.at(where.get(i), a)))

    def _elementwise(self, step: Step, held: list[Held]) -> Held:
        out = step.outs[0]

        def at(i: int, atom: Dim) -> Number:
            numbers = [
                h.at(i if value.shape and value.shape[i] == out.shape[i] else None, atom)
                for h, value in zip(held, step.ins, strict=True)
            ]
            try:
                return fold(step, numbers)
            except Undefined as undefined:
                freeze(atom, Reason(f"{undefined}", step))
                return None

        try:
            whole = fold(step, [h.all for h in held])
        except Undefined:
            whole = None
        return self.make(out, whole, at)

    def _contract(self, step: Step, atom: Dim, left: Number, right: Number) -> None:
        """A contraction over a group: a masked member must contribute 0."""
        if 0 not in (left, right) or not (finite(left) and finite(right)):
            text = f"adds up products over this axis and a masked channel contributes {_say(left)} times {_say(right)}"
            freeze(atom, Reason(f"{text}, not 0", step))

    def _product(self, step: Step, left: Number, right: Number, atom: Dim) -> Number:
        """A slice of a contraction: 0 if either side is."""
        if not (finite(left) and finite(right)):
            freeze(atom, Reason("makes a masked channel infinite", step))
            return None
        return 0.0 if 0 in (left, right) else None

    def _dot(self, step: Step, held: list[Held]) -> list[Held]:
        contract, batch = step.params["dimension_numbers"]
        left, right = held
        for i, j in zip(*contract, strict=True):
            for atom in self.free(step.ins[0].dims[i]):
                self._contract(step, atom, left.at(i, atom), right.at(j, atom))
        places: list[tuple[int | None, int | None]] = list(zip(*batch, strict=True))
        places += [(i, None) for i in range(len(left.axes)) if i not in (*contract[0], *batch[0])]
        places += [(None, j) for j in range(len(right.axes)) if j not in (*contract[1], *batch[1])]

        def at(k: int, atom: Dim) -> Number:
            i, j = places[k]
            return self._product(step, left.at(i, atom), right.at(j, atom), atom)

        return [self.make(step.outs[0], None, at)]

    def _conv(self, step: Step, held: list[Held]) -> list[Held]:
        spec = step.params["dimension_numbers"]
        left, right = held
        groups = self.free(step.groups)
        channels = spec.lhs_spec[1]
        for atom in self.free(step.ins[1].dims[spec.rhs_spec[1]]):
            self._contract(step, atom, left.at(channels, atom), right.at(spec.rhs_spec[1], atom))
        lhs = dict(zip((spec.out_spec[0], *spec.out_spec[2:]), (spec.lhs_spec[0], *spec.lhs_spec[2:]), strict=True))

        def at(k: int, atom: Dim) -> Number:
            if k == spec.out_spec[1]:
                inside = left.at(channels, atom) if atom in groups else None
                return self._product(step, inside, right.at(spec.rhs_spec[0], atom), atom)
            return self._product(step, left.at(lhs[k], atom), right.all, atom)

        return [self.make(step.outs[0], None, at)]

    def _reduce_sum(self, step: Step, held: list[Held]) -> list[Held]:
        taken = step.params["axes"]
        for i in taken:
            for atom in self.free(step.ins[0].dims[i]):
                number = held[0].at(i, atom)
                if number is None or number != 0:
                    text = f"adds up this axis and a masked channel contributes {_say(number)}, not 0"
                    freeze(atom, Reason(text, step))
                else:
                    note(atom, f"{step} adds it up; a mean divides by the width as traced")
        left = [i for i in range(len(held[0].axes)) if i not in taken]
        return [self.make(step.outs[0], zero(held[0].all), lambda i, a: zero(held[0].at(left[i], a)))]

    def _reshape(self, step: Step, held: list[Held]) -> list[Held]:
        before = {j: i for i, js in blocks(step.ins[0].shape, step.outs[0].shape) for j in js}

        def at(j: int, atom: Dim) -> Number:
            numbers = [held[0].axes[i][atom] for i in before.get(j, ()) if atom in held[0].axes[i]]
            return agreed(numbers) if numbers else held[0].all

        return [self.make(step.outs[0], held[0].all, at)]

    def _concatenate(self, step: Step, held: list[Held]) -> list[Held]:
        axis = step.params["dimension"]
        held = [h for h, value in zip(held, step.ins, strict=True) if value.elements] or held

        def at(i: int, atom: Dim) -> Number:
            holding = [h for h in held if atom in h.axes[i]] if i == axis else held
            return agreed([h.at(i, atom) for h in holding or held])

        return [self.make(step.outs[0], agreed([h.all for h in held]), at)]

    def _stack(self, step: Step, held: list[Held]) -> list[Held]:
        axis = step.params["axis"]
        return [
            self.make(
                step.outs[0],
                agreed([h.all for h in held]),
                lambda i, a: None if i == axis else agreed([h.at(i - (i > axis), a) for h in held]),
            )
        ]

    def _pad(self, step: Step, held: list[Held]) -> list[Held]:
        config, fill = step.params["padding_config"], held[1].all

        def at(i: int, atom: Dim) -> Number:
            low, high, _ = config[i]
            d = step.outs[0].dims[i]
            # Padding is met at masked members that are padding themselves, and at the others along other padded axes.
            numbers = [fill] if any(any(c) for j, c in enumerate(config) if j != i) else []
            numbers += [held[0].axes[i][atom]] if atom in held[0].axes[i] else []
            ends = [between(d, *span) for span in ((0, low), (d.n - high, d.n)) if span[0] < span[1]]
            numbers += [fill] if any(atom in self.free(end) for end in ends) else []
            return agreed(numbers or [None])

        return [self.make(step.outs[0], agreed([held[0].all, fill]), at)]

    def _update(self, step: Step, held: list[Held]) -> list[Held]:
        operand, part = held[:2]
        both = agreed([operand.all, part.all])
        return [self.make(step.outs[0], both, lambda i, a: agreed([operand.at(i, a), part.at(i, a)]))]

    def _scatter(self, step: Step, held: list[Held]) -> list[Held]:
        placed = scatter_axes(step)
        body = step.params["update_jaxpr"]
        # `x.at[i].apply(f)` is a scatter whose body does more than to take the update.
        takes = step.name != "scatter" or body is None or body.outvars[0] is body.invars[1]

        def after(before: Number, update: Number) -> Number:
            """Where something is written and where nothing is."""
            if step.name == "scatter-add":
                return before if zero(update) is not None else None
            if step.name == "scatter-mul":
                return zero(before)
            return agreed([before, update]) if takes else None

        operand, updates = held[0], held[2]
        whole = after(operand.all, updates.all)
        return [self.make(step.outs[0], whole, lambda i, a: after(operand.at(i, a), updates.at(placed.get(i), a)))]

    def _merged(self, first: Sequence[Held], second: Sequence[Held]) -> list[Held]:
        return [
            Held(
                agreed([a.all, b.all]),
                tuple({k: agreed([x[k], y.get(k)]) for k in x} for x, y in zip(a.axes, b.axes, strict=True)),
            )
            for a, b in zip(first, second, strict=True)
        ]

    def _scan(self, step: Step, held: list[Held]) -> list[Held]:
        consts, carried = scan_counts(step)
        whole = consts + carried
        scanned = [Held(h.all, h.axes[1:]) for h in held[whole:]]
        carry = held[consts:whole]
        while True:
            outs = self.program(step.bodies[0], [*held[:consts], *carry, *scanned])
            after = self._merged(carry, outs[:carried])
            if after == carry:
                break
            carry = after
        return [*carry, *(Held(h.all, ({}, *h.axes)) for h in outs[carried:])]

    def _while(self, step: Step, held: list[Held]) -> list[Held]:
        tests, consts, _ = while_counts(step)
        condition, body = step.bodies
        carry = held[tests + consts :]
        while True:
            self.program(condition, [*held[:tests], *carry])
            after = self._merged(carry, self.program(body, [*held[tests : tests + consts], *carry]))
            if after == carry:
                return carry
            carry = after

    def _cond(self, step: Step, held: list[Held]) -> list[Held]:
        outs = [self.program(branch, held[1:]) for branch in step.bodies]
        merged = outs[0]
        for other in outs[1:]:
            merged = self._merged(merged, other)
        return merged


def _say(number: Number) -> str:
    return "an unknown value" if number is None else str(number)
