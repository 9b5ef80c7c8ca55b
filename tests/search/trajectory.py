"""One search, as a program of its own: its records as JSON, on any number of devices and processes.

python trajectory.py DEVICES [COORDINATOR PROCESSES PROCESS]
"""

import json
import os
import sys

import jax

if __name__ == "__main__":
    devices, members = int(sys.argv[1]), int(os.environ.get("MEMBERS", "37"))
    if len(sys.argv) > 2:
        jax.distributed.initialize(sys.argv[2], num_processes=int(sys.argv[3]), process_id=int(sys.argv[4]))

    import jax.numpy as jnp
    from evosax.algorithms import CMA_ES, DifferentialEvolution
    from jax.sharding import AxisType

    from compressjax.search import Driver, Evaluator, Float, Int, Mask, Space, sharded, strategy, to_json

    assert jax.device_count() == devices, (jax.device_count(), devices)
    space = Space({"x": Float(0.0, 1.0, size=3), "bits": Int(1, 8), "keep": Mask(3)})
    weights = jax.random.normal(jax.random.key(9), (16, 16))

    def one(design, key):
        """A small network's error under a design, with the noise of a key."""
        x = jax.random.normal(key, (16,)) * jnp.repeat(design["x"], 6)[:16]
        x = jnp.tanh(weights @ x) * jnp.where(jnp.repeat(design["keep"], 6)[:16], 1.0, 0.5) + design["bits"] / 8
        return jnp.sum(jnp.square(weights @ x)) / 16

    def common(designs, key):
        return jax.lax.map(lambda design: one(design, key), designs)

    def single(designs, keys):
        return jax.lax.map(lambda both: one(*both), (designs, keys))

    mesh = jax.make_mesh((devices,), ("population",), axis_types=(AxisType.Auto,))
    records = []
    # 10 and 37 members are no multiple of 8 or 4 devices: they are padded.
    for kind, evaluator in (
        (CMA_ES, Evaluator(sharded(common, mesh))),
        (DifferentialEvolution, Evaluator(sharded(single, mesh), common=False, cache=True)),
    ):
        driver = Driver(space, strategy(kind, space, members), evaluator)
        state = driver.start(jax.random.key(1))
        for after, found in driver.run(state, 6):
            state = after
            records += [to_json(record) for record in found]
        records.append({"best": float(state.best_fitness), "evaluations": int(state.evaluations)})
    print(json.dumps(records))
