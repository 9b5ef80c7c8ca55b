"""Every score of channels by name, on a pruning task: of weights, of gradients, class-discriminative, and formulas.

Part of `experiments.cdc` and `experiments.evolve`.  Statistics of feature maps are taken once, from training images.
"""

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from compressjax import channels, scores
from compressjax.projections import producers
from compressjax.search import expressions
from experiments.fitting import make_loss
from experiments.pruning_tasks import PruningTask

OF_STATISTICS = {
    "absolute_snr": scores.absolute_snr,
    "fisher_ratio": scores.fisher_ratio,
    "symmetric_divergence": scores.symmetric_divergence,
    "two_sample_t": scores.two_sample_t,
}
OF_FEATURES: dict[str, Callable[[Any, Any], Any]] = {
    "discriminant_information": scores.discriminant_information,
    "information_loss": scores.information_loss,
    "mmd": scores.mmd,
}
DISCRIMINATIVE = (*OF_STATISTICS, *OF_FEATURES)
OF_WEIGHTS = ("l1", "l2", "geometric_median", "taylor", "random")
FOUND = tuple(expressions.FOUND)  # the published evolved functions
NAMES = (*DISCRIMINATIVE, *OF_WEIGHTS, *FOUND)
BATCH = 250
SIDE = 4  # feature maps are averaged to this many positions a side before formulas and kernels see them


class ChannelScores:
    """Scores on one task, each a dictionary from group to (size,) float64, larger is kept.

    Args:
      task: The trained network and its data.
      formulas: Names of further scores, and their formulas in the syntax of `expressions.parse`.
      offset: Number of the first training image that is seen; other offsets give other samples.
    """

    def __init__(self, task: PruningTask, formulas: Mapping[str, str] | None = None, *, offset: int = 0):
        self.task, self.offset = task, offset
        self.formulas = {**{name: expressions.FOUND[name] for name in FOUND}, **(formulas or {})}
        self._relabel: Callable[[np.ndarray], np.ndarray] = lambda labels: labels
        self._classes = task.data.classes
        shapes = jax.eval_shape(task.model.init, jax.random.key(0))
        first, _ = next(self.batches())  # the size of all of them, fewer than BATCH if there are fewer to see
        images = jax.ShapeDtypeStruct((len(first), *task.model.input_shape), jnp.float32)
        names = [group.name for group in task.groups]
        self._taps = channels.trace(task.model.apply, shapes, images).taps(names)

    def with_labels(self, relabel: Callable[[np.ndarray], np.ndarray], classes: int) -> "ChannelScores":
        """The same images and taps with other labels, such as coarse ones."""
        other = copy.copy(self)
        for name in ("statistics", "whole_statistics", "terminals"):
            other.__dict__.pop(name, None)
        other._relabel, other._classes = relabel, classes
        return other

    def batches(self) -> Iterator[tuple[jax.Array, np.ndarray]]:
        """Scaled training images with labels, `score_images` of them."""
        for images, labels in self.task.batches(self.task.task.score_images, BATCH, offset=self.offset):
            yield images, self._relabel(np.asarray(labels))

    def pooled(self, params: Any, x: jax.Array) -> dict[str, tuple[jax.Array, ...]]:
        """Taps with feature maps averaged to at most 4 x 4 positions."""
        return {name: tuple(pool(array) for array in arrays) for name, arrays in self._taps(params, x).items()}

    @functools.cached_property
    def statistics(self) -> Mapping[str, tuple[scores.OneVsRest, ...]]:
        """Class by class, of pooled feature maps."""
        return scores.class_statistics(self.pooled, self.task.params, self.batches(), self._classes)

    @functools.cached_property
    def whole_statistics(self) -> Mapping[str, tuple[scores.OneVsRest, ...]]:
        """Class by class, of whole feature maps: what the published scores see."""
        return scores.class_statistics(self._taps, self.task.params, self.batches(), self._classes)

    @functools.cached_property
    def terminals(self) -> dict[str, list[dict[str, np.ndarray]]]:
        """What formulas read, per group and tap."""
        rows = scores.member_rows(self.task.params, producers(self.task.groups, self.task.params))
        return {
            name: [_host(expressions.terminals(one, rows[name])) for one in found]
            for name, found in self.statistics.items()
        }

    def score(self, name: str) -> dict[str, np.ndarray]:
        """One score by name.

        Raises:
          ValueError: If there is no such score.
        """
        if name == "random":
            return _host(scores.random(jax.random.key(self.offset), self.task.groups))
        if name == "taylor":
            return _host(scores.taylor(self.task.params, self._gradients(), self.task.groups))
        if name in OF_WEIGHTS:
            return self.task.knife.score(self.task.params, name)
        if name in OF_STATISTICS:
            return _host(scores.discriminative(self.whole_statistics, OF_STATISTICS[name]))
        if name in OF_FEATURES:
            return _host(scores.feature_scores(self.pooled, self.task.params, self.batches(), OF_FEATURES[name]))
        if name not in self.formulas:
            raise ValueError(f"There is no score {name!r}; choose one of {', '.join((*NAMES, *self.formulas))}.")
        return {group: row[0] for group, row in self.evaluate(self.program(name)).items()}

    def _gradients(self) -> Iterator[Any]:
        """Of the mean loss, batch by batch."""
        loss = make_loss(self.task.model, None)
        gradient = jax.jit(jax.grad(lambda params, x, y: loss(params, x, y, None)[0]))
        for x, y in self.batches():
            yield gradient(self.task.params, x, jnp.asarray(y))

    def program(self, name: str) -> expressions.Programs:
        """A formula as a population of one."""
        found = expressions.parse(self.formulas[name])
        return expressions.stacked([found], len(found.tokens))

    def evaluate(self, programs: expressions.Programs) -> dict[str, np.ndarray]:
        """Scores of all channels by all programs: group -> (population, size) float64, the mean over taps.

        Not-a-number is minus infinity.
        """
        out = {}
        for group, taps in self.terminals.items():
            found = [expressions.shared(programs, arrays) for arrays in taps]
            out[group] = np.mean(np.asarray(found, np.float64), axis=0)
        return out


def pool(features: jax.Array, side: int = SIDE) -> jax.Array:
    """Averages feature maps (samples, ..., channels) to at most `side` positions on each of two axes, side^2 on one.

    >>> pool(jnp.arange(8.0).reshape(1, 8, 1), side=2)[0, :, 0].tolist()
    [0.5, 2.5, 4.5, 6.5]
    """
    most = side * side if features.ndim == 3 else side
    for axis in range(1, features.ndim - 1):
        size = features.shape[axis]
        if size > most:
            parts = np.array_split(np.arange(size), most)
            mean = np.stack([np.isin(np.arange(size), part) / len(part) for part in parts]).astype(np.float32)
            features = jnp.moveaxis(jnp.tensordot(jnp.moveaxis(features, axis, -1), mean.T, 1), -1, axis)
    return features


def _host(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(array) for name, array in arrays.items()}
