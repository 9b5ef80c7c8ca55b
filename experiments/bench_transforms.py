"""What a training step costs under each transform of `compressjax.training`, against the plain step.

Part of `experiments.bench`.  LeNet-5 (20-50-500) at batch 128 or ResNet-20 at batch 16, Adam inside.  Every transform
takes turns with the plain step alone, so that both meet the same machine.  What happens once in a while (a projection,
a change of masks) happens once in the steps of a round.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from experiments.timing import Row, compare, interleaved

STEPS = 32  # of a round, and between refreshes
GOAL = 1.15
KERNELS = "*kernel"
BATCH = {"lenet5": 128, "resnet20": 16}


class Variant(NamedTuple):
    """One way to train.

    Attributes:
      name: Of the transform.
      optimizer: The transform around Adam, or Adam itself where the transform is one of the loss.
      params: What is trained.
      gradient: (what is trained, images, labels) -> loss and gradient.
      goal: Largest ratio to the plain step.
    """

    name: str
    optimizer: Any
    params: Any
    gradient: Callable[..., Any]
    goal: float | None = GOAL


def transforms(repeats: int, small: bool = False, network: str = "lenet5") -> list[Row]:
    """A row per transform: the median ratio of its step to the plain step.

    Args:
      repeats: Rounds.
      small: A few steps of a small batch: a check that it runs.
      network: One of `BATCH`.
    """
    import jax
    import jax.numpy as jnp
    import optax

    from compressjax import zoo
    from experiments.fitting import scale

    batch, steps = (8, 2) if small else (BATCH[network], STEPS)
    model = zoo.build(network)
    rng = np.random.default_rng(0)
    images = scale(jnp.asarray(rng.integers(0, 256, (steps, batch, *model.input_shape), np.uint8)))
    labels = jnp.asarray(rng.integers(0, 10, (steps, batch), np.int32))

    def loss(params: Any, x: Any, y: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(model.apply(params, x), y).mean()

    def driven(variant: Variant) -> Callable[[], object]:
        @jax.jit
        def step(params: Any, state: Any, x: Any, y: Any) -> Any:
            _, gradient = variant.gradient(params, x, y)
            updates, state = variant.optimizer.update(gradient, state, params)
            return optax.apply_updates(params, updates), state

        first = variant.params, jax.jit(variant.optimizer.init)(variant.params)

        def drive() -> object:
            carry = first
            for x, y in zip(images, labels, strict=True):
                carry = step(*carry, x, y)
            return jax.block_until_ready(carry)

        return drive

    params = model.init(jax.random.key(0))
    adam = optax.with_extra_args_support(optax.adam(1e-3))
    plain = driven(Variant("plain", adam, params, jax.value_and_grad(loss)))
    rows = []
    for variant in variants(loss, params, adam, steps):
        found = interleaved({"plain": plain, "variant": driven(variant)}, repeats)
        of = {name: timing.per(steps) for name, timing in found.items()}
        goal = None if small else variant.goal
        rows.append(compare("transforms", f"{variant.name} step to plain", of["variant"], of["plain"], goal))
    return rows


def variants(loss: Callable[..., Any], params: Any, adam: Any, steps: int = STEPS) -> Iterator[Variant]:
    """Every transform with usual settings, on the kernels of a network.

    Args:
      loss: Of (parameters, images, labels).
      params: Of the network.
      adam: The inner optimizer.
      steps: Between refreshes.
    """
    import jax

    from compressjax import projections, training
    from compressjax.projections import NM, Cardinality, Filters
    from compressjax.quantizers import Codebook, Coded, LearnedStep, Levels

    sparse, levels = {KERNELS: Cardinality(0.05)}, {KERNELS: Levels(3)}
    alive = projections.supports(sparse, params)
    pruned = projections.project(sparse, params)
    rounded = projections.project(levels, params)
    shared = projections.project({KERNELS: Codebook(3)}, params)
    learned = {KERNELS: LearnedStep(4)}
    plain = jax.value_and_grad(loss)
    key = jax.random.key(0)
    often, never = steps, 100_000

    def on(start: Any, name: str, optimizer: Any) -> Variant:
        return Variant(name, optimizer, start, plain)

    yield on(params, "admm", training.admm(adam, sparse, rho=0.01, every=often))
    yield on(pruned, "masked", training.masked(adam, alive))
    yield on(params, "gradual_magnitude", training.gradual_magnitude(adam, sparse, begin=0, end=never, every=often))
    yield on(pruned, "rigl", training.rigl(adam, alive, every=often, end=never))
    yield on(pruned, "set_", training.set_(adam, alive, key, every=often, end=never))
    half, end = max(1, steps // 2), max(2, steps * 3 // 4)
    yield on(params, "acdc", training.acdc(adam, sparse, boundaries=(half, end, never)))
    thresholded = jax.value_and_grad(lambda trained, x, y: loss(training.thresholded(trained), x, y))
    yield Variant("soft_threshold", adam, training.soft_threshold(params, {KERNELS: -5.0}), thresholded)
    yield on(params, "powerprop", training.powerprop(adam, {KERNELS: 2.0}))
    yield on(params, "ssgd", training.ssgd(adam, {KERNELS: training.PNorm(1.0)}, scale="updates"))
    yield on(params, "group_lasso", training.group_lasso(adam, {KERNELS: Filters()}, 1e-4, step_size=1e-3))
    yield on(params, "slimming", training.slimming(adam, 1e-4, step_size=1e-3, scales=(KERNELS,)))
    yield on(params, "gradual_freeze", training.gradual_freeze(adam, levels, every=often))
    yield on(rounded, "tied, levels", training.tied(adam, levels))
    yield on(shared, "tied, codebook", training.tied(adam, {KERNELS: Codebook(3)}))
    yield on(params, "ternary_gradients", training.ternary_gradients(adam, key))
    yield on(params, "latent, 1:2", training.latent(adam, {KERNELS: NM(1, 2, axis=-1)}))
    yield on(params, "latent, sparse", training.latent(adam, sparse))
    yield on(params, "latent, levels", training.latent(adam, levels))
    trained = training.with_levels(params, learned)
    yield Variant("learned_levels", adam, trained, jax.value_and_grad(training.learned_levels(loss, learned)))
    yield Variant("straight_through, levels", adam, params, jax.value_and_grad(training.straight_through(loss, levels)))
    yield on(params, "rate_penalty", training.rate_penalty(adam, {KERNELS: Coded(1.0)}, 1e-6))
    twice = training.sharpness_aware(loss, 0.05)
    yield Variant("sharpness_aware (two gradients)", adam, params, twice, goal=None)
