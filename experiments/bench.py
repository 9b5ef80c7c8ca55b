"""Speed, as ratios measured within one run: a machine's absolute times say little, its ratios travel.

    python -m experiments.bench [--suite=NAME] [--repeats=9] [--small] [--out=F.json]

Suites: all, train, transforms, projection, storage, population, expressions, search, candidates.

Repetitions of the variants that are compared are interleaved, in alternating order, and the median of the ratios within
a round is taken, so that a slow moment of the machine meets all of them.  Beside it stand the middle half of the
ratios, and the ratio in processor time, which other programs on the machine disturb less.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from absl import app, flags, logging

from experiments.launch import refuse_arguments
from experiments.timing import Row, compare, interleaved, to_text

SUITES = ("all", "train", "transforms", "projection", "storage", "population", "expressions", "search", "candidates")
REFRESH = 32  # optimizer steps between refreshes of the ADMM variables


def train(repeats: int, small: bool = False) -> list[Row]:
    """ADMM, masked and scanned training steps of LeNet-5 against the plain step."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from compressjax import projections, training, trees, zoo
    from experiments.fitting import Carry, make_step, make_update

    batch, chunk, scanned = (16, 8, 2) if small else (128, REFRESH, 8)
    model = zoo.build("lenet5")
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (4 * batch, 28, 28, 1), np.uint8))
    labels = jnp.asarray(rng.integers(0, 10, 4 * batch, np.int32))
    orders = [rng.permutation(4 * batch)[:batch].astype(np.int32) for _ in range(chunk)]
    params = model.init(jax.random.key(0))
    rules = {
        path: projections.Cardinality(count)
        for path, count in zip(
            ("conv1/kernel", "conv2/kernel", "fc1/kernel", "fc2/kernel"), (100, 1750, 2880, 330), strict=True
        )
    }
    masks = {path: mask for path, mask in projections.supports(rules, params).items()}
    pruned = trees.map_leaves(lambda w, m: jnp.where(m, w, 0.0), params, masks)
    key, logits = jax.random.key(0), jnp.zeros((0,))

    def variant(optimizer: Any, start: Any, *, scan: bool = False) -> Callable[[], object]:
        step = make_step(make_update(model, optimizer))
        initial = Carry(
            start,
            jax.jit(optimizer.init)(start),
            jnp.full((len(jax.tree.leaves(start)),), -1, jnp.int32),
            jnp.zeros(()),
        )
        if scan:
            index, numbers = np.stack(orders[:scanned]), np.arange(scanned, dtype=np.int32)

            @jax.jit
            def many(carry: Any, index: Any, numbers: Any) -> Any:
                def body(carry: Any, now: Any) -> Any:
                    return step(carry, images, labels, now[0], key, logits, now[1]), None

                return jax.lax.scan(body, carry, (index, numbers))[0]

            return lambda: jax.block_until_ready(many(initial, index, numbers))
        one = jax.jit(step)

        def drive() -> object:
            carry = initial
            for number, index in enumerate(orders):
                carry = one(carry, images, labels, index, key, logits, np.int32(number))
            return jax.block_until_ready(carry)

        return drive

    adam = optax.adam(1e-3)
    found = interleaved(
        {
            "plain": variant(optax.with_extra_args_support(adam), params),
            "admm": variant(training.admm(adam, rules, rho=0.01, every=chunk), params),
            "masked": variant(training.masked(adam, masks), pruned),
        },
        repeats,
    )
    plain, admm, masked = (found[name].per(chunk) for name in ("plain", "admm", "masked"))
    rows = [
        compare("train", f"ADMM step, refresh every {chunk}, to plain", admm, plain, None if small else 1.10),
        compare("train", "masked step to plain", masked, plain, None if small else 1.05),
    ]
    loops = interleaved(
        {
            "python": variant(optax.with_extra_args_support(adam), params),
            "scan": variant(optax.with_extra_args_support(adam), params, scan=True),
        },
        max(1, repeats // 3),
    )
    python, scan = loops["python"].per(chunk), loops["scan"].per(scanned)
    rows.append(compare("train", "step in lax.scan to step driven from Python", scan, python, None))
    return rows


def projection(repeats: int, small: bool = False) -> list[Row]:
    """Exact top-k projection of a 400,000-weight layer against a NumPy partition of the same numbers."""
    import jax
    import numpy as np

    from compressjax import projections

    shape, keep = ((80, 50), 40) if small else ((800, 500), 2_880)
    weights = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    constraint = projections.Cardinality(keep)
    project = jax.jit(constraint.project)
    there = jax.device_put(weights)

    def numpy() -> np.ndarray:
        size = np.abs(weights).ravel()
        return np.where(np.abs(weights) >= np.partition(size, size.size - keep)[size.size - keep], weights, 0)

    if not np.array_equal(np.asarray(project(there)), numpy()):
        raise ValueError("The projection and NumPy's partition keep different weights.")
    found = interleaved({"jax": lambda: jax.block_until_ready(project(there)), "numpy": numpy}, 3 * repeats)
    name = f"projection of {weights.size:,} weights to numpy.partition"
    return [compare("projection", name, found["jax"], found["numpy"], None)]


def run(suite: str, repeats: int, *, small: bool = False, network: str = "lenet5") -> dict[str, Any]:
    """Runs one suite, or all.

    Args:
      suite: One of `SUITES`.
      repeats: Rounds of the interleaved measurements.
      small: Small sizes: a check that the program runs, not a measurement.
      network: Of the suite `transforms`, lenet5 or resnet20; the other suites have networks of their own.

    Returns:
      JSON-ready: the rows, and what they were measured on.
    """
    import jax

    if suite not in SUITES:
        raise ValueError(f"There is no suite {suite!r}; choose one of {', '.join(SUITES)}.")
    if repeats < 1:
        raise ValueError(f"--repeats is {repeats}; it must be at least 1.")
    from experiments.bench_candidates import candidates
    from experiments.bench_expressions import expressions
    from experiments.bench_population import population
    from experiments.bench_search import search
    from experiments.bench_storage import storage
    from experiments.bench_transforms import BATCH, transforms

    if network not in BATCH:
        raise ValueError(f"There is no network {network!r} here; choose one of {', '.join(BATCH)}.")
    suites: dict[str, Callable[[int, bool], list[Row]]] = {
        "train": train,
        "transforms": partial(transforms, network=network),
        "projection": projection,
        "storage": storage,
        "population": population,
        "expressions": expressions,
        "search": search,
        "candidates": candidates,
    }
    rows = [row for name in suites if suite in ("all", name) for row in suites[name](repeats, small)]
    return {
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "jax": jax.__version__,
        "python": sys.version.split()[0],
        "repeats": repeats,
        "small": small,
        "network": network,
        "rows": [{**asdict(row), "met": row.met} for row in rows],
    }


def main(argv: list[str]) -> None:
    """Flag shell around `run`."""
    refuse_arguments(argv)
    values = flags.FLAGS
    logging.set_verbosity(logging.WARNING)  # JAX reports each backend that is not there
    try:
        found = run(values.suite, values.repeats, small=values.small, network=values.network)
        rows = [Row(**{key: value for key, value in row.items() if key != "met"}) for row in found["rows"]]
        print(to_text(rows))
        print(f"{found['device']}, {found['cores']} cores, load {found['load']}, JAX {found['jax']}")
        if values.out:
            Path(values.out).write_text(json.dumps(found, indent=1) + "\n")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    flags.DEFINE_enum("suite", "all", SUITES, "Which measurements to make.")
    flags.DEFINE_integer("repeats", 9, "Rounds of the interleaved measurements.")
    flags.DEFINE_bool("small", False, "Small sizes: a check that the program runs, not a measurement.")
    flags.DEFINE_string("network", "lenet5", "Of the suite transforms: lenet5, or resnet20, which takes longer.")
    flags.DEFINE_string("out", "", "File to write the measurements to, as JSON.")
    app.run(main)
