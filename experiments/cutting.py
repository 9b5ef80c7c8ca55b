"""Cuts of a trained network: trace its channel groups, score them, choose, remove, and re-estimate the statistics.

Everything here is a function of the dense parameters, the training images and one `Cut`; validation images judge the
candidates of greedy trimming, and nothing else.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from compressjax import channels, cost, projections, scores, search, training, trees, zoo
from compressjax.data import Dataset
from compressjax.projections import producers, readers
from compressjax.zoo import Model
from experiments.cuts import Cut, ShrinkConfig, cut_name
from experiments.fitting import make_loss, scale
from experiments.phases import learning_rate, optimizer, solver_admm
from experiments.platforms import latency_of

Params = Any
Keep = Mapping[str, np.ndarray]
BATCH = 256


@dataclass(frozen=True, eq=False)
class Knife:
    """A dense network, traced, with everything that a cut of it needs.

    Attributes:
      config: The run's configuration.
      model: The dense network.
      data: The data set; its test split is never read here.
      cache: Folder for measurements of this machine.
      net: Its channel groups, traced at the batch at which latency counts.
    """

    config: ShrinkConfig
    model: Model
    data: Dataset
    cache: Path | None = None

    @functools.cached_property
    def net(self) -> channels.Net:
        """The traced network."""
        return channels.trace(self.model.apply, *self._shapes())

    @functools.cached_property
    def layers(self) -> Callable[[Mapping[str, Any]], cost.Layers]:
        """Widths (group -> count) -> layers of one call."""
        return cost.of_widths(self.net, cost.layers(self.model.apply, *self._shapes()))

    def _shapes(self) -> tuple[Params, jax.ShapeDtypeStruct]:
        """Shapes of the dense parameters and of the images of one call."""
        images = jax.ShapeDtypeStruct((self.config.latency_batch, *self.model.input_shape), jnp.float32)
        return jax.eval_shape(self.model.init, jax.random.key(0)), images

    @functools.cached_property
    def groups(self) -> tuple[channels.Group, ...]:
        """The groups that may be cut: those that touch no leaf under `config.fixed`."""
        paths = tuple(self.net.axes)
        for pattern in self.config.fixed:
            if not any(fnmatchcase(path, pattern) for path in paths):
                raise ValueError(f"config.fixed names {pattern!r}, which matches no leaf of {self.model.name}.")
        held = [
            group
            for group in self.net.groups
            if not any(fnmatchcase(m.path, pattern) for m in group.members for pattern in self.config.fixed)
        ]
        if not held:
            raise ValueError(f"config.fixed leaves no group of {self.model.name} that may be cut.")
        return tuple(held)

    def price(self, name: str) -> Callable[[Mapping[str, Any]], Any]:
        """Widths (group -> count) -> cost: MACs per example, or seconds of a platform for one batch."""
        layers = self.layers
        if name == "macs":
            return lambda widths: jnp.sum(jnp.asarray(cost.macs(layers(widths)))) / self.config.latency_batch
        return latency_of(name, layers, self.cache)

    def check(self) -> None:
        """Tries what the configuration names on the network's shapes, before anything is trained.

        Raises:
          ValueError: If a rule matches nothing or the wrong thing, a width exceeds its group, more is asked for
            than the floors let go, or a score or the sparsifying method finds nothing to look at.
        """
        shapes, _ = self._shapes()
        for cut in self.config.cuts:
            self.wanted(shapes, cut.widths)
            if not cut.widths and cut.allocation != "zeros" and cut.cost != "host":  # the host would have to be timed
                self._check_reach(cut)
        producers(self.groups, shapes)  # every cut scores
        if any(cut.score == "importance" for cut in self.config.cuts):
            readers(self.groups, shapes)
        if any(cut.score == "norm_scale" for cut in self.config.cuts):
            for group in self.groups:
                if not any(fnmatchcase(member.path, "*scale") for member in group.members):
                    raise ValueError(
                        f"norm_scale has no score for the channels of {group.members[0].path}: no normalization "
                        "follows them. Choose another score, or name them in config.fixed."
                    )
        for path in trees.assign(self.config.sparsify.groups, shapes):
            self.produced(path)
        if self.config.sparsify.epochs:
            jax.eval_shape(sparsifier(self, shapes, 1).init, shapes)

    def _multiple(self, cut: Cut) -> int:
        return cut.multiple or self.config.multiple

    def _check_reach(self, cut: Cut) -> None:
        """Raises `ValueError` if a cut asks for more than goes with every group at its floor."""
        equal = {group.name: np.ones(group.size) for group in self.groups}
        least = channels.allocate(self.groups, equal, 0.0, multiple=self._multiple(cut), floor=self.config.floor)
        price = self.price(cut.cost)
        left = float(price({name: int(kept.sum()) for name, kept in least.items()})) / float(price({}))
        if left > (1 - cut.removed) * (1 + 1e-6):
            raise ValueError(
                f"{cut_name(cut)}: with every group at config.floor {self.config.floor:g} of its channels, "
                f"{1 - left:.1%} of the cost goes, not {cut.removed:.1%}: lower the floor or remove less."
            )

    def cut(self, params: Params, cut: Cut) -> tuple[Params, Model, dict[str, Any]]:
        """Removes channels.

        Args:
          params: Of the dense network.
          cut: Which, how many, by what cost.

        Returns:
          Smaller parameters with re-estimated statistics, their network, and what was done, for the report.
        """
        params = jax.tree.map(jnp.asarray, params)
        keep, rounds = self.choose(params, cut)
        small = self.net.shrink(params, keep)
        model = self.model.like(small.params, small.kept)
        params = self.reestimate(model, small.params)
        widths = {name: int(vector.sum()) for name, vector in small.keep.items()}
        return params, model, {"widths": widths, **({"rounds": rounds} if rounds else {})}

    def choose(self, params: Params, cut: Cut) -> tuple[Keep, list[dict[str, Any]]]:
        """The keep set of a cut, and the rounds of greedy trimming if there were any."""
        if cut.widths:  # instead of any allocation
            return self._to_widths(params, cut), []
        if cut.allocation == "zeros":
            return self._nonzero(params), []
        price = self.price(cut.cost)
        if cut.allocation == "trim":
            return self._trim(params, cut, price)
        ranked = self.score(params, cut.score)
        if cut.allocation == "per_cost":
            saved = self._savings(price)
            ranked = {name: values / saved[name] for name, values in ranked.items()}

        def keep_at(share: float) -> Keep:
            return channels.allocate(
                self.groups,
                ranked,
                share,
                ranking="group" if cut.allocation == "uniform" else "global",
                normalize=cut.allocation == "global",
                multiple=self._multiple(cut),
                floor=self.config.floor,
            )

        whole = float(price({group.name: group.size for group in self.net.groups}))
        return search.at_cost(keep_at, price, (1 - cut.removed) * whole), []

    def score(self, params: Params, name: str) -> dict[str, np.ndarray]:
        """Per group the score of every member; what is lowest goes first."""
        made = producers(self.groups, params)
        if name == "taylor":
            found = scores.taylor(params, self._gradients(params), self.groups)
        elif name == "random":
            found = scores.random(jax.random.key(self.config.seed), self.groups)
        elif name == "importance":
            found = scores.importance(params, self.groups)
        elif name == "norm_scale":
            found = scores.norm_scale(params, self.groups)
        else:
            found = {"l1": scores.l1, "l2": scores.l2, "geometric_median": scores.geometric_median}[name](params, made)
        return {group: np.asarray(values, np.float64) for group, values in found.items()}

    def _savings(self, price: Callable[[Mapping[str, Any]], Any]) -> dict[str, float]:
        """Per group, what one member costs: the saving of half the group over half its size, which smooths steps."""
        whole = {group.name: float(group.size) for group in self.net.groups}
        full = float(price(whole))
        out = {}
        for group in self.groups:
            half = max(1, group.size // 2)
            out[group.name] = max((full - float(price({**whole, group.name: float(group.size - half)}))) / half, 1e-12)
        return out

    def reestimate(self, model: Model, params: Params) -> Params:
        """New statistics for every batch normalization, from training images without augmentation."""
        if not any(path.endswith("/var") for path in trees.leaves(params)):
            return params
        return zoo.reestimate(model.apply_train, params, self._batches(self.config.reestimate_images))

    def _batches(self, images: int) -> Iterator[jax.Array]:
        """Whole batches of the first training images (which are shuffled by the split)."""
        source = self.data.train.images
        size = min(BATCH, images, len(source))
        for begin in range(0, min(images, len(source)) - size + 1, size):
            yield scale(jnp.asarray(source[begin : begin + size]))

    def _gradients(self, params: Params) -> Iterator[Params]:
        loss = make_loss(self.model, None)
        gradient = jax.jit(jax.grad(lambda p, x, y: loss(p, x, y, None)[0]))
        for i, x in enumerate(self._batches(self.config.score_images)):
            labels = self.data.train.labels[i * len(x) : (i + 1) * len(x)]
            yield gradient(params, x, jnp.asarray(labels))

    def _nonzero(self, params: Params) -> Keep:
        """What training drove to zero goes; one member of every group stays."""
        alive = {}
        for name, norms in self.score(params, "l2").items():
            alive[name] = norms > 0
            alive[name][int(np.argmax(norms))] = True
        return alive

    def wanted(self, params: Params, widths: Mapping[str, int]) -> dict[str, int]:
        """Group -> width, from rules over producing kernels.

        Raises:
          ValueError: If a rule matches nothing or the wrong thing, or a width exceeds its group.
        """
        sizes = {group.name: group.size for group in self.groups}
        out = {}
        for path, width in trees.assign(widths, params).items():
            name = self.produced(path)
            if width > sizes[name]:
                raise ValueError(f"widths asks for {width} channels of {path}, which has {sizes[name]}.")
            out[name] = width
        return out

    def produced(self, path: str) -> str:
        """Name of the group that a kernel's last axis is.

        Raises:
          ValueError: If that axis is not one group that may be cut.
        """
        last = len(self.net.axes[path]) - 1
        names = self.net.at(path, last)
        if len(names) != 1 or names[0] not in {group.name for group in self.groups}:
            why = self.net.why(path, last)
            raise ValueError(f"The output channels of {path} are not one group that may be cut. {why}")
        return names[0]

    def _to_widths(self, params: Params, cut: Cut) -> Keep:
        ranked = self.score(params, cut.score)
        keep = {}
        for name, width in self.wanted(params, cut.widths).items():
            order = np.argsort(-ranked[name], kind="stable")[:width]
            keep[name] = np.isin(np.arange(len(ranked[name])), order)
        return keep

    def masked_accuracy(self, count: int = 0) -> Callable[[Params, Keep], float]:
        """(parameters, keep) -> accuracy of the network masked to `keep`.

        Args:
          count: Validation images that judge; by default `config.trim_images`.
        """
        count = count or self.config.trim_images
        images = scale(jnp.asarray(self.data.validation.images[:count]))
        labels = jnp.asarray(self.data.validation.labels[:count])
        calibration = list(self._batches(BATCH))

        @jax.jit
        def correct(masked: Params) -> jax.Array:
            return jnp.mean(self.model.apply(masked, images).argmax(-1) == labels)

        def accuracy(params: Params, keep: Keep) -> float:
            # Masked, not cut: all candidates share one compiled program.
            masked = self.net.mask(params, keep)
            if any(path.endswith("/var") for path in trees.leaves(params)):
                masked = zoo.reestimate(self.model.apply_train, masked, calibration)
            return float(correct(masked))

        return accuracy

    def _trim(
        self, params: Params, cut: Cut, price: Callable[[Mapping[str, Any]], Any]
    ) -> tuple[Keep, list[dict[str, Any]]]:
        accuracy = self.masked_accuracy()

        def score(params: Params) -> dict[str, np.ndarray]:
            return self.score(params, cut.score)

        keep: Keep = {}
        history = []
        for step in search.trim(
            params,
            {group.name: group.size for group in self.groups},
            latency=price,
            score=score,
            accuracy=accuracy,
            speedup=1 / (1 - cut.removed),
            rounds=self.config.trim_rounds,
            floor=self.config.floor,
            multiple=self._multiple(cut),
        ):
            keep = step.keep
            chosen = step.chosen
            history.append(
                {"group": chosen.group, "width": chosen.width, "cost": step.latency, "accuracy": chosen.accuracy}
            )
        return keep, history


def sparsifier(knife: Knife, params: Params, steps: int) -> optax.GradientTransformationExtraArgs:
    """The optimizer of a sparsifying phase: the task's optimizer and, after each step, the penalty's proximal step."""
    settings = knife.config.sparsify
    inner, rate = optimizer(settings, steps), learning_rate(settings, steps)
    if settings.method == "slimming":
        return training.slimming(inner, settings.strength, step_size=rate)
    if settings.method == "admm":
        return solver_admm(settings, target(knife, params), steps)
    scale = {knife.produced(path): factor for path, factor in trees.assign(settings.groups, params).items()}
    reweight = training.Reweight(settings.reweight, settings.delta) if settings.reweight else None
    # Running statistics are no weights: they neither count as energy nor shrink.
    trained = trees.leaves(zoo.trainable(params))
    groups = [
        dataclasses.replace(group, members=tuple(member for member in group.members if trained[member.path]))
        for group in knife.groups
    ]
    return training.group_lasso(
        inner, groups, settings.strength, step_size=rate, scale=scale or None, reweight=reweight
    )


def target(knife: Knife, params: Params) -> dict[str, projections.Joint]:
    """What ADMM trains towards: the configured widths, the same members on all kernels that make a group."""
    return projections.coupled(knife.groups, knife.wanted(params, knife.config.sparsify.widths), params)


def sparsified(knife: Knife, params: Params) -> Params:
    """Parameters at the end of a sparsifying phase: ADMM leaves them near its set, the others put exact zeros."""
    if knife.config.sparsify.method != "admm":
        return params
    return projections.project(target(knife, params), params)
