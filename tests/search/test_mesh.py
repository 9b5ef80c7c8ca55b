"""Populations over a mesh: padding, and the same search on one device, on eight, and in several processes."""

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from compressjax.search import Evaluator, sharded

ROOT = Path(__file__).parent.parent.parent


def launch(devices, *arguments, here=None, members=37):
    """Starts the program with some devices of its own."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(here or devices)}
    environment.pop("XLA_FLAGS", None)
    environment["MEMBERS"] = str(members)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH", "")]))
    command = [sys.executable, str(ROOT / "tests" / "search" / "trajectory.py"), str(devices), *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def records_of(processes):
    """What each process printed, last line."""
    try:
        with ThreadPoolExecutor(len(processes)) as pool:  # all pipes at once: the processes wait for each other
            ends = list(pool.map(lambda process: process.communicate(timeout=300), processes))
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, ends, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [json.loads(out.splitlines()[-1]) for out, _ in ends]


@cache
def on_one_and_eight_devices(members):
    one, eight = records_of([launch(1, members=members), launch(8, members=members)])
    return one, eight


def on_one_device(members=37):
    records, _ = on_one_and_eight_devices(members)
    assert len(records) == 2 * (6 * members + 1)
    assert len({tuple(r["fitness"]) for r in records if "fitness" in r}) > 10 * members
    return records


NEWER = tuple(map(int, jax.__version__.split(".")[:2])) > (0, 10)


@pytest.mark.parametrize(
    "members",
    [
        37,
        pytest.param(
            10, marks=pytest.mark.xfail(NEWER, reason="two to a device: JAX 0.12 rounds other loops otherwise")
        ),
    ],
)
def test_eight_devices_give_the_same_search(members):
    _, eight = on_one_and_eight_devices(members)
    assert eight == on_one_device(members)


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_give_the_same_search(processes):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    started = [launch(processes, coordinator, processes, i, here=1) for i in range(processes)]
    assert records_of(started) == [on_one_device()] * processes


def mesh(**axes):
    return jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=(AxisType.Auto,) * len(axes))


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_any_population_is_padded_and_cut(count):
    seen = []

    def evaluate(designs, key):
        seen.append(designs["x"].shape)
        return jnp.sum(designs["x"], axis=1) * jax.random.uniform(key)

    x = np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)
    found = jax.jit(sharded(evaluate, mesh(population=2)))({"x": x}, jax.random.key(0))
    assert seen == [((count + 1) // 2, 3)]
    assert found.shape == (count,)
    np.testing.assert_allclose(found, x.sum(axis=1) * float(jax.random.uniform(jax.random.key(0))), rtol=1e-6)


def test_keys_of_candidates_and_other_axes_of_the_mesh():
    keys = jax.random.split(jax.random.key(0), 3)
    evaluate = sharded(lambda designs, keys: jax.vmap(jax.random.normal)(keys), mesh(model=1, pop=2), axis="pop")
    assert np.array_equal(evaluate({"x": jnp.zeros(3)}, keys), jax.vmap(jax.random.normal)(keys))
    seeds = np.asarray(jax.random.key_data(keys))
    found = Evaluator(evaluate, common=False).run({"x": np.zeros(3)}, seeds).fitness[:, 0]
    assert np.array_equal(found, jax.vmap(jax.random.normal)(keys))


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"axes population, none is 'pop'"):
        sharded(lambda d, key: d["x"], mesh(population=2), axis="pop")
    explicit = jax.make_mesh((2,), ("population",), axis_types=(AxisType.Explicit,))
    with pytest.raises(ValueError, match=r"axis_types=\(AxisType.Auto,\)"):
        sharded(lambda d, key: d["x"], explicit)
    # The plain constructor makes automatic axes.
    assert sharded(lambda d, key: d["x"], Mesh(np.array(jax.devices()[:2]), ("population",)))
