"""How many channels should each layer keep?  CMA-ES against greedy and random search and the same share everywhere.

    python -m experiments.evolve_amounts --config=configs/evolve_amounts.py --workdir=runs/evolve_amounts

A candidate is one ratio per group of channels, repaired to a budget of MACs.  It is judged by the validation accuracy
of the masked network without retraining, the same number of candidates for every strategy.  The best of each is cut
out, retrained, and judged on the test split.  Running the same command again resumes.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compressjax.search import Driver, Record
    from experiments.evolve_amounts_config import AmountsConfig
    from experiments.pruning_tasks import PruningTask
    from experiments.workdir import Workdir

UNIFORM = "uniform"


def run(config: "AmountsConfig", workdir: str | Path, *, progress: bool = True) -> dict[str, Any]:
    """Runs (or resumes) the searches and returns the report.

    Args:
      config: What to do; see `experiments.evolve_amounts_config.AmountsConfig`.
      workdir: Where; holds the dense network, ``metrics.jsonl`` with one line per retrained network, one file of
        records per search, ``report.json`` and ``report.html``.
      progress: Whether to say what is being done.

    Returns:
      The contents of ``report.json``.

    Raises:
      ValueError: On any bad input, in one sentence.
    """
    from experiments import evolve_amounts_config, evolve_amounts_report, schema
    from experiments.workdir import Workdir

    evolve_amounts_config.check(config)
    with Workdir(workdir, schema.to_dict(config)) as directory:
        return directory.finish(
            lambda: {"config": schema.to_dict(config), **_search(config, directory, progress)},
            evolve_amounts_report.html,
        )


def _search(config: "AmountsConfig", directory: "Workdir", progress: bool) -> dict[str, Any]:
    import jax

    from experiments.channel_scores import ChannelScores
    from experiments.pruning_tasks import PruningTask
    from experiments.records import measure
    from experiments.trials import Trials

    task = PruningTask(config.task, directory.path / config.task.name, progress=progress)
    trials = Trials(directory, {config.task.name: task})
    score = ChannelScores(task).score(config.score)
    arena = Arena(config, task, score)
    rows = []
    for name in (UNIFORM, *config.strategies):
        searches = [arena.search(directory, name, seed, progress) for seed in range(config.repeats)]
        found = [
            trials.run(config.task.name, task.keep(score, one["widths"]), seed, test=True)
            for seed, one in enumerate(searches)
        ]
        rows.append(
            {
                "name": name,
                "searches": searches,
                "masked": dataclasses.asdict(measure(one["accuracy"] for one in searches)),
                **{
                    key: dataclasses.asdict(measure(trial[key] for trial in found))
                    for key in ("before", "after", "test_before", "test")
                },
            }
        )
    return {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "dense": {
            "validation": task.validate(task.model, task.params),
            "test": task.test(task.model, task.params),
            "macs": arena.whole,
        },
        "groups": {name: {"size": arena.sizes[name], "path": path} for name, path in task.made_by.items()},
        "rows": rows,
    }


class Arena:
    """The space, the budget and the judge that all strategies share.

    Args:
      config: Checked.
      task: Ready.
      score: Of every channel.
    """

    def __init__(self, config: "AmountsConfig", task: "PruningTask", score: Mapping[str, Any]):
        import jax.numpy as jnp

        from compressjax import search

        self.config, self.task, self.score = config, task, score
        self.sizes = {group.name: group.size for group in task.groups}
        self._price = task.knife.price("macs")
        self.whole = float(self._price(self.sizes))
        self.space = search.Space({"ratio": search.Float(config.floor, 1.0, size=len(self.sizes))})
        size = jnp.asarray(list(self.sizes.values()), jnp.float32)

        def cost(design: Mapping[str, Any]) -> Any:
            # Rounded as in `widths`, so that what is afforded is what is cut.
            left = jnp.maximum(1.0, jnp.round(design["ratio"] * size))
            return self._price(dict(zip(self.sizes, left, strict=True))) / self.whole

        self.cost = cost
        self.repair = search.to_budget(self.space, cost, config.macs)
        self._judge = task.knife.masked_accuracy(config.images)

    def widths(self, ratios: Any) -> dict[str, int]:
        """Channels left per group."""
        import numpy as np

        left = np.round(np.asarray(ratios, np.float32) * np.asarray(list(self.sizes.values()), np.float32))
        return {name: max(1, int(width)) for name, width in zip(self.sizes, left, strict=True)}

    def accuracy(self, ratios: Any) -> float:
        """Of the masked network on validation images."""
        return self._judge(self.task.params, self.task.keep(self.score, self.widths(ratios)))

    def driver(self, name: str) -> "Driver":
        """A search by one strategy."""
        from compressjax import search

        count = self.config.population
        if name == "cma_es":
            from evosax.algorithms import CMA_ES

            strategy = search.strategy(CMA_ES, self.space, count)
        elif name == "greedy":
            strategy = search.Greedy(count, self.space)
        else:
            strategy = search.random_search(self.space, count)
        judge = search.Evaluator(lambda design, key: 1 - self.accuracy(design["ratio"]), host=True, cache=True)
        return search.Driver(self.space, strategy, judge, repair=self.repair, cost=self.cost)

    def search(self, directory: "Workdir", name: str, seed: int, progress: bool) -> dict[str, Any]:
        """One search, from its file of records if it is finished."""
        import jax
        import jax.numpy as jnp
        import numpy as np

        from compressjax import search

        same = self.repair({"ratio": jnp.ones(len(self.sizes))})
        if name == UNIFORM:
            ratios = np.asarray(same["ratio"])
            return self._found(ratios, self.accuracy(ratios), [])
        file = directory.path / f"{name}-{seed}.jsonl"
        if not file.exists():
            if progress:
                print(f"{name}, seed {seed}: {self.config.population * self.config.generations} candidates", flush=True)
            driver = self.driver(name)
            # All but random search begin at the same share of every group.
            result = search.minimize(driver, jax.random.key(seed), self.config.generations, same)
            lines = "".join(json.dumps(search.to_json(record)) + "\n" for record in result.records)
            directory.write(file.name, lines.encode())
        records = [search.from_json(json.loads(line), self.space) for line in file.read_text().splitlines()]
        best = min(records, key=lambda record: record.fitness[0])
        return self._found(best.design["ratio"], 1 - best.fitness[0], best_so_far(records))

    def _found(self, ratios: Any, accuracy: float, curve: list[float]) -> dict[str, Any]:
        widths = self.widths(ratios)
        return {
            "widths": widths,
            "macs": float(self._price(widths)) / self.whole,
            "accuracy": accuracy,
            "curve": curve,
        }


def best_so_far(records: "list[Record]") -> list[float]:
    """Best masked accuracy after every generation."""
    import numpy as np

    generations = 1 + max(record.generation for record in records)
    best = [1 - min(r.fitness[0] for r in records if r.generation == number) for number in range(generations)]
    return [float(value) for value in np.maximum.accumulate(best)]


def headline(report: dict[str, Any]) -> str:
    """The lines that a person reads first."""
    from experiments import evolve_amounts_report

    return evolve_amounts_report.headline(report)


if __name__ == "__main__":
    from experiments.launch import program

    program(run, headline)
