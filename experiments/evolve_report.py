"""The report of `experiments.evolve`: ``report.json``, and the page."""

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import jax

from compressjax.search import expressions
from experiments import evolve_fitness, report, schema
from experiments.evolve_plots import transfer
from experiments.evolve_search import EVOLVED, RANDOM_SEARCH, Candidate, Evolution, geometric_mean
from experiments.records import measure
from experiments.search_plots import fitness_by_generation
from experiments.text import duration, percent

Record = Mapping[str, Any]
SEEDS = tuple(expressions.SEEDS)
LABELS = {EVOLVED: "evolved here", RANDOM_SEARCH: "best of random formulas"}


def summarize(evolution: Evolution) -> dict[str, Any]:
    """Chooses on the validation split, judges on the test split, and builds ``report.json``."""
    config = evolution.config
    searches = {EVOLVED: evolution.candidates, **({RANDOM_SEARCH: evolution.control} if config.control else {})}
    finalists = {name: _finalists(evolution, found) for name, found in searches.items()}
    chosen = {name: found[0]["formula"] for name, found in finalists.items() if found}
    compared = [*SEEDS, *(name for name in config.compared if name not in SEEDS)]
    formulas = {**{name: expressions.SEEDS[name] for name in SEEDS}, **chosen}
    names = [name for name in compared if name not in SEEDS]
    tasks = []
    for role, group in (("training", config.tasks), ("transfer", config.transfer)):
        for task in group:
            if role == "transfer":
                evolution.transfer(task)
            found = evolution.judge(task.name, names, formulas)
            rows = [{"name": name, **_measures(found[name])} for name in (*formulas, *names)]
            tasks.append({"name": task.name, "role": role, "dense": evolution.dense(task.name), "rows": rows})
    fitness = None
    if EVOLVED in chosen:  # last, because the trials above serve it too
        texts = [one["formula"] for one in finalists[EVOLVED]]
        fitness = evolve_fitness.check(evolution, texts, chosen[EVOLVED])
    return {
        "config": schema.to_dict(config),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "trials": len(evolution.trials),
        "seconds": evolution.trials.seconds,
        "searches": {name: _records(found) for name, found in searches.items()},
        "finalists": finalists,
        "chosen": chosen,
        "fitness": fitness,
        "tasks": tasks,
        "verdict": verdict(tasks) if EVOLVED in chosen else None,
    }


def _finalists(evolution: Evolution, found: Sequence[Candidate]) -> list[dict[str, Any]]:
    """The fittest formulas of different effect, tried with other seeds, the best first."""
    formulas = evolution.finalists(found)
    compared = evolution.compare(formulas)
    out = []
    for name, formula in formulas.items():
        by_task = {task: statistics.fmean(t["after"] for t in trials) for task, trials in compared[name].items()}
        out.append({"formula": formula, "validation": geometric_mean(list(by_task.values())), "tasks": by_task})
    return sorted(out, key=lambda one: -one["validation"])


def _measures(trials: Sequence[Record]) -> dict[str, Any]:
    return {
        key: dataclasses.asdict(measure(trial[key] for trial in trials))
        for key in ("before", "after", "test_before", "test")
    }


def _records(found: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Candidates as `experiments.search_plots` reads them, with their formulas."""
    return [
        {
            "generation": one.generation,
            "formula": one.formula,
            "fitness": [one.fitness if one.accuracies else None],
            "failed": not one.accuracies,
            "cached": one.cached,
            "fidelity": 0,
        }
        for one in found
    ]


def verdict(tasks: Sequence[Record]) -> dict[str, Any]:
    """Whether the evolved formula is as good as the best seed where it evolved, and above the median seed elsewhere.

    Test accuracies after retraining, means over seeds; on the training tasks their geometric mean.
    """

    def of(task: Record, name: str) -> float:
        value: float = next(row["test"]["mean"] for row in task["rows"] if row["name"] == name)
        return value

    training = [task for task in tasks if task["role"] == "training"]
    together = {name: geometric_mean([of(task, name) for task in training]) for name in (*SEEDS, EVOLVED)}
    best = max(SEEDS, key=lambda name: together[name])
    return {
        "training": {
            "best_seed": best,
            "seed": together[best],
            "evolved": together[EVOLVED],
            "holds": together[EVOLVED] >= together[best],
        },
        "transfer": [
            {
                "task": task["name"],
                "median_seed": (median := statistics.median(of(task, name) for name in SEEDS)),
                "best_seed": max(of(task, name) for name in SEEDS),
                "evolved": of(task, EVOLVED),
                "holds": of(task, EVOLVED) > median,
            }
            for task in tasks
            if task["role"] == "transfer"
        ],
    }


def label(name: str) -> str:
    """How a report calls a score."""
    return LABELS.get(name, name.replace("_", " "))


def headline(found: Record) -> str:
    """The tables that a person reads first."""
    lines = [f"{label(name)}: {formula}" for name, formula in found["chosen"].items()]
    for task in found["tasks"]:
        dense = percent(task["dense"]["test"])
        lines += ["", f"{task['name']} ({task['role']}), dense {dense}: test accuracy after the cut, after retraining"]
        for row in sorted(task["rows"], key=lambda row: -row["test"]["mean"]):
            lines.append(f"  {label(row['name']):28s}{_text(row['test_before']):>18s}{_text(row['test']):>18s}")
    if found["verdict"]:
        lines += ["", *sentences(found["verdict"]), *evolve_fitness.sentences(found["fitness"])]
    return "\n".join(lines)


def sentences(found: Record) -> list[str]:
    """The verdict in words."""
    training = found["training"]
    out = [
        f"Training tasks: evolved {percent(training['evolved'])}, best seed {training['best_seed']} "
        f"{percent(training['seed'])}: {'met' if training['holds'] else 'missed'}."
    ]
    for one in found["transfer"]:
        out.append(
            f"{one['task']}: evolved {percent(one['evolved'])}, median seed {percent(one['median_seed'])}: "
            f"{'met' if one['holds'] else 'missed'}."
        )
    return out


def _text(value: Record) -> str:
    spread = "" if value["std"] is None else f" ± {100 * value['std']:.2f}"
    return f"{100 * value['mean']:.2f}{spread} %"


def html(found: Record) -> str:
    """The whole report as a page."""
    repeats = found["config"]["repeats"]
    body = [
        "<h1>Evolved pruning functions</h1>",
        "".join(
            f"<p>{escape(label(name).capitalize())}: <code>{escape(formula)}</code></p>"
            for name, formula in found["chosen"].items()
        ),
        f'<p class="soft">{found["trials"]} networks pruned and retrained, {duration(found["seconds"])}. Chosen on '
        f"validation images; test accuracies are means ± standard deviations over {repeats} seeds of retraining.</p>",
        *(f"<p>{escape(text)}</p>" for text in (sentences(found["verdict"]) if found["verdict"] else [])),
        *(
            f"<p>{escape(text)}</p>"
            for text in (evolve_fitness.sentences(found["fitness"]) if found["fitness"] else [])
        ),
        *report.picture(
            "Generations",
            fitness_by_generation({label(name): rows for name, rows in found["searches"].items()}, "validation error"),
            "1 - geometric mean of the validation accuracies: the best so far, and the median of each generation.",
        ),
        *report.picture("After the search", transfer(found), "Test accuracy after retraining."),
    ]
    for task in found["tasks"]:
        columns: tuple[report.Column, ...] = (
            ("score", lambda row: label(row["name"])),
            ("after the cut", lambda row: _text(row["test_before"])),
            ("after retraining", lambda row: _text(row["test"])),
            ("validation", lambda row: _text(row["after"])),
        )
        rows = sorted(task["rows"], key=lambda row: -row["test"]["mean"])
        body += [
            f"<h2>{escape(task['name'])} ({task['role']}), dense {percent(task['dense']['test'])}</h2>",
            report.table(columns, rows, ("score",)),
        ]
    body += [
        "<details><summary>Configuration</summary>",
        f"<pre>{escape(json.dumps(found['config'], indent=2))}</pre></details>",
    ]
    return report.page("Evolved pruning functions", body)
