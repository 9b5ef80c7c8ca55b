"""Trials: cut a task by a keep set, retrain, and note the accuracies, which are kept in the metrics.

A trial is known by its task, its keep set and its seed, so formulas that prune alike share it, and a run that starts
again finds it in ``metrics.jsonl``.  Only a trial that did not read the test split, and now should, is made twice.
"""

import hashlib
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from compressjax.zoo import Model
from experiments.cutting import Keep
from experiments.distributed import ALONE, Fleet, Preempted
from experiments.pruning_tasks import PruningTask
from experiments.workdir import Workdir, read_metrics

Record = dict[str, Any]
Key = tuple[str, str, int]
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
      fleet: Processes that share the work of `prepare`; each knows all results.
    """

    def __init__(self, directory: Workdir, tasks: Mapping[str, PruningTask], fleet: Fleet = ALONE):
        self._directory, self._tasks, self._fleet = directory, dict(tasks), fleet
        self._known: dict[Key, Record] = {}
        self.seconds = 0.0  # that all trials took, also those made twice
        for record in read_metrics(directory.path):
            self._learn(record)

    def __len__(self) -> int:
        """Trials that are known."""
        return len(self._known)

    def add(self, name: str, task: PruningTask) -> None:
        """One more task."""
        self._tasks[name] = task

    def prepare(self, wanted: Sequence[tuple[str, Keep, int]], *, test: bool = False) -> None:
        """Computes trials that are not known, each on one process of the fleet, in rounds of one trial per process.

        The records are those that `run` would make for one after the other, in that order.

        Args:
          wanted: Task, keep set and seed of each.
          test: As for `run`.
        """
        if self._fleet.count == 1:
            return
        missing = {key: keep for task, keep, seed in wanted if self._missing(key := (task, keep_key(keep), seed), test)}
        keys = list(missing)
        agreed = self._fleet.gather([list(key) for key in keys])
        if any(found != agreed[0] for found in agreed):
            raise ValueError(
                "The processes of this run want different trials; start all of them on the same kind of machine, with "
                "the same version of the code."
            )
        for begin in range(0, len(keys), self._fleet.count):
            self._pause()
            mine = keys[begin : begin + self._fleet.count][self._fleet.index :][:1]
            found = [self._computed(key, missing[key], test, _plainly) for key in mine]
            for record in itertools.chain(*self._fleet.gather(found)):
                self._keep(record)

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
        if self._missing(key, test):
            self._pause()
            self._keep(self._computed(key, keep, test, retrain or _plainly))
        return self._known[key]

    def _missing(self, key: Key, test: bool) -> bool:
        found = self._known.get(key)
        return found is None or (test and "test" not in found)

    def _pause(self) -> None:
        """Between trials, a run may be asked to stop."""
        if self._fleet.stopping():
            raise Preempted(f"{len(self)} trials are kept; the same command again continues with the next.")

    def _keep(self, record: Record) -> None:
        self._directory.record(record)
        self._learn(record)

    def _learn(self, record: Record) -> None:
        self._known[record["task"], record["keep"], record["seed"]] = record
        self.seconds += record["seconds"]

    def _computed(self, key: Key, keep: Keep, test: bool, retrain: Retrain) -> Record:
        task, name, seed = key
        return {"task": task, "keep": name, "seed": seed, **self._compute(self._tasks[task], keep, seed, test, retrain)}

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
