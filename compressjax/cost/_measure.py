"""Stopwatches: the wall time of jitted functions, warm, one call at a time, competitors taking turns.

On a shared machine a neighbour's burst hits whoever runs at that moment, so candidates are timed in rounds (a, b, c, a,
b, c, ...) and each reports the median over rounds.  The load of the machine is part of the result.
"""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax


class Timing(NamedTuple):
    """Seconds per call: median and minimum over the rounds, and the machine's load average at the end (or nan)."""

    median: float
    minimum: float
    rounds: int
    load: float


def measure(f: Callable[..., Any], *args: Any, repeats: int = 20, warmup: int = 2) -> Timing:
    """Times ``jax.jit(f)(*args)`` on the default device, compilation excluded.

    Args:
      f: Any function that JAX can trace.
      *args: Its arguments, arrays.
      repeats: Timed calls.
      warmup: Calls before them.

    Returns:
      The timing of one call, dispatch included.

    Raises:
      ValueError: If `repeats` is not positive.

    >>> timing = measure(lambda x: x @ x, jax.numpy.ones((8, 8)), repeats=3)
    >>> 0 < timing.minimum <= timing.median, timing.rounds
    (True, 3)
    """
    jitted = jax.jit(f)
    arguments = jax.device_put(args)
    return take_turns([lambda: jitted(*arguments)], repeats=repeats, warmup=warmup)[0]


def take_turns(calls: Sequence[Callable[[], Any]], *, repeats: int = 20, warmup: int = 2) -> list[Timing]:
    """Times several calls in rounds, so that all of them see the same machine.

    Args:
      calls: Functions without arguments; their results are waited for.
      repeats: Rounds.
      warmup: Untimed calls of each, in turn.

    Returns:
      One timing per call.

    Raises:
      ValueError: If `repeats` is not positive.

    >>> quick, slow = take_turns([lambda: None, lambda: time.sleep(0.002)], repeats=3)
    >>> quick.median < slow.median
    True
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats} must be at least 1.")
    for _ in range(warmup):
        for call in calls:
            jax.block_until_ready(call())
    samples: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, times in zip(calls, samples, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(call())
            times.append(time.perf_counter() - start)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return [Timing(statistics.median(times), min(times), repeats, load) for times in samples]
