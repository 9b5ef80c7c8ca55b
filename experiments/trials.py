"""Trials: cut a task by a keep set, retrain, and note the accuracies; each is computed once and kept in the metrics.

A trial is known by its task, its keep set and its seed, so formulas that prune alike share it, and a run that starts
again finds it in ``metrics.jsonl``.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from compressjax.zoo import Model
from experiments.cutting import Keep
from experiments.pruning_tasks import PruningTask
from experiments.workdir import Workdir, read_metrics

Record = dict[str, Any]
Retrain = Callable[[PruningTask, Model, Any, int], Any]


def keep_key(keep: Keep) -> str:
    """A digest of a keep set.

    >>> keep_key({"g0": np.array([True, False])}) == keep_key({"g0": np.array([1, 0])})
    True
    """
    found = hashlib.sha256()
    for name in sorted(keep):
        found.update(f"{name}:".encode() + np.packbits(np.asarray(keep[name], bool)).tobytes())
    return found.hexdigest()[:16]


class Trials:
    """Accuracies of pruned and retrained networks.

    Args:
      directory: Of the run, open; its metrics hold the trials.
      tasks: By name.
    """

    def __init__(self, directory: Workdir, tasks: Mapping[str, PruningTask]):
        self._directory, self._tasks = directory, dict(tasks)
        self._known: dict[tuple[str, str, int], Record] = {}
        for record in read_metrics(directory.path):
            self._known[record["task"], record["keep"], record["seed"]] = record
        _drop_cut_line(directory.path)

    @property
    def seconds(self) -> float:
        """Time that all known trials took."""
        return sum(record["seconds"] for record in self._known.values())

    def __len__(self) -> int:
        """Trials that are known."""
        return len(self._known)

    def add(self, name: str, task: PruningTask) -> None:
        """One more task."""
        self._tasks[name] = task

    def run(
        self, task: str, keep: Keep, seed: int, *, test: bool = False, kind: str = "", retrain: Retrain | None = None
    ) -> Record:
        """One trial, from the records or computed now.

        Args:
          task: Name of the task.
          keep: Group to truth values.
          seed: Of the retraining.
          test: Whether the test split is read too: only for what is reported at the end.
          kind: Name of another way of retraining, and
          retrain: that way, (task, smaller network, parameters, seed) -> parameters.

        Returns:
          ``before`` and ``after`` retraining on the validation split, ``test_before`` and ``test`` if asked for, and
          ``seconds``.
        """
        key = (task, keep_key(keep) + kind, seed)
        found = self._known.get(key)
        if found is None or (test and "test" not in found):
            computed = self._compute(self._tasks[task], keep, seed, test, retrain or _plainly)
            found = {"task": task, "keep": key[1], "seed": seed, **computed}
            self._directory.record(found)
            self._known[key] = found
        return found

    def _compute(self, task: PruningTask, keep: Keep, seed: int, test: bool, retrain: Retrain) -> Record:
        begin = time.perf_counter()
        model, before = task.cut(keep)
        after = retrain(task, model, before, seed)
        accuracies = {"before": task.validate(model, before), "after": task.validate(model, after)}
        if test:
            accuracies |= {"test_before": task.test(model, before), "test": task.test(model, after)}
        return {**accuracies, "seconds": time.perf_counter() - begin}


def _plainly(task: PruningTask, model: Model, params: Any, seed: int) -> Any:
    return task.retrain(model, params, seed=seed)


def _drop_cut_line(path: Path) -> None:
    """Removes a last line that a killed run left unfinished, so that the next record starts on a line of its own."""
    from experiments.workdir import METRICS

    file = path / METRICS
    if file.exists() and (data := file.read_bytes()) and not data.endswith(b"\n"):
        with open(file, "r+b") as lines:
            lines.truncate(data.rfind(b"\n") + 1)
