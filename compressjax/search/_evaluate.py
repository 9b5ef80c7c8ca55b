r"""Evaluators: designs to fitness, in one jitted batch or one by one on the host; caching, failures, shared noise.

What is not a finite number below `FAILED`, and every exception that the caller lists, is a *failure*: it is recorded as
one and told as `FAILED`, which ranks below everything and can still be added up.

Random numbers are common: all candidates of a generation get the same key (the same batches, the same noise), so that
they are compared and not their luck.  With ``common=False`` every candidate's key is the generation's, folded with a
hash of its design.  In both cases the key follows from (search key, generation, design), so that a search that
continues from a checkpoint sees the same numbers.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from compressjax.search._space import Design

FAILED = 1e30  # told for a failure: large, but its sum over a population is finite in float32

Known = Mapping[tuple[int, bytes], np.ndarray]  # (fidelity, design as bytes) -> fitness (objectives,)


class Outcome(NamedTuple):
    """What an evaluator found: arrays over candidates.

    Attributes:
      fitness: (count, objectives) of the default float type; `FAILED` for failures.
      failed: (count,) bool.
      cached: (count,) bool: nothing was computed, an equal design was known.
    """

    fitness: np.ndarray
    failed: np.ndarray
    cached: np.ndarray


@dataclass(frozen=True, eq=False)
class Evaluator:
    """How fitness is computed; smaller is better.

    Attributes:
      function: ``(designs, key) -> fitness``.  As a batch: dictionary of arrays (count, ...) -> (count,) or
        (count, objectives), pure JAX, jitted here; pass data through closures only if they are small, and use
        `jax.lax.map` over candidates where `jax.vmap` is slower.  On the host: one design of NumPy values -> a number,
        or one per objective.
      host: Whether `function` is called with one design at a time, outside `jit`.
      cache: Whether fitness depends on the design alone, so that a design is evaluated once in a search.  Without it, a
        host evaluates equal designs of one generation once, because they have the same key.
      common: Whether all candidates of a generation share one key; else a batch gets an array of keys (count,).
      failures: Exceptions that count as a failed candidate (of a batch: all of it); others end the search.

    >>> squares = Evaluator(lambda designs, key: jnp.square(designs["x"]))
    >>> squares.run({"x": np.array([1.0, -2.0], np.float32)}, np.zeros((2, 2), np.uint32)).fitness.tolist()
    [[1.0], [4.0]]
    """

    function: Callable[[Any, Any], Any]
    host: bool = False
    cache: bool = False
    common: bool = True
    failures: tuple[type[Exception], ...] = ()

    @cached_property
    def _batch(self) -> Callable[..., Any]:
        # Keys travel as plain numbers, which every process of a distributed program may pass to a computation of all.
        return jax.jit(lambda designs, data: self.function(designs, jax.random.wrap_key_data(data)))

    def run(
        self,
        designs: Mapping[str, np.ndarray],
        seeds: np.ndarray,
        *,
        objectives: int = 1,
        size: int | None = None,
        known: Known | None = None,
        fidelity: int = 0,
    ) -> Outcome:
        """Evaluates designs.

        Args:
          designs: Name to (count, ...), count at least 1.
          seeds: Key data of every candidate, (count, words) uint32; all rows equal if `common`.
          objectives: Numbers per candidate.
          size: A batch is filled up to this many candidates by repeating the last, so that it is compiled once.
          known: Fitness of designs evaluated before; looked into if `cache`.
          fidelity: The number under which they are known.

        Returns:
          An `Outcome`.

        Raises:
          ValueError: If the function returns other shapes than it must.
        """
        count = len(seeds)
        names = rows(designs)
        found = np.full((count, objectives), np.nan, jnp.result_type(float))
        cached = np.zeros(count, bool)
        if self.cache:
            for i, name in enumerate(names):
                if (value := (known or {}).get((fidelity, name))) is not None:
                    found[i], cached[i] = value, True
        first: dict[bytes, int] = {}
        if self.cache or self.host:
            for i in np.flatnonzero(~cached).tolist():
                cached[i] = first.setdefault(names[i], i) != i
        todo = np.flatnonzero(~cached)
        if len(todo):
            found[todo] = (
                self._host(designs, seeds, todo, objectives)
                if self.host
                else self._all(designs, seeds, todo, objectives, size or count)
            )
        for i in np.flatnonzero(cached).tolist():
            if names[i] in first:
                found[i] = found[first[names[i]]]
        failed = ~np.all(found < FAILED, axis=1) | ~np.all(np.isfinite(found), axis=1)
        found[failed] = FAILED
        return Outcome(found, failed, cached)

    def _host(self, designs: Design, seeds: np.ndarray, todo: np.ndarray, objectives: int) -> np.ndarray:
        """One call per candidate."""
        out = np.full((len(todo), objectives), np.nan)
        for row, i in enumerate(todo):
            key = jax.random.wrap_key_data(jnp.asarray(seeds[i]))
            try:
                value = np.asarray(self.function({name: v[i] for name, v in designs.items()}, key), float)
            except self.failures:
                continue
            if value.size != objectives or value.ndim > 1:
                raise ValueError(f"The evaluator returned the shape {value.shape} for one design: {_rule(objectives)}.")
            out[row] = value
        return _narrow(out)

    def _all(self, designs: Design, seeds: np.ndarray, todo: np.ndarray, objectives: int, size: int) -> np.ndarray:
        """One call for all, in one of few sizes."""
        length = size if len(todo) == len(seeds) else min(size, 1 << (len(todo) - 1).bit_length())
        places = np.concatenate([todo, np.repeat(todo[-1:], max(length - len(todo), 0))])
        data = seeds[places[0]] if self.common else seeds[places]
        try:
            value = np.asarray(self._batch({name: v[places] for name, v in designs.items()}, data))
        except self.failures:
            return np.full((len(todo), objectives), np.nan)
        expected = (len(places), objectives)
        if value.shape != expected and not (objectives == 1 and value.shape == expected[:1]):
            raise ValueError(
                f"The evaluator returned the shape {value.shape} for {len(places)} designs: {_rule(objectives)}."
            )
        return _narrow(value.reshape(expected)[: len(todo)])


def rows(designs: Design) -> list[bytes]:
    """Every candidate's design as bytes: equal designs give equal bytes, in any process."""
    arrays = [np.ascontiguousarray(designs[name]) for name in sorted(designs)]
    return [b"".join(array[i].tobytes() for array in arrays) for i in range(len(arrays[0]))]


def seeds_of(key: Any, names: Sequence[bytes], common: bool) -> np.ndarray:
    """Key data of every candidate: (count, words) uint32."""
    if common:
        return np.tile(np.asarray(jax.random.key_data(key))[None], (len(names), 1))
    hashes = np.array([zlib.crc32(name) for name in names], np.uint32)
    return np.asarray(jax.random.key_data(_folded(key, hashes)))


@jax.jit
def _folded(key: Any, hashes: Any) -> Any:
    return jax.vmap(lambda h: jax.random.fold_in(key, h))(hashes)


def _rule(objectives: int) -> str:
    return "it must be one number per design" if objectives == 1 else f"it must be {objectives} numbers per design"


def _narrow(values: np.ndarray) -> np.ndarray:
    """To the type of the search; what overflows becomes infinite, and so a failure."""
    with np.errstate(over="ignore"):
        return values.astype(jnp.result_type(float))
