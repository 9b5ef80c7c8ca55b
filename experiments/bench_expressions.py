"""Evaluating and evolving expressions, against DEAP's compiled trees over the same NumPy functions.

Part of `experiments.bench`.  Without DEAP (``pip install deap``) its rows say so, and what stays are our own times.
"""

import importlib.util
import operator
import random
import statistics
from collections.abc import Callable, Mapping
from typing import Any

from experiments.timing import Row, compare, interleaved, milliseconds

SHAPE = (64, 10, 16)  # channels, classes, positions
LENGTH = 32
LEAST = 3  # tokens of a tree: what is shorter measures overheads only
NEEDS_DEAP = "not measured: the package deap is not installed"


def expressions(repeats: int, small: bool = False) -> list[Row]:
    """Whole populations on one layer's terminals: every distinct subexpression once, against one tree after the other.

    DEAP gets its trees compiled; compiling is timed by itself.  Its functions protect as ours do, in NumPy.
    """
    import jax
    import numpy as np

    from compressjax.search import expressions as ex

    sizes = (16, 32) if small else (256, 4096)
    rows: list[Row] = []
    deap = Deap() if importlib.util.find_spec("deap") else None
    for what, full in (("every terminal full", True), ("terminals of the paper's shapes", False)):
        arrays = terminals(full)
        for size in sizes:
            programs = population(size)
            run, loops = f"{size} trees, {what}", max(1, 1024 // size)

            def ours(programs: Any = programs, arrays: Any = arrays, loops: int = loops) -> None:
                for _ in range(loops):
                    ex.shared(programs, arrays)

            variants: dict[str, Callable[[], object]] = {"ours": ours}
            if deap:
                trees = [deap.compile(text) for text in formulas(programs)]
                check(np.stack([deap.score(tree, arrays) for tree in trees]), ex.shared(programs, arrays))

                def theirs(trees: Any = trees, arrays: Any = arrays, loops: int = loops) -> None:
                    for _ in range(loops):
                        for tree in trees:
                            deap.score(tree, arrays)

                variants["deap"] = theirs
            if size == sizes[0] and full:
                device = {name: jax.device_put(array) for name, array in arrays.items()}

                def interpreted(programs: Any = programs, device: Any = device, loops: int = loops) -> object:
                    found = [ex.evaluate(programs, device, chunk=1) for _ in range(loops)]
                    return jax.block_until_ready(found)

                variants["interpreter"] = interpreted
            found = {name: timing.per(loops) for name, timing in interleaved(variants, repeats).items()}
            rows += against(run, found, size, None if small else 1.0)
    rows.append(generation(sizes[-1], repeats, deap, None if small else 1.0))
    return rows


def against(name: str, found: Mapping[str, Any], size: int, goal: float | None) -> list[Row]:
    """Trees a second, and ratios to DEAP where it is there."""
    seconds = {key: statistics.median(timing.wall) for key, timing in found.items()}
    ours = seconds["ours"]
    rows = [Row("expressions", f"{name}: shared", size / ours, "trees/s", None, milliseconds(ours))]
    if "deap" not in found:
        return [Row("expressions", f"{name}: shared", size / ours, "trees/s", None, f"to DEAP {NEEDS_DEAP}")]
    rows.append(compare("expressions", f"{name}: shared to DEAP", found["ours"], found["deap"], goal))
    if "interpreter" in found:
        rows.append(compare("expressions", f"{name}: interpreter to DEAP", found["interpreter"], found["deap"], None))
    return rows


def generation(size: int, repeats: int, deap: "Deap | None", goal: float | None) -> Row:
    """One generation, evaluated, selected and varied; children differ from run to run, as they do in a search."""
    import jax
    import numpy as np

    from compressjax.search import expressions as ex

    arrays = terminals(False)
    wanted = ex.shared(ex.stacked([ex.known("f1")], LENGTH), arrays)

    def loss(scores: Any) -> Any:
        return np.mean(np.abs(scores - wanted), axis=1)

    gp = ex.ExpressionGP(size, LENGTH)
    params, first = gp.default_params, population(size)
    state = gp.init(jax.random.key(0), first, loss(ex.shared(first, arrays)), params)
    numbers = iter(range(10**9))

    def ours() -> None:
        key = jax.random.key(next(numbers))
        children, now = gp.ask(key, state, params)
        jax.block_until_ready(gp.tell(key, children, loss(ex.shared(children, arrays)), now, params))

    name = f"a generation of {size}: evaluate, select, vary"
    if deap is None:
        (timing,) = interleaved({"ours": ours}, repeats).values()
        seconds = statistics.median(timing.wall)
        return Row("expressions", name, 1e3 * seconds, "ms", None, f"DEAP is {NEEDS_DEAP}")
    members = deap.population(formulas(first), loss, arrays)

    def theirs() -> None:
        deap.generation(members, loss, arrays)

    found = interleaved({"ours": ours, "deap": theirs}, max(1, repeats // 3))
    return compare("expressions", f"{name}, to DEAP", found["ours"], found["deap"], goal)


def terminals(full: bool) -> dict[str, Any]:
    """Random positive terminals of one layer, always the same; full ones have a value for everything."""
    import numpy as np

    from compressjax.search.expressions import PAPER

    rng = np.random.default_rng(0)
    channels, classes, positions = SHAPE
    table = (channels, classes, 1)
    shapes = dict.fromkeys(PAPER.terminals, table) | {
        "nP": (1, classes, 1),
        "nQ": (1, classes, 1),
        "mP": SHAPE,
        "mQ": SHAPE,
        "mX": (channels, 1, positions),
        **dict.fromkeys(("l1", "l2", "medoid"), (channels, 1, 1)),
    }
    return {name: rng.uniform(0.1, 2, SHAPE if full else shapes[name]).astype(np.float32) for name in PAPER.terminals}


def population(size: int) -> Any:
    """Random programs of 9 tokens on average."""
    import jax
    import numpy as np

    from compressjax.search import expressions as ex

    many = ex.random_programs(jax.random.key(1), 8 * size, LENGTH, least=2, most=6)
    long = np.flatnonzero(np.asarray(ex.lengths(many.tokens)) >= LEAST)[:size]
    return ex.Programs(*(np.asarray(leaf)[long] for leaf in many))


def formulas(programs: Any) -> list[str]:
    """As DEAP writes them: calls, constants as numbers."""
    import numpy as np

    from compressjax.search.expressions import PAPER

    out = []
    for tokens, consts in zip(np.asarray(programs.tokens), np.asarray(programs.consts), strict=True):
        stack: list[str] = []
        for token, value in zip(tokens.tolist(), consts.tolist(), strict=True):
            if token == 0:
                break
            operands = [stack.pop() for _ in range(int(PAPER.arity[token]))][::-1]
            name = repr(value) if token == PAPER.constant else PAPER.tokens[token]
            stack.append(f"{name}({', '.join(operands)})" if operands else name)
        out.append(stack[0])
    return out


def check(theirs: Any, ours: Any) -> None:
    """Both must compute the same but for rounding, or there is nothing to compare; chaotic trees may differ."""
    import numpy as np

    same = np.isclose(theirs, ours, rtol=1e-3, atol=1e-2).all(axis=1).mean()
    if same < 0.95:
        raise ValueError(f"DEAP and ours agree on {same:.0%} of the trees only.")


class Deap:
    """DEAP's compiled trees over NumPy, and its generation as the paper runs it."""

    def __init__(self) -> None:
        import numpy as np
        from deap import base, creator, gp, tools

        from compressjax.search.expressions import PAPER

        limit, tiny = np.float32(1e6), 1e-6

        def cut(x: Any) -> Any:
            return x if np.vdot(x, x) < 1e12 else np.clip(x, -limit, limit)

        def divide(a: Any, b: Any) -> Any:
            size = np.abs(b)
            if np.min(size) < tiny:
                b = np.where(size < tiny, np.where(np.less(b, 0), np.float32(-tiny), np.float32(tiny)), b)
            return cut(a / b)

        def over(function: Callable[..., Any]) -> Callable[[Any], Any]:
            def positions(x: Any) -> Any:
                x = np.broadcast_to(x, (*np.shape(x)[:-1], SHAPE[2]) if np.ndim(x) else (1, 1, SHAPE[2]))
                return function(x, axis=-1, keepdims=True)

            return positions

        total, variance = over(np.sum), over(np.var)
        functions = {
            "add": np.add,
            "sub": np.subtract,
            "mul": lambda a, b: cut(np.multiply(a, b)),
            "div": divide,
            "neg": np.negative,
            "abs": np.abs,
            "square": lambda x: cut(np.square(x)),
            "sqrt": lambda x: np.sqrt(np.abs(x)),
            "eps": lambda x: x + np.float32(1e-4),
            "ridge": lambda x: x + np.float32(0.05),
            "mean": over(np.mean),
            "sum": lambda x: cut(total(x)),
            "std": over(np.std),
            "var": lambda x: cut(variance(x)),
        }
        self.names = list(PAPER.terminals)
        self.ones = np.ones(SHAPE[1] * SHAPE[2], np.float32)
        self.set = gp.PrimitiveSet("expressions", len(self.names))
        self.set.renameArguments(**{f"ARG{number}": name for number, name in enumerate(self.names)})
        for op in PAPER.operators:
            self.set.addPrimitive(functions[op.name], op.arity, name=op.name)
        for number, value in enumerate(PAPER.constants):
            self.set.addTerminal(np.float32(value), name=f"c{number}")
        self.gp, self.tools = gp, tools
        self.base, self.creator = base, creator
        if not hasattr(creator, "Expression"):
            creator.create("ExpressionFitness", base.Fitness, weights=(-1.0,))
            creator.create("Expression", gp.PrimitiveTree, fitness=creator.ExpressionFitness)

    def compile(self, text: str) -> Callable[..., Any]:
        """One formula as a Python function of the terminals."""
        return self.gp.compile(self.gp.PrimitiveTree.from_string(text, self.set), self.set)

    def score(self, tree: Callable[..., Any], arrays: Mapping[str, Any]) -> Any:
        """Sum over classes and positions, per channel."""
        import numpy as np

        with np.errstate(all="ignore"):
            value = np.broadcast_to(tree(*(arrays[name] for name in self.names)), SHAPE)
            return value.reshape(SHAPE[0], -1) @ self.ones

    def population(self, texts: list[str], loss: Any, arrays: Any) -> list[Any]:
        """Evaluated individuals."""
        members = [self.creator.Expression.from_string(text, self.set) for text in texts]
        members = [self.creator.Expression(member) for member in members]
        self._evaluate(members, loss, arrays)
        return members

    def _evaluate(self, members: list[Any], loss: Any, arrays: Any) -> None:
        import numpy as np

        for member in members:
            found = float(loss(self.score(self.gp.compile(member, self.set), arrays)[None])[0])
            member.fitness.values = (found if np.isfinite(found) else 1e30,)

    def generation(self, members: list[Any], loss: Any, arrays: Any) -> None:
        """Children of the six best: copied, paired, mutated, and all evaluated; the members stay as they are."""
        gp, limit = self.gp, LENGTH
        best = self.tools.selBest(members, 6)
        toolbox = self.base.Toolbox()
        children = [toolbox.clone(random.choice(best)) for _ in members]
        short = gp.staticLimit(key=len, max_value=limit)
        mate = short(gp.cxOnePoint)
        mutate = short(lambda one: gp.mutUniform(one, lambda pset, type_: gp.genFull(pset, 0, 4, type_), self.set))
        for first in range(0, len(children) - 1, 2):
            if random.random() < 0.75:
                children[first], children[first + 1] = mate(children[first], children[first + 1])
        for number in range(len(children)):
            if random.random() < 0.75:
                (children[number],) = mutate(children[number])
        self._evaluate(children, loss, arrays)
        children.sort(key=operator.attrgetter("fitness"), reverse=True)
