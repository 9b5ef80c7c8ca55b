"""Searches for the tests: a space with every kind of variable, strategies, records as plain values."""

import jax.numpy as jnp
import optax
from evosax.algorithms import CMA_ES, PSO, SNES, DifferentialEvolution, Open_ES, SimpleGA

from compressjax.search import PBIL, Elitist, Float, Greedy, Int, Mask, Space, random_search, strategy, to_json

SPHERE = Space({"x": Float(-2.0, 1.0, size=4)})
PLACES = Space({"keep": Mask(12)})
MIXED = Space({"x": Float(0.0, 1.0, size=2), "bits": Int(1, 8), "keep": Mask(3)})

STRATEGIES = {
    "CMA_ES": lambda space, n: strategy(CMA_ES, space, n),
    "SNES": lambda space, n: strategy(SNES, space, n),
    "DifferentialEvolution": lambda space, n: strategy(DifferentialEvolution, space, n),
    "SimpleGA": lambda space, n: strategy(SimpleGA, space, n, std_schedule=optax.constant_schedule(0.1)),
    "PSO": lambda space, n: strategy(PSO, space, n),
    "Open_ES": lambda space, n: strategy(
        Open_ES, space, n, optimizer=optax.adam(0.1), std_schedule=optax.constant_schedule(0.2)
    ),
    "PBIL": lambda space, n: strategy(PBIL, space, n),
    "Elitist": lambda space, n: Elitist(strategy(SimpleGA, space, n, std_schedule=optax.constant_schedule(0.1))),
    "Greedy": lambda space, n: Greedy(n, space),
    "random": random_search,
}


def sphere(designs, key):
    return jnp.sum(jnp.square(designs["x"]), axis=1)


def mixed(designs, key):
    lost = jnp.sum(jnp.square(designs["x"] - 0.3), axis=1) + 0.01 * jnp.square(designs["bits"] - 5.0)
    return lost + 0.1 * jnp.sum(designs["keep"] != jnp.array([[True, False, True]]), axis=1)


def places(designs, key):
    return 1.0 * jnp.sum(designs["keep"] == (jnp.arange(12) % 3 == 0)[None], axis=1)


def run(driver, state, generations, history=()):
    """The last state and all records, in plain values."""
    records = []
    for after, found in driver.run(state, generations, history):
        state = after
        records += found
    return state, records


def plain(records):
    return [to_json(record) for record in records]
