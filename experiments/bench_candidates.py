"""Candidates a second by size of the population: formulas on one layer's terminals, and masked LeNet-5.

Part of `experiments.bench`.  On a CPU candidates are a loop; on an accelerator they run side by side, as many as a few
GB of memory hold.  Sizes go up until one evaluation would take longer than a minute.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from experiments.bench_expressions import LENGTH, population, terminals
from experiments.bench_population import lenet5
from experiments.timing import Row, interleaved, milliseconds

SIZES = (64, 256, 1024, 4096, 16_384)
LONGEST = 60.0  # seconds of one evaluation
SIDE_BY_SIDE = {"formulas": 1024, "networks": 64}  # on an accelerator: stacks of 0.3 GB, feature maps of 1.5 GB

Start = Callable[[int], Callable[[], object]]  # size of a population -> what evaluates one


def candidates(repeats: int, small: bool = False) -> list[Row]:
    """Candidates a second of whole populations, compiled; nothing is compared, so there are no ratios."""
    sizes = (8, 16) if small else SIZES
    rows: list[Row] = []
    for name, start in (*formulas(), *networks(8 if small else 500)):
        rows += growing(name, start, sizes, max(1, repeats // 3))
    return rows


def growing(name: str, start: Start, sizes: Sequence[int], repeats: int) -> Iterator[Row]:
    """One row per size, until the next would take too long at the rate of the last."""
    rate = float("inf")
    for size in sizes:
        if size / rate > LONGEST:
            return
        timing = interleaved({"run": start(size)}, repeats)["run"]
        seconds = statistics.median(timing.wall)
        rate = size / seconds
        yield Row("candidates", f"{size} {name}", rate, "candidates/s", None, milliseconds(seconds))


def formulas() -> Iterator[tuple[str, Start]]:
    """By the interpreter, by `shared` on the host, and a whole generation with the one that suits the backend."""
    import jax
    import jax.numpy as jnp

    from compressjax.search import expressions as ex

    arrays = terminals(False)
    there = {name: jax.device_put(array) for name, array in arrays.items()}
    on_cpu = jax.default_backend() == "cpu"

    def interpreted(programs: Any) -> Any:
        return ex.evaluate(programs, there, chunk=side_by_side("formulas", len(programs.tokens)))

    def evaluate(size: int) -> Callable[[], object]:
        programs = population(size)
        return lambda: jax.block_until_ready(interpreted(programs))

    def shared(size: int) -> Callable[[], object]:
        return partial(ex.shared, population(size), arrays)

    def generation(size: int) -> Callable[[], object]:
        score = (lambda programs: ex.shared(programs, arrays)) if on_cpu else jax.jit(interpreted)
        wanted = ex.shared(ex.stacked([ex.known("f1")], LENGTH), arrays)

        def loss(programs: Any) -> Any:
            return jnp.mean(jnp.abs(score(programs) - wanted), axis=1)

        gp, first = ex.ExpressionGP(size, LENGTH), population(size)
        params = gp.default_params
        state = gp.init(jax.random.key(0), first, loss(first), params)
        numbers = iter(range(10**9))

        def run() -> None:
            key = jax.random.key(next(numbers))
            children, now = gp.ask(key, state, params)
            jax.block_until_ready(gp.tell(key, children, loss(children), now, params))

        return run

    yield "formulas, interpreter", evaluate
    yield "formulas, shared, on the host", shared
    yield f"formulas, ask, evaluate ({'shared' if on_cpu else 'interpreter'}), tell", generation


def networks(images: int) -> Iterator[tuple[str, Start]]:
    """By masks of channels, and gathered into slots; every member keeps half of each group."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from compressjax import channels, search

    rng = np.random.default_rng(0)
    model, params, x, labels = lenet5(images, rng)
    net = channels.trace(model.apply, params, x)

    def start(size: int, stack: Callable[..., Any]) -> Callable[[], object]:
        keeps = [{g.name: rng.permutation(g.size) < g.size // 2 for g in net.groups} for _ in range(size)]
        members = jax.tree.map(jnp.asarray, stack(net, keeps))
        run = jax.jit(search.population_accuracy(net, chunk=side_by_side("networks", size)))
        return lambda: jax.block_until_ready(run(params, members, x, labels))

    name = f"LeNet-5 on {images} images, half of the channels"
    yield f"{name} masked", partial(start, stack=search.stack_keeps)
    yield f"{name} in slots", partial(start, stack=search.stack_slots)


def side_by_side(what: str, size: int) -> int:
    """Candidates computed together on this backend."""
    import jax

    return 1 if jax.default_backend() == "cpu" else min(size, SIDE_BY_SIDE[what])
