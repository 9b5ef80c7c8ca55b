"""Asking and telling large populations, and what spreading an evaluation over devices costs.

Part of `experiments.bench`.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.timing import Row, interleaved, milliseconds

SIZE = 32  # of a genome


def search(repeats: int, small: bool = False) -> list[Row]:
    """Milliseconds of ask and tell per strategy, and an evaluation on 1 to 8 emulated devices and in 1 to 4 processes.

    The emulated devices and the processes share this machine's cores, so that the ratio to one is overhead, not speed.
    """
    population = 64 if small else 4096
    calls = strategies(population)
    found = interleaved(calls, 2 if small else repeats)
    rows = [
        Row(
            suite="search",
            name=f"ask and tell of {population:,} members, {SIZE} numbers, {name}",
            value=1e3 * statistics.median(timing.wall),
            unit="ms",
            detail=f"processor time {milliseconds(statistics.median(timing.cpu))}",
        )
        for name, timing in found.items()
    ]
    most = 2 if small else 8
    layouts = [
        (1, 1),
        *((count, 1) for count in (2, 4, 8) if count <= most),
        *((1, n) for n in (2, 4) if n <= most // 2),
    ]
    seconds = {layout: statistics.median(_children(*layout, population, 2 if small else repeats)) for layout in layouts}
    rows += [
        Row(
            suite="search",
            name=f"evaluation of {population:,} members {_where(devices, processes)} to one",
            value=seconds[devices, processes] / seconds[1, 1],
            unit="x",
            detail=f"{milliseconds(seconds[devices, processes])} against {milliseconds(seconds[1, 1])}",
        )
        for devices, processes in layouts[1:]
    ]
    return rows


def strategies(population: int) -> dict[str, Callable[[], object]]:
    """Strategy to one ask and tell, compiled and with the state of a first generation."""
    import jax
    import jax.numpy as jnp
    from evosax.algorithms import CMA_ES, PSO, SNES, DifferentialEvolution, Open_ES, SimpleGA

    from compressjax.search import NSGA2, PBIL, Elitist, Mask, Space
    from compressjax.search import strategy as make

    space = Space({"keep": Mask(SIZE)})
    kinds: dict[str, Any] = {
        kind.__name__: make(kind, space, population)
        for kind in (CMA_ES, SNES, Open_ES, DifferentialEvolution, PSO, SimpleGA, PBIL, NSGA2)
    }
    kinds["Elitist(SimpleGA)"] = Elitist(make(SimpleGA, space, population))
    key = jax.random.key(0)
    members = space.sample(key, population)

    def loss(genomes: Any, objectives: int) -> Any:
        one = jnp.sum(jnp.square(genomes), axis=1)
        return jnp.stack([one, jnp.sum(jnp.square(genomes - 1.0), axis=1)], axis=1) if objectives > 1 else one

    def call(algorithm: Any) -> Callable[[], object]:
        objectives = getattr(algorithm, "objectives", 1)
        params = algorithm.default_params
        if hasattr(algorithm, "get_population"):
            state = algorithm.init(key, members, loss(members, objectives), params)
        else:
            state = algorithm.init(key, jnp.zeros(SIZE), params)
        genomes, _ = algorithm.ask(key, state, params)
        fitness = jax.block_until_ready(loss(genomes, objectives))

        def once() -> object:
            asked, after = algorithm.ask(key, state, params)
            return jax.block_until_ready(algorithm.tell(key, asked, fitness, after, params))

        return once

    return {name: call(algorithm) for name, algorithm in kinds.items()}


def _where(devices: int, processes: int) -> str:
    return f"in {processes} processes" if processes > 1 else f"on {devices} emulated devices"


def _children(devices: int, processes: int, population: int, repeats: int) -> list[float]:
    """Seconds of evaluations in fresh interpreters with so many devices each, as the first of them sees it."""
    address = f"localhost:{_free_port()}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    environment.pop("XLA_FLAGS", None)
    root = Path(__file__).parent.parent
    started = []
    for number in range(processes):
        join = f"bench_search.join({address!r}, {processes}, {number}); " if processes > 1 else ""
        code = f"from experiments import bench_search; {join}bench_search.measure({population}, {repeats})"
        command = [sys.executable, "-c", code]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, cwd=root, env=environment, stdout=pipe, stderr=pipe, text=True))
    ended = [(child, *child.communicate()) for child in started]
    for child, _, errors in ended:
        if child.returncode:
            last = (errors.strip().splitlines() or ["no message"])[-1]
            raise ValueError(f"A measurement {_where(devices, processes)} failed (status {child.returncode}): {last}")
    return json.loads(ended[0][1].splitlines()[-1])


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return int(found.getsockname()[1])


def join(address: str, processes: int, number: int) -> None:
    """In a child process: joins the others."""
    import jax

    jax.distributed.initialize(address, num_processes=processes, process_id=number)


def measure(population: int, repeats: int) -> None:
    """In a child process: evaluates a sharded population and prints the seconds of each evaluation as JSON."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import AxisType

    from compressjax.search import Evaluator, sharded

    weights = jax.random.normal(jax.random.key(0), (SIZE, 256)) / SIZE

    def evaluate(designs: Any, key: Any) -> Any:
        images = jax.random.normal(key, (64, SIZE))
        return jax.lax.map(lambda x: jnp.mean(jnp.tanh((images * x[None]) @ weights)), designs["x"])

    mesh = jax.make_mesh((jax.device_count(),), ("population",), axis_types=(AxisType.Auto,))
    evaluator = Evaluator(sharded(evaluate, mesh))
    designs = {"x": np.random.default_rng(0).normal(size=(population, SIZE)).astype(np.float32)}
    seeds = np.zeros((population, 2), np.uint32)
    evaluator.run(designs, seeds)
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        evaluator.run(designs, seeds)
        seconds.append(time.perf_counter() - begin)
    print(json.dumps(seconds))
