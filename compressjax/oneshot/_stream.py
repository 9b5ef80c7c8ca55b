"""Layer after layer through a network: what enters a layer is computed by the compressed layers before it.

The function is traced once and run in segments, from kernel to kernel.  Between two segments only the values that later
steps still read are kept, for every batch; nothing is run twice.  So memory holds one layer's activations and not the
network's, and time is that of one forward pass plus the solvers.

Source: the layer-wise scheme of Frantar and Alistarh, "SparseGPT", ICML 2023 (arXiv 2301.00774), section 4.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from compressjax import trees
from compressjax.channels._program import Program, program
from compressjax.oneshot._alps import alps
from compressjax.oneshot._kernels import Kernel, bind, find, rows
from compressjax.oneshot._problem import Method
from compressjax.oneshot._statistics import Statistics, add, output_error, shortage, start
from compressjax.projections import Constraint


@dataclass(frozen=True)
class Layer:
    """What became of one layer.

    Attributes:
      path: Of its kernel.
      inputs: Of the kernel as a matrix; for a convolution, window times channels.
      outputs: Of the kernel as a matrix.
      kept: Weights that are not zero.
      rows: Calibration rows that it saw.
      error: ||X (W' - W)||^2 / ||X W||^2 on these rows.
      shortage: What the rows leave open, in words; empty if nothing.  See `compressjax.oneshot.shortage`.

    >>> print(Layer("fc/kernel", 8, 2, 4, 100, 0.0123, "1 of 8 inputs are always zero"))
    fc/kernel: 4 of 16 weights, output error 0.0123 (1 of 8 inputs are always zero: closed by damping)
    """

    path: str
    inputs: int
    outputs: int
    kept: int
    rows: int
    error: float
    shortage: str

    def __str__(self) -> str:
        open_ = f" ({self.shortage}: closed by damping)" if self.shortage else ""
        weights = f"{self.kept:,} of {self.inputs * self.outputs:,} weights"
        return f"{self.path}: {weights}, output error {self.error:.3g}{open_}"


def compress(
    f: Callable[[Any, Any], Any],
    params: trees.Tree,
    batches: Iterable[Any],
    rules: trees.Rules[Constraint | None],
    method: Method = alps,
) -> tuple[trees.Tree, tuple[Layer, ...]]:
    """Compresses the kernels of a network one after the other, on calibration data and without gradients.

    Kernels are leaves that feed one product or convolution, wherever and in whatever layout: attention kernels with
    several axes, matrices (outputs, inputs), convolutions.  A constraint applies to the kernel as a matrix (inputs,
    outputs), the inputs of a convolution being its window's positions times its channels.

    Args:
      f: ``f(params, batch)``, any function that JAX can trace; a Linen module's ``apply``, or a plain function.
      params: Its parameters.
      batches: Calibration inputs, arrays or trees of one shape.
      rules: Glob to constraint; other leaves stay as they are.
      method: `alps`, `sparsegpt`, `wanda`, `magnitude`, one of them with settings by `functools.partial`, or any
        function with their signature.

    Returns:
      Parameters of the same structure, shapes and dtypes; and what became of each layer, in program order.

    Raises:
      ValueError: If a rule has no effect, a leaf is no kernel of a single layer, batches differ in shape or there are
        none, or a solver refuses a layer (the message names its path).

    >>> from compressjax.oneshot import wanda
    >>> from compressjax.projections import Cardinality
    >>> params = {"fc1": jnp.array([[1.0, 2.0], [0.5, 3.0]]), "fc2": jnp.array([[1.0], [0.0]])}
    >>> f = lambda params, x: jax.nn.relu(x @ params["fc1"]) @ params["fc2"]
    >>> new, layers = compress(f, params, [jnp.eye(2)], {"fc1": Cardinality(2)}, wanda)
    >>> print(*layers)
    fc1: 2 of 4 weights, output error 0.298
    """
    known, assigned = trees.leaves(params), trees.assign(rules, params)
    given = list(batches)
    data = [[jnp.asarray(leaf) for leaf in jax.tree.leaves(batch)] for batch in given]
    _check_batches(data)
    prog = program(jax.make_jaxpr(f)(params, given[0]))
    kernels = find(prog, list(known), list(assigned))
    run = _Run(prog, kernels, [jnp.asarray(leaf) for leaf in known.values()], data)
    out: dict[str, Any] = {}
    layers = []
    for kernel in kernels:
        run.advance(kernel.at)
        leaf = jnp.asarray(known[kernel.path])
        w = leaf.reshape(-1)[kernel.order]
        try:
            statistics = run.statistics(kernel)
            found = method(w, statistics, assigned[kernel.path])
        except ValueError as error:
            raise ValueError(f"{kernel.path}: {error}") from error
        out[kernel.path] = leaf.reshape(-1).at[kernel.order].set(found).reshape(leaf.shape)
        run.replace(kernel, out[kernel.path], list(known).index(kernel.path))
        layers.append(_layer(kernel.path, found, w, statistics))
    return trees.update(params, out), tuple(layers)


def _layer(path: str, found: jax.Array, w: jax.Array, statistics: Statistics) -> Layer:
    return Layer(
        path=path,
        inputs=w.shape[0],
        outputs=w.shape[1],
        kept=int(jnp.sum(found != 0)),
        rows=int(statistics.rows),
        error=float(output_error(found, w, statistics)),
        shortage=shortage(statistics),
    )


def _check_batches(data: list[list[jax.Array]]) -> None:
    if not data or not data[0]:
        raise ValueError("There are no calibration batches: pass at least one.")
    shapes = [[(array.shape, array.dtype) for array in batch] for batch in data]
    for number, other in enumerate(shapes):
        if other != shapes[0]:
            raise ValueError(
                f"Calibration batch {number} has {other}, the first {shapes[0]}: make them equal, or leave out a "
                "shorter last one."
            )


class _Run:
    """A program in the middle of its run, on all batches.

    Attributes:
      shared: Values that are the same for all batches, by id: parameters, and the laid-out kernels solved so far.
      batches: Per batch the values that later steps still read, by id.
    """

    def __init__(
        self, prog: Program, kernels: list[Kernel], leaves: list[jax.Array], data: list[list[jax.Array]]
    ) -> None:
        self.prog, self.at = prog, 0
        self.shared: dict[int, Any] = dict(zip(map(id, prog.ins), leaves, strict=False))
        self.batches: list[dict[int, Any]] = [
            dict(zip(map(id, prog.ins[len(leaves) :]), batch, strict=True)) for batch in data
        ]
        self.last = {id(value): i for i, step in enumerate(prog.steps) for value in step.ins}
        # Kernels are laid out when they are solved and not before.
        self.later = {i for kernel in kernels for i in kernel.layout}
        self.seen: tuple[Any, Statistics] | None = None

    def advance(self, stop: int) -> None:
        """Runs the steps before position `stop` on every batch, as one program."""
        steps = [self.prog.steps[i] for i in range(self.at, stop) if i not in self.later]
        made = {id(value): value for step in steps for value in step.outs}
        read = {id(v): v for step in steps for v in step.ins if v.const is None and id(v) not in made}
        common = {i: self.shared[i] for i in read if i in self.shared}
        kept = [i for i in made if self.last.get(i, -1) >= stop]

        @jax.jit
        def segment(own: dict[int, Any], common: dict[int, Any]) -> dict[int, Any]:
            known = {**own, **common}
            for step in steps:
                args = [known[id(value)] if value.const is None else value.const for value in step.ins]
                known.update(zip(map(id, step.outs), bind(step, args), strict=True))
            return {i: known[i] for i in kept}

        for number, batch in enumerate(self.batches):
            fresh = segment({i: batch[i] for i in read if i in batch}, common) if steps else {}
            still = {i: value for i, value in batch.items() if self.last.get(i, -1) >= stop}
            self.batches[number] = {**still, **fresh}
        self.at = stop

    def statistics(self, kernel: Kernel) -> Statistics:
        """Of what enters a layer; kernels that read the same activations share them."""
        step = self.prog.steps[kernel.at]
        value = step.ins[1 - kernel.operand]
        key = (id(value), kernel.operand, str(step.params)) if step.name == "dot_general" else kernel.path
        if self.seen is None or self.seen[0] != key:
            found = start(kernel.order.shape[0])
            adding = jax.jit(lambda seen, x: add(seen, rows(step, kernel.operand, x)))
            for batch in self.batches:
                found = adding(found, batch[id(value)])
            self.seen = (key, found)
        return self.seen[1]

    def replace(self, kernel: Kernel, leaf: jax.Array, number: int) -> None:
        """Goes on with a solved kernel."""
        self.shared[id(self.prog.ins[number])] = leaf
        for i in kernel.layout:
            step = self.prog.steps[i]
            (self.shared[id(step.outs[0])],) = bind(step, [self.shared[id(step.ins[0])]])
