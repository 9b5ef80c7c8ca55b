r"""(mu + lambda) around any population strategy: the best of parents and children live on.

evosax's `SimpleGA` replaces its whole population by the children, so that its population may get worse.  Here the inner
strategy asks and tells as it does (and adapts what it adapts), and then parents and children are put together and the
best `population_size` kept; ties go to the children, so that a plateau can be crossed.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from evosax.algorithms.population_based.base import PopulationBasedAlgorithm
from evosax.core.fitness_shaping import identity_fitness_shaping_fn
from jaxtyping import Array, Float


class Elitist(PopulationBasedAlgorithm):
    """A population strategy that never loses its best members.

    Args:
      algorithm: A strategy whose state keeps a population and its fitness, and nothing else per member (`SimpleGA`,
        `MR15_GA`); its parameters and its state are those of the wrapper.

    Raises:
      ValueError: If the strategy keeps more per member, which would be assigned to the wrong ones, or shapes fitness,
        which cannot be compared between generations.

    >>> from evosax.algorithms import SimpleGA
    >>> from compressjax.search import Driver, Float, Space, minimize, strategy
    >>> space = Space({"x": Float(-1.0, 1.0, size=2)})
    >>> driver = Driver(space, Elitist(strategy(SimpleGA, space, 16)), lambda d, key: jnp.sum(d["x"] ** 2, axis=1))
    >>> state = minimize(driver, jax.random.key(0), 8).state
    >>> bool(state.algorithm.fitness.min() == state.best_fitness)
    True
    """

    def __init__(self, algorithm: Any):
        super().__init__(algorithm.population_size, algorithm.solution)
        self.algorithm = algorithm
        if algorithm.fitness_shaping_fn is not identity_fitness_shaping_fn:
            raise ValueError(
                f"{type(algorithm).__name__} shapes fitness, so parents and children cannot be compared: make it "
                "without a fitness_shaping_fn."
            )
        state = jax.eval_shape(algorithm._init, jax.random.key(0), algorithm.default_params)
        for name, field in vars(state).items():
            shape = jnp.shape(field) if hasattr(field, "shape") else ()
            if name not in ("population", "fitness", "best_solution") and shape[:1] == (self.population_size,):
                raise ValueError(
                    f"{type(algorithm).__name__} keeps {name} of the shape {shape}, per member: it cannot be made "
                    "elitist from outside."
                )

    @property
    def _default_params(self) -> Any:
        return self.algorithm.default_params

    @partial(jax.jit, static_argnames=("self",))
    def init(self, key: Array, population: Float[Array, "n size"], fitness: Float[Array, " n"], params: Any) -> Any:
        """The inner strategy's state with an evaluated first population."""
        return self.algorithm.init(key, population, fitness, params)

    def _ask(self, key: Array, state: Any, params: Any) -> tuple[Array, Any]:
        return self.algorithm._ask(key, state, params)

    def _tell(self, key: Array, population: Array, fitness: Array, state: Any, params: Any) -> Any:
        after = self.algorithm._tell(key, population, fitness, state, params)
        both = jnp.concatenate([population, state.population])
        values = jnp.concatenate([fitness, state.fitness])
        best = jnp.argsort(jnp.where(jnp.isnan(values), jnp.inf, values), stable=True)[: self.population_size]
        return after.replace(population=both[best], fitness=values[best])
