"""The cells of `experiments.cdc`: what is cut how, and what became of it."""

import dataclasses
import functools
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from compressjax import scores, search
from experiments import schema
from experiments.cdc_config import CdcConfig
from experiments.channel_scores import OF_STATISTICS, ChannelScores
from experiments.cutting import Keep
from experiments.fitting import logits_of
from experiments.pruning_tasks import PruningTask, natural
from experiments.records import measure
from experiments.teaching import taught
from experiments.trials import Retrain, Trials
from experiments.workdir import Workdir

AMOUNTS, COARSE, AUTOMATIC, TEACHING = "amounts", "coarse", "automatic", "teaching"


class Cell(NamedTuple):
    """One network to make: which part of the report, which score, which amount, which help, which seed."""

    part: str
    score: str
    removed: float
    kind: str
    seed: int
    keep: Keep
    retrain: Retrain | None = None


def compare(config: CdcConfig, directory: Workdir, *, progress: bool = True) -> dict[str, Any]:
    """Makes every network and builds ``report.json``."""
    out = []
    trials = Trials(directory, {})
    for settings in config.tasks:
        task = PruningTask(settings, directory.path / settings.name, progress=progress)
        trials.add(settings.name, task)
        bar = _bar(settings.name, progress)
        rows: dict[tuple[str, str, float, str], list[dict[str, Any]]] = {}
        for cell in cells(config, task):
            found = trials.run(settings.name, cell.keep, cell.seed, test=True, kind=cell.kind, retrain=cell.retrain)
            rows.setdefault((cell.part, cell.score, cell.removed, cell.kind), []).append(found)
            bar.update()
            bar.set_postfix_str(f"{cell.score} {cell.removed:g}")
        bar.close()
        out.append(
            {
                "name": settings.name,
                "dense": {
                    "validation": task.validate(task.model, task.params),
                    "test": task.test(task.model, task.params),
                },
                "rows": [
                    {
                        **dict(zip(("part", "score", "removed", "kind"), key, strict=True)),
                        **{
                            name: dataclasses.asdict(measure(trial[name] for trial in found))
                            for name in ("before", "after", "test_before", "test")
                        },
                    }
                    for key, found in rows.items()
                ],
            }
        )
    return {
        "config": schema.to_dict(config),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "networks": len(trials),
        "seconds": trials.seconds,
        "tasks": out,
    }


def cells(config: CdcConfig, task: PruningTask) -> Iterator[Cell]:
    """Every network of one task.

    Seed k scores images of its own, and retrains in an order of its own.
    """
    for seed in range(config.repeats):
        seen = ChannelScores(task, config.formulas, offset=seed * task.task.score_images)
        ranked = {name: seen.score(name) for name in config.scores}
        for name, score in ranked.items():
            for removed in config.removed:
                yield Cell(AMOUNTS, name, removed, "", seed, task.keep(score, uniform(task, removed)))
        if config.coarse:
            early = coarse_early(task, seen, config.coarse)
            for name in (name for name in config.scores if name in OF_STATISTICS):
                for removed in config.removed:
                    keep = task.keep(early[name], uniform(task, removed))
                    yield Cell(COARSE, name, removed, "", seed, keep)
        for name in config.automatic:
            for removed in config.removed:
                yield Cell(AUTOMATIC, name, removed, "", seed, automatic(task, seen.score(name), removed))
        teaching = config.teaching
        for kind in teaching.kinds:
            keep = task.keep(seen.score(teaching.score), uniform(task, teaching.removed))
            retrain = functools.partial(taught, kind=kind, settings=teaching, path=middle(task))
            yield Cell(TEACHING, teaching.score, teaching.removed, kind, seed, keep, retrain)


def uniform(task: PruningTask, removed: float) -> dict[str, int]:
    """The same share of every group; one channel at least."""
    return {group.name: max(1, round((1 - removed) * group.size)) for group in task.groups}


def coarse_early(task: PruningTask, seen: ChannelScores, clusters: int) -> dict[str, dict[str, np.ndarray]]:
    """Scores of statistics with coarse labels for the early half of the groups, fine ones for the rest.

    Coarse classes are clusters of the dense network's confusion matrix on validation images.
    """
    split = task.data.validation
    predicted = logits_of(task.model, task.params, split.images).argmax(-1)
    confusion = scores.confusion_matrix(split.labels, predicted, task.data.classes)
    groups = scores.class_clusters(confusion, clusters)
    depth = depths(task)
    labels = scores.label_levels(depth, np.zeros(1, np.int32), np.ones(1, np.int32))
    early = {name for name, level in labels.items() if level[0] == 0}
    coarse = seen.with_labels(lambda fine: scores.coarse_labels(fine, groups), clusters)
    out = {}
    for name in OF_STATISTICS:
        fine, rough = seen.score(name), coarse.score(name)
        out[name] = {group: (rough if group in early else fine)[group] for group in fine}
    return out


def automatic(task: PruningTask, score: Mapping[str, np.ndarray], removed: float) -> Keep:
    """Amounts by sensitivity, at the MACs of the uniform cut."""
    knife = task.knife
    price = knife.price("macs")
    sizes = {group.name: group.size for group in task.groups}
    widths = {**sizes, **uniform(task, removed)}
    if widths == sizes:
        return {group.name: np.ones(group.size, bool) for group in task.groups}
    speedup = float(price(sizes)) / float(price(widths))
    *_, last = search.sensitivity(
        task.params,
        sizes,
        cost=price,
        score=lambda _: score,
        accuracy=knife.masked_accuracy(),
        speedup=speedup,
        layers=max(1, len(sizes) // 4),
        floor={name: min(width, -(-sizes[name] // 8)) for name, width in widths.items()},
    )
    return last.keep


def depths(task: PruningTask) -> dict[str, int]:
    """Group -> place of its kernel among all, in the order of names."""
    made = task.made_by
    order = sorted(made, key=lambda name: natural(made[name]))
    return {name: place for place, name in enumerate(order)}


def middle(task: PruningTask) -> str:
    """The producing kernel of the group in the middle."""
    depth, made = depths(task), task.made_by
    return made[min(depth, key=lambda name: abs(depth[name] - len(depth) // 2))]


def _bar(name: str, progress: bool) -> Any:
    quiet = not (progress and sys.stderr.isatty())
    if quiet and progress:
        print(name, flush=True)
    return tqdm(desc=name, disable=quiet, leave=True)
