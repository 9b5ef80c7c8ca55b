"""Training one network for a number of steps: the loop under every phase of a run.

On a CPU one jitted step is driven from Python, because XLA:CPU runs the gradient of a convolution about 14 times slower
inside a loop; ``loop="scan"`` runs whole chunks in one program where that is faster (accelerators).
"""

import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from compressjax import trees
from compressjax.data import Sampler, Split
from compressjax.training import output_loss
from compressjax.zoo import Model, update_statistics
from experiments.distributed import ALONE, Fleet

EVALUATION_BATCH = 1000
CHUNK = 64  # steps whose images a scanned loop over many processes holds at a time


class Carry(NamedTuple):
    """What a training step carries."""

    params: Any
    optimizer: optax.OptState
    bad: jax.Array  # (leaves,) int32: first step at which the gradient of this leaf was not finite, -1 if none
    loss: jax.Array  # () float32: running mean over the current log window


Update = Callable[..., Carry]


@dataclass(frozen=True)
class Teacher:
    """Logits of a teacher for every training image at every translation: (shifts, images, classes) float32."""

    logits: jax.Array
    weight: float
    temperature: float


def scale(images: jax.Array) -> jax.Array:
    """Pixels uint8 [0, 255] -> float32 [0, 1]."""
    return images.astype(jnp.float32) / 255.0


def translate(images: jax.Array, offsets: jax.Array, radius: int) -> jax.Array:
    """Translates image i by ``offsets[i]`` pixels (rows, columns), each in [-radius, radius], filling with zeros.

    >>> x = jnp.eye(3)[None, :, :, None]
    >>> translate(x, jnp.array([[1, 0]]), 1)[0, :, :, 0].tolist()
    [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    padded = jnp.pad(images, ((0, 0), (radius, radius), (radius, radius), (0, 0)))
    size = images.shape[1:]
    crop = lambda image, at: jax.lax.dynamic_slice(image, (radius - at[0], radius - at[1], 0), size)  # noqa: E731
    return jax.vmap(crop)(padded, offsets)


def make_loss(model: Model, teacher: Teacher | None) -> Callable[..., tuple[jax.Array, dict[str, jax.Array]]]:
    """Cross-entropy, mixed with distillation when there is a teacher.

    Returns:
      loss(params, x, labels, teacher logits) -> (loss, statistics of the batch for every batch normalization).
    """

    def loss(
        params: Any, x: jax.Array, labels: jax.Array, logits: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        outputs, statistics = model.apply_train(params, x)
        task = optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean()
        if teacher is None or logits is None:
            return task, statistics
        soft = output_loss(outputs, logits, teacher.temperature)
        return (1.0 - teacher.weight) * task + teacher.weight * soft, statistics

    return loss


def make_update(
    model: Model,
    optimizer: optax.GradientTransformationExtraArgs,
    *,
    shift: int = 0,
    flip: bool = False,
    teacher: Teacher | None = None,
) -> Update:
    """One training step on a batch: update(carry, images, labels, key, taught, number) -> carry.

    `taught` looks up the teacher's logits: number of each image's translation (batch,) -> (batch, classes).

    Args:
      model: What is trained.
      optimizer: How.
      shift: Images move by up to so many pixels, at random.
      flip: Whether half of them are mirrored.
      teacher: Whose logits are learned beside the labels, if any.
    """
    loss = make_loss(model, teacher)

    def update(
        carry: Carry,
        images: jax.Array,
        labels: jax.Array,
        key: jax.Array,
        taught: Callable[[jax.Array], jax.Array],
        number: jax.Array,
    ) -> Carry:
        x, y = scale(images), labels
        targets = None
        place = jnp.zeros(y.shape, jnp.int32)
        if shift:
            offsets = jax.random.randint(key, (y.shape[0], 2), -shift, shift + 1)
            x = translate(x, offsets, shift)
            place = (offsets[:, 0] + shift) * (2 * shift + 1) + offsets[:, 1] + shift
        if flip:
            mirrored = jax.random.bernoulli(jax.random.fold_in(key, 1), shape=y.shape)
            x = jnp.where(mirrored[:, None, None, None], x[:, :, ::-1], x)
        if teacher is not None:
            targets = taught(place)
        (value, statistics), gradient = jax.value_and_grad(loss, has_aux=True)(carry.params, x, y, targets)
        finite = jnp.stack([jnp.isfinite(jnp.sum(jnp.abs(g))) for g in jax.tree.leaves(gradient)])
        bad = jnp.where((carry.bad < 0) & ~finite, number, carry.bad)
        updates, state = optimizer.update(gradient, carry.optimizer, carry.params)
        params = update_statistics(optax.apply_updates(carry.params, updates), statistics)
        return Carry(params, state, bad, carry.loss + value)

    return update


def make_step(update: Update) -> Callable[..., Carry]:
    """One training step on rows of the data: step(carry, images, labels, index, key, logits, number) -> carry."""

    def step(
        carry: Carry,
        images: jax.Array,
        labels: jax.Array,
        index: jax.Array,
        key: jax.Array,
        logits: jax.Array,
        number: jax.Array,
    ) -> Carry:
        return update(carry, images[index], labels[index], key, lambda place: logits[place, index], number)

    return step


class Trainer:
    """Runs steps of one phase; `carry` is all the state there is.

    Args:
      update: By `make_update`.
      optimizer: The one in it, whose state a carry holds.
      train: Images and labels.
      sampler: Which of them a step sees.
      seed: Of the random numbers of every step.
      teacher: The one in `update`, if any.
      loop: "step" or "scan".
    """

    def __init__(
        self,
        update: Update,
        optimizer: optax.GradientTransformationExtraArgs,
        train: Split,
        sampler: Sampler,
        *,
        seed: int,
        teacher: Teacher | None = None,
        loop: str = "step",
    ):
        self.optimizer, self.sampler, self.loop = optimizer, sampler, loop
        self._key = jax.random.key(seed)
        self._prepare(update, train, teacher)

    def _prepare(self, update: Update, train: Split, teacher: Teacher | None) -> None:
        """Puts the data where the steps read it, and makes their programs."""
        self._arrays = (jnp.asarray(train.images), jnp.asarray(train.labels))
        self._logits = teacher.logits if teacher else jnp.zeros((0,))
        step = make_step(update)

        @jax.jit
        def one(carry: Carry, images: Any, labels: Any, logits: Any, index: Any, number: Any, key: Any) -> Carry:
            return step(carry, images, labels, index, jax.random.fold_in(key, number), logits, number)

        @jax.jit
        def many(carry: Carry, images: Any, labels: Any, logits: Any, index: Any, numbers: Any, key: Any) -> Carry:
            def body(carry: Carry, now: Any) -> tuple[Carry, None]:
                return one(carry, images, labels, logits, now[0], now[1], key), None

            return jax.lax.scan(body, carry, (index, numbers))[0]

        self._one, self._many = one, many

    def seeded(self, sampler: Sampler, seed: int) -> "Trainer":
        """The same trainer, compiled already, on images in another order and with other random numbers."""
        other = copy.copy(self)
        other.sampler, other._key = sampler, jax.random.key(seed)
        return other

    def init(self, params: Any) -> Carry:
        """A fresh carry: optimizer state from `params`, nothing bad seen."""
        count = len(jax.tree.leaves(params))
        params = jax.tree.map(jnp.asarray, params)
        state = jax.jit(self.optimizer.init)(params)
        return Carry(params, state, jnp.full((count,), -1, jnp.int32), jnp.zeros((), jnp.float32))

    def place(self, carry: Carry) -> Carry:
        """A carry where the steps expect it."""
        return carry

    def run(self, carry: Carry, begin: int, end: int) -> Carry:
        """Steps `begin` .. `end` - 1 of the phase.

        Raises:
          ValueError: If a gradient or weight became NaN or infinite, naming step and leaf.
        """
        carry = self.steps(carry, begin, end)
        check_finite(carry, end)
        return carry

    def steps(self, carry: Carry, begin: int, end: int) -> Carry:
        """As `run`, without looking at the numbers."""
        images, labels = self._arrays
        if self.loop == "scan":
            index = np.stack([self.sampler.indices(number) for number in range(begin, end)])
            numbers = np.arange(begin, end, dtype=np.int32)
            carry = self._many(carry, images, labels, self._logits, index, numbers, self._key)
        else:
            for number in range(begin, end):
                index = self.sampler.indices(number)
                carry = self._one(carry, images, labels, self._logits, index, np.int32(number), self._key)
        return carry


class SharedTrainer(Trainer):
    """A trainer whose batches are split over the mesh of a fleet; every process calls it alike.

    Args:
      fleet: The processes.
      *args: As for `Trainer`.
      **kwargs: Likewise.
    """

    def __init__(self, fleet: Fleet, *args: Any, **kwargs: Any):
        self._fleet = fleet
        super().__init__(*args, **kwargs)

    def _prepare(self, update: Update, train: Split, teacher: Teacher | None) -> None:
        self._train = train
        self._table = np.asarray(teacher.logits) if teacher else np.zeros((1, len(train.labels), 0), np.float32)
        self._shared_one, self._shared_many = shared_programs(update, self._fleet.mesh)

    def place(self, carry: Carry) -> Carry:
        return self._fleet.replicate(carry)

    def init(self, params: Any) -> Carry:
        return self.place(super().init(params))

    def steps(self, carry: Carry, begin: int, end: int) -> Carry:
        size = CHUNK if self.loop == "scan" else 1
        for first in range(begin, end, size):
            numbers = np.arange(first, min(first + size, end), dtype=np.int32)
            index = np.stack([self.sampler.indices(int(number)) for number in numbers])
            if self.loop == "scan":
                carry = self._shared_many(carry, *self._batch(index.T), numbers, self._key)
            else:
                carry = self._shared_one(carry, *self._batch(index[0]), numbers[0], self._key)
        return carry

    def _batch(self, index: np.ndarray) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Images (batch, ...), labels (batch,) and logits (shifts, batch, ...) of rows (batch,) or (batch, steps)."""
        feed = self._fleet.feed
        return (
            feed(lambda rows: self._train.images[rows], index),
            feed(lambda rows: self._train.labels[rows], index),
            feed(lambda rows: self._table[:, rows], index, 1),
        )


def shared_programs(update: Update, mesh: Any) -> tuple[Callable[..., Carry], Callable[..., Carry]]:
    """The steps of `SharedTrainer`, jitted: the carry comes and goes whole on every device of `mesh`.

    Returns:
      one(carry, images, labels, table, number, key) -> carry, with table (shifts, batch, classes) the teacher's logits
      of the batch; and many, the same scanned over a last-but-batch axis of steps and over `numbers`.
    """
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def one(carry: Carry, images: Any, labels: Any, table: Any, number: Any, key: Any) -> Carry:
        def taught(place: jax.Array) -> jax.Array:
            return jnp.take_along_axis(table, place[None, :, None], axis=0)[0]

        return update(carry, images, labels, jax.random.fold_in(key, number), taught, number)

    def many(carry: Carry, images: Any, labels: Any, table: Any, numbers: Any, key: Any) -> Carry:
        steps = (jnp.moveaxis(images, 1, 0), jnp.moveaxis(labels, 1, 0), jnp.moveaxis(table, 2, 0), numbers)
        return jax.lax.scan(lambda carry, now: (one(carry, *now, key), None), carry, steps)[0]

    return jax.jit(one, out_shardings=whole), jax.jit(many, out_shardings=whole)


def check_finite(carry: Carry, step: int) -> None:
    """Raises ValueError with the step and the leaf's path when a gradient or a weight is not finite."""
    bad = np.asarray(carry.bad)
    paths = list(trees.leaves(carry.params))
    if (bad >= 0).any():
        first = int(bad[bad >= 0].min())
        leaf = paths[int(np.flatnonzero(bad == first)[0])]
        raise ValueError(
            f"The gradient of {leaf} is not finite at step {first}; lower the learning rate. "
            "The last good checkpoint is kept."
        )
    for path, leaf in trees.leaves(carry.params).items():
        if not np.isfinite(np.asarray(leaf)).all():
            raise ValueError(f"The weights of {path} are not finite at step {step}. The last good checkpoint is kept.")


@functools.lru_cache(maxsize=64)
def _forward(apply: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    return jax.jit(lambda params, images: apply(params, scale(images)))


def logits_of(model: Model, params: Any, images: np.ndarray) -> np.ndarray:
    """Outputs (images, classes) float32, computed in batches of at most 1,000."""
    forward = _forward(model.apply)
    parts = [forward(params, images[i : i + EVALUATION_BATCH]) for i in range(0, len(images), EVALUATION_BATCH)]
    return np.concatenate([np.asarray(part) for part in parts])


@functools.lru_cache(maxsize=64)
def _correct(apply: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    return jax.jit(lambda params, images, labels: (apply(params, scale(images)).argmax(-1) == labels).sum())


def accuracy(model: Model, params: Any, split: Split, fleet: Fleet = ALONE) -> float:
    """Share of correct predictions on a split; a fleet with a mesh, whose `params` lie on it, shares the images."""
    if fleet.mesh is not None:
        shares, total = fleet.mesh.shape["data"], 0
        batch = -(-EVALUATION_BATCH // shares) * shares
        labels = np.append(split.labels, -1)  # row -1 fills the last batch and is never right
        for first in range(0, len(split.labels), batch):
            rows = np.arange(first, first + batch)
            rows = np.where(rows < len(split.labels), rows, -1)
            images = fleet.feed(lambda rows: split.images[rows], rows)
            total += int(_correct(model.apply)(params, images, fleet.feed(lambda rows: labels[rows], rows)))
        return total / len(split.labels)
    return float((logits_of(model, params, split.images).argmax(-1) == split.labels).mean())


def teach(model: Model, params: Any, images: np.ndarray, *, shift: int, weight: float, temperature: float) -> Teacher:
    """Tabulates a teacher's logits at every translation, so that distillation costs no forward pass per step."""

    @jax.jit
    def forward(params: Any, batch: jax.Array, offset: jax.Array) -> jax.Array:
        x = scale(batch)
        if shift:
            x = translate(x, jnp.broadcast_to(offset, (x.shape[0], 2)), shift)
        return model.apply(params, x)

    table = []
    for offset in _offsets(shift):
        rows = [
            np.asarray(forward(params, images[i : i + EVALUATION_BATCH], offset))
            for i in range(0, len(images), EVALUATION_BATCH)
        ]
        table.append(np.concatenate(rows))
    return Teacher(jnp.asarray(np.stack(table)), weight, temperature)


def _offsets(shift: int) -> Iterator[np.ndarray]:
    for row in range(-shift, shift + 1):
        for column in range(-shift, shift + 1):
            yield np.array([row, column], np.int32)
