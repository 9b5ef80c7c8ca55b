"""The search of `experiments.evolve`: generations of formulas, and what is compared when they are over.

Everything follows from the configuration and its seed; the only thing that takes time, a trial, is looked up in the
records first.  So a run that starts again goes through the same generations without computing anything twice.
"""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from compressjax.search import expressions
from compressjax.search.expressions import ExpressionGP, Programs
from experiments.channel_scores import ChannelScores
from experiments.cutting import Keep
from experiments.distributed import ALONE, Fleet
from experiments.evolve_config import EvolveConfig
from experiments.pruning_tasks import PruningTask
from experiments.task_config import Task
from experiments.trials import Trials, keep_key
from experiments.workdir import Workdir

EVOLVED, RANDOM_SEARCH = "evolved", "random_formulas"


class Candidate(NamedTuple):
    """One formula of the search.

    Attributes:
      generation: 0 is the first population.
      number: Within the generation.
      formula: As text.
      tokens: Its length.
      keeps: Digest of what it keeps, per task; empty if it failed.
      accuracies: On the validation split after retraining, per task.
      fitness: 1 - geometric mean of the accuracies; infinite if it failed.
      cached: Whether candidates before it had the same effect on every task, so that nothing was computed.
    """

    generation: int
    number: int
    formula: str
    tokens: int
    keeps: Mapping[str, str]
    accuracies: Mapping[str, float]
    fitness: float
    cached: bool


class Evolution:
    """Runs the search, then what is compared.

    Args:
      config: Checked.
      directory: Open.
      progress: Whether to show bars.
      fleet: The processes that share the trials; all of them go through the same generations.
    """

    def __init__(self, config: EvolveConfig, directory: Workdir, *, progress: bool = True, fleet: Fleet = ALONE):
        self.config, self.directory, self.progress, self.fleet = config, directory, progress and fleet.leads, fleet
        self._scores: dict[str, ChannelScores] = {}
        tasks = {task.name: self._prepared(task) for task in config.tasks}
        self.trials = Trials(directory, tasks, fleet)
        self.tasks = tasks
        self.candidates = self._evolve()
        self.control = self._random() if config.control else []
        directory.write(
            "candidates.jsonl",
            "".join(
                json.dumps({"search": search, **_plain(one)}) + "\n"
                for search, found in ((EVOLVED, self.candidates), (RANDOM_SEARCH, self.control))
                for one in found
            ).encode(),
        )

    def _prepared(self, task: Task) -> PruningTask:
        found = PruningTask(task, self.directory.path / task.name, progress=self.progress, fleet=self.fleet)
        self._scores[task.name] = ChannelScores(found)
        return found

    def _evolve(self) -> list[Candidate]:
        config = self.config
        gp = ExpressionGP(config.population, config.length, num_parents=config.parents)
        params, key = gp.default_params, jax.random.key(config.seed)
        seeds = expressions.stacked([expressions.known(name) for name in expressions.SEEDS], config.length)
        count = len(expressions.SEEDS)
        mutants = jax.tree.map(lambda leaf: jnp.resize(leaf, (config.population - count, config.length)), seeds)
        mutants = expressions.mutate(jax.random.fold_in(key, 0), mutants)
        first = Programs(*(jnp.concatenate(pair) for pair in zip(seeds, mutants, strict=True)))
        met: set[tuple[str, str]] = set()
        found = self._judge(first, 0, met)
        state = gp.init(jax.random.fold_in(key, 1), first, _fitness(found), params)
        bar = self._bar("generations", config.generations)
        for generation in range(1, config.generations + 1):
            ask, tell = jax.random.split(jax.random.fold_in(key, 1 + generation))
            children, state = gp.ask(ask, state, params)
            judged = self._judge(children, generation, met)
            state, metrics = gp.tell(tell, children, _fitness(judged), state, params)
            found += judged
            bar.update()
            bar.set_postfix(best=f"{1 - float(metrics['best_fitness']):.4f}", trials=len(self.trials))
        bar.close()
        return found

    def _random(self) -> list[Candidate]:
        """As many random formulas as the search looked at, in as many generations, none learning from another."""
        config = self.config
        key = jax.random.fold_in(jax.random.key(config.seed), 2**30)
        found: list[Candidate] = []
        met: set[tuple[str, str]] = set()
        bar = self._bar("random formulas", config.generations + 1)
        for generation in range(config.generations + 1):
            drawn = expressions.random_programs(
                jax.random.fold_in(key, generation), config.population, config.length, least=1, most=4
            )
            found += self._judge(drawn, generation, met)
            bar.update()
        bar.close()
        return found

    def _judge(self, programs: Programs, generation: int, met: set[tuple[str, str]]) -> list[Candidate]:
        """A candidate per program; `met` has the effects seen so far and takes the new ones."""
        keeps: list[dict[str, Keep] | None] = [{} for _ in range(len(programs.tokens))]
        for name, task in self.tasks.items():
            scores = self._scores[name].evaluate(programs)
            for i, sets in enumerate(keeps):
                chosen = choose({group: scores[group][i] for group in task.widths}, task)
                if sets is not None and chosen is not None:
                    sets[name] = chosen
                else:
                    keeps[i] = None
        seed = self.config.seed
        self.trials.prepare([(name, keep, seed) for sets in keeps for name, keep in (sets or {}).items()])
        out = []
        for i, sets in enumerate(keeps):
            program = expressions.single(programs, i)
            accuracies = {name: self.trials.run(name, keep, seed)["after"] for name, keep in (sets or {}).items()}
            effects = {(name, keep_key(keep)) for name, keep in (sets or {}).items()}
            cached = bool(effects) and effects <= met  # in this search, whatever the records knew already
            met |= effects
            out.append(
                Candidate(
                    generation,
                    i,
                    expressions.unparse(program),
                    int(expressions.lengths(program.tokens)),
                    {name: keep_key(keep) for name, keep in (sets or {}).items()},
                    accuracies,
                    1 - geometric_mean(list(accuracies.values())) if accuracies else math.inf,
                    cached,
                )
            )
        return out

    def finalists(self, found: Sequence[Candidate]) -> dict[str, str]:
        """Rank -> formula: the fittest that differ in effect and are no seeds, the shorter of equals."""
        seeds = {tuple(one.keeps.items()) for one in self.candidates[: len(expressions.SEEDS)]}
        best: dict[Any, Candidate] = {}
        for one in sorted(found, key=lambda one: (one.fitness, one.tokens)):
            effect = tuple(one.keeps.items())
            if effect and effect not in seeds and effect not in best and len(best) < self.config.finalists:
                best[effect] = one
        return {f"{i}": one.formula for i, one in enumerate(best.values())}

    def compare(self, formulas: Mapping[str, str]) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """Validation accuracies of formulas on the tasks with every seed of the comparison: formula -> task -> trials.

        The seeds are not the search's, so that luck there does not count here.
        """
        keeps = {name: {task: self._formula_keep(task, text) for task in self.tasks} for name, text in formulas.items()}
        wanted = [(task, keep) for sets in keeps.values() for task, keep in sets.items()]
        self.trials.prepare([(task, keep, seed) for task, keep in wanted for seed in self._seeds])
        return {name: {task: self._repeat(task, keep) for task, keep in sets.items()} for name, sets in keeps.items()}

    def trial(self, task: str, formula: str, **options: Any) -> dict[str, Any]:
        """One trial of a formula with the search's own seed; options are those of `Trials.run`."""
        return self.trials.run(task, self._formula_keep(task, formula), self.config.seed, **options)

    def judge(self, task: str, names: Sequence[str], formulas: Mapping[str, str]) -> dict[str, list[dict[str, Any]]]:
        """Scores by name, and formulas, on one task with every seed, on the test split too."""
        scores = self._scores[task]
        prepared = scores.task
        keeps = {name: prepared.keep(scores.score(name), prepared.widths) for name in names}
        keeps |= {name: self._formula_keep(task, text) for name, text in formulas.items()}
        wanted = [(task, keep, seed) for keep in keeps.values() for seed in self._seeds]
        self.trials.prepare(wanted, test=True)
        bar = self._bar(f"judging on {task}", len(keeps))
        out = {}
        for name, keep in keeps.items():
            out[name] = self._repeat(task, keep, test=True)
            bar.update()
        bar.close()
        return out

    def transfer(self, task: Task) -> str:
        """Makes a task ready that the search has not seen, and returns its name."""
        self.trials.add(task.name, self._prepared(task))
        return task.name

    def dense(self, task: str) -> dict[str, float]:
        """Accuracies of the network before pruning."""
        prepared = self._scores[task].task
        return {
            "validation": prepared.validate(prepared.model, prepared.params),
            "test": prepared.test(prepared.model, prepared.params),
        }

    def _formula_keep(self, task: str, formula: str) -> Keep:
        scores, prepared = self._scores[task], self._scores[task].task
        parsed = expressions.parse(formula)
        found = scores.evaluate(expressions.stacked([parsed], len(parsed.tokens)))
        # A formula that says nothing on this network ranks nothing: ties go by number, as everywhere.
        ranked = {group: np.nan_to_num(row[0], neginf=-1e30, posinf=1e30) for group, row in found.items()}
        return prepared.keep(ranked, prepared.widths)

    def _repeat(self, task: str, keep: Keep, *, test: bool = False) -> list[dict[str, Any]]:
        return [self.trials.run(task, keep, seed, test=test) for seed in self._seeds]

    @property
    def _seeds(self) -> range:
        """Of the retrainings of what is compared."""
        first = 1000 + self.config.seed * self.config.repeats
        return range(first, first + self.config.repeats)

    def _bar(self, name: str, steps: int) -> Any:
        quiet = not (self.progress and sys.stderr.isatty())
        if quiet and self.progress:
            print(f"{name}: {steps}", flush=True)
        return tqdm(total=steps, desc=name, disable=quiet, leave=True)


def choose(scores: Mapping[str, np.ndarray], task: PruningTask) -> Keep | None:
    """What scores keep, or None where they say nothing: not finite, or the same for all channels of a group."""
    for group, width in task.widths.items():
        values = scores[group]
        if not np.isfinite(values).all() or (width < len(values) and np.ptp(values) == 0):
            return None
    return task.keep(scores, task.widths)


def geometric_mean(values: Sequence[float]) -> float:
    """Of accuracies; 0 if one is.

    >>> round(geometric_mean([0.9, 0.4]), 3)
    0.6
    """
    return math.prod(values) ** (1 / len(values))


def _fitness(found: Sequence[Candidate]) -> jax.Array:
    return jnp.asarray([one.fitness for one in found], jnp.float32)


def _plain(one: Candidate) -> dict[str, Any]:
    """JSON has no infinity: the fitness of a failure is null."""
    return {**one._asdict(), "fitness": one.fitness if math.isfinite(one.fitness) else None}
