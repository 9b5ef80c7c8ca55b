"""Retraining a cut network with help from the dense one: its probabilities, its features, or what tells classes apart.

    loss = CE(labels) + output * CE(teacher's probabilities) + inner * (hint or discriminant loss on one feature map)

The feature map is that of the group in the middle of the network, pooled to 4 x 4.  Directions of the teacher are
fitted once, those of the student again every `refit` steps; both on training images.

Part of `experiments.cdc`.  Source: Liu, Wentzlaff, Kung, ICPR 2022 (arXiv 2110.10864).
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from compressjax import channels, training
from compressjax.data import Sampler
from compressjax.zoo import Model, update_statistics
from experiments.cdc_config import Teaching
from experiments.channel_scores import pool
from experiments.fitting import scale
from experiments.phases import optimizer
from experiments.pruning_tasks import PruningTask

Params = Any
Features = Callable[[Params, jax.Array], jax.Array]


def features_of(model: Model, path: str, batch: int, *, train: bool) -> Features:
    """What the readers of the channels of one kernel see, pooled: (parameters, images) -> (images, ..., channels).

    Args:
      model: The network.
      path: A producing kernel.
      batch: Images per call.
      train: Whether batch normalization normalizes by the batch.
    """
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    images = jax.ShapeDtypeStruct((batch, *model.input_shape), jnp.float32)
    apply = (lambda p, x: model.apply_train(p, x)[0]) if train else model.apply
    net = channels.trace(apply, shapes, images)
    name = net.at(path, len(net.axes[path]) - 1)[0]
    taps = net.taps([name])
    return lambda params, x: pool(taps(params, x)[name][0])


def taught(
    task: PruningTask, model: Model, params: Params, seed: int, *, kind: str, settings: Teaching, path: str
) -> Params:
    """Retrains a smaller network as its task says, with one kind of help.

    Args:
      task: Its dense network is the teacher.
      model: The smaller network.
      params: Its parameters after the cut.
      seed: Of the order of the images.
      kind: One of `cdc_config.TEACHING`.
      settings: Weights, and how often directions are fitted.
      path: Producing kernel of the feature map that is compared.

    Returns:
      Trained parameters.
    """
    fit, size = task.task.retrain, task.task.batch_size
    sampler = Sampler(len(task.data.train.labels), size, seed=seed)
    steps = round(fit.epochs * sampler.steps_per_epoch)
    ours = features_of(model, path, size, train=True)
    theirs = features_of(task.model, path, size, train=False)
    like = jax.ShapeDtypeStruct((size, *model.input_shape), jnp.float32)
    shapes = [jax.eval_shape(f, p, like).shape for f, p in ((ours, params), (theirs, task.params))]
    trained: dict[str, Any] = {"student": params}
    if kind == "hint":
        width, wide = (shape[-1] for shape in shapes)
        trained["hint"] = jax.random.normal(jax.random.key(seed), (width, wide)) / np.sqrt(width)
    # As many directions as classes, where both networks have room for them.
    count = min(task.data.classes, *(math.prod(shape[1:]) for shape in shapes))
    transform = optimizer(fit, steps)

    def loss(trained: Params, teacher: Params, x: jax.Array, y: jax.Array, bases: Any) -> Any:
        logits, statistics = model.apply_train(trained["student"], x)
        value = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
        if kind != "none":
            value += settings.output * training.output_loss(logits, task.model.apply(teacher, x))
        if kind == "hint":
            value += settings.inner * training.hint_loss(
                ours(trained["student"], x), theirs(teacher, x), trained["hint"]
            )
        if kind == "discriminant":
            value += settings.inner * training.discriminant_loss(
                ours(trained["student"], x), theirs(teacher, x), *bases
            )
        return value, statistics

    @jax.jit
    def step(trained: Params, state: Any, teacher: Params, x: jax.Array, y: jax.Array, bases: Any) -> Any:
        gradient, statistics = jax.grad(loss, has_aux=True)(trained, teacher, scale(x), y, bases)
        updates, state = transform.update(gradient, state, trained)
        trained = optax.apply_updates(trained, updates)
        return {**trained, "student": update_statistics(trained["student"], statistics)}, state

    state = jax.jit(transform.init)(trained)
    fixed = directions(task, theirs, task.params, settings, count) if kind == "discriminant" else None
    evaluated = features_of(model, path, size, train=False)
    bases: Any = ()
    for number in range(steps):
        if kind == "discriminant" and number % settings.refit == 0:
            bases = (directions(task, evaluated, trained["student"], settings, count), fixed)
        index = sampler.indices(number)
        x, y = jnp.asarray(task.data.train.images[index]), jnp.asarray(task.data.train.labels[index])
        trained, state = step(trained, state, task.params, x, y, bases)
    return trained["student"]


def directions(task: PruningTask, features: Features, params: Params, settings: Teaching, count: int) -> jax.Array:
    """The first discriminant directions of a feature map."""
    size = task.task.batch_size
    see = jax.jit(features)
    seen = [(np.asarray(see(params, x)), np.asarray(y)) for x, y in task.batches(settings.images, size)]
    found, labels = (np.concatenate(parts) for parts in zip(*seen, strict=True))
    return training.discriminants(found, labels, task.data.classes, count).directions
