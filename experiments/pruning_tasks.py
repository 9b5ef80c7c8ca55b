"""A pruning task: a trained network, how many channels of it stay, and a short retraining after the cut.

Part of `experiments.cdc` and `experiments.evolve`, which try many keep sets on one task.  All keep sets of the same
widths share one compiled training step.  Nothing here reads the test split unless it is asked for by name.
"""

import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from compressjax.data import Sampler, Split
from compressjax.projections import producers
from compressjax.zoo import Model
from experiments.cuts import ShrinkConfig
from experiments.cutting import Keep, Knife
from experiments.distributed import ALONE, Fleet
from experiments.fitting import Trainer, accuracy, make_update, scale
from experiments.phases import DENSE, Phase, optimizer
from experiments.runner import Run
from experiments.schema import Base, Fit, to_dict
from experiments.task_config import Task
from experiments.workdir import Workdir

Params = Any


class PruningTask:
    """A task whose dense network is there.

    Args:
      task: What to prune.
      workdir: Where the dense network is trained, or was; one directory per task.
      progress: Whether to show progress bars.
      fleet: Processes that train the dense network together, if there is none yet.
    """

    def __init__(self, task: Task, workdir: str | Path, *, progress: bool = True, fleet: Fleet = ALONE):
        self.task = task

        def plan(_: "Run[Base]") -> list[Phase]:
            if task.load:
                return []
            train = task.pretrain
            return [Phase("pretrain", train, lambda _, steps: optimizer(train, steps), artifact=DENSE, distill=False)]

        # Only what the dense network depends on, so that the same one serves whatever is tried on it.
        config = Base(**{name: getattr(task, name) for name in Base.__dataclass_fields__})
        with Workdir(workdir, {**to_dict(config), "widths": list(task.widths)}, fleet) as directory:
            run = Run(config, directory, plan, widths=task.widths, progress=progress, fleet=fleet)
            if not fleet.agree((directory.path / DENSE).exists()):
                run.train()
            self.params: Params = jax.tree.map(jnp.asarray, run.load(DENSE))
            self.model, self.data = run.model, run.data
        settings = ShrinkConfig(
            seed=task.seed,
            fixed=task.fixed,
            score_images=task.score_images,
            reestimate_images=task.reestimate_images,
            latency_batch=2,
        )
        self.knife = Knife(settings, self.model, self.data)
        self._trainers: dict[Any, Trainer] = {}

    @property
    def groups(self) -> tuple[Any, ...]:
        """The channel groups that may be cut."""
        return self.knife.groups

    @functools.cached_property
    def made_by(self) -> dict[str, str]:
        """Group -> the first of the kernels that make its channels, in the order of names."""
        return {
            group.name: min((member.path for member in made.members if member.path.endswith("kernel")), key=natural)
            for group, made in zip(self.groups, producers(self.groups, self.params), strict=True)
        }

    @functools.cached_property
    def widths(self) -> dict[str, int]:
        """Channels left per group, as configured; groups that no rule names stay whole."""
        return self.knife.wanted(self.params, self.task.kept)

    def batches(self, images: int, batch: int, *, offset: int = 0) -> Iterator[tuple[jax.Array, jax.Array]]:
        """Scaled training images and labels, `images` of the split from number `offset` on, in whole batches."""
        split = self.data.train
        batch = min(batch, images, len(split.labels))
        for begin in range(0, images - batch + 1, batch):
            part = np.arange(offset + begin, offset + begin + batch) % len(split.labels)
            yield scale(jnp.asarray(split.images[part])), jnp.asarray(split.labels[part])

    def keep(self, scores: Mapping[str, Any], widths: Mapping[str, int]) -> Keep:
        """The members of every group of `widths` with the highest scores; of equal ones those that come first.

        Raises:
          ValueError: If a score is not finite.
        """
        kept = {}
        for name, width in widths.items():
            values = np.asarray(scores[name], np.float64)
            if not np.isfinite(values).all():
                raise ValueError(f"The scores of group {name!r} are not finite.")
            best = np.argsort(-values, kind="stable")[:width]
            kept[name] = np.isin(np.arange(len(values)), best)
        return kept

    def cut(self, keep: Keep) -> tuple[Model, Params]:
        """The smaller network and its parameters."""
        small = self.knife.net.shrink(self.params, keep)
        model = self.model.like(small.params, small.kept)
        return model, self.knife.reestimate(model, small.params)

    def retrain(self, model: Model, params: Params, *, seed: int, fit: Fit | None = None) -> Params:
        """Trains a smaller network as configured; the order of the images follows from `seed`."""
        fit = fit or self.task.retrain
        sampler = Sampler(len(self.data.train.labels), self.task.batch_size, seed=seed)
        steps = round(fit.epochs * sampler.steps_per_epoch)
        if not steps:
            return params
        key = (repr(model.config), repr(fit))
        if key not in self._trainers:
            how = optimizer(fit, steps)
            update = make_update(model, how, shift=fit.shift, flip=fit.flip)
            self._trainers[key] = Trainer(update, how, self.data.train, sampler, seed=seed)
        trainer = self._trainers[key].seeded(sampler, seed)
        return trainer.run(trainer.init(params), 0, steps).params

    def validate(self, model: Model, params: Params) -> float:
        """Accuracy on the validation split."""
        return accuracy(model, params, self.data.validation)

    def test(self, model: Model, params: Params) -> float:
        """Accuracy on the test split: for what is reported, never for what is chosen."""
        images, labels = self.data.test()
        count = self.task.test_images or len(labels)
        return accuracy(model, params, Split(images[:count], labels[:count]))


def natural(path: str) -> list[Any]:
    """Sorts names with numbers as people do.

    >>> sorted(["conv10", "conv2", "fc"], key=natural)
    ['conv2', 'conv10', 'fc']
    """
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path)]
