"""The phases of a compression run: what each one trains, under which transform, and what it leaves behind.

    pretrain -> recover -> (prune -> retrain) per stage -> (admm -> freeze -> tune) per quantization

A phase is plain data plus three functions, so that the runner in `experiments.compress` knows nothing about methods.
The network's zeros are its masks: a phase that must respect them reads them from the parameters it starts with.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from compressjax import channels, projections, quantizers, training, trees
from compressjax.zoo import Model, build
from experiments.schema import Admm, Config, Fit, Quantize, Stage

Params = Any
CONTROL = "gradual_magnitude"
DENSE, CUT = "dense.cjx", "cut.cjx"
LEAN_STEPS = 4  # largest multiple of its scale that a lean bias may be
FREEZE_FRACTIONS = (0.3, 0.5, 0.7, 0.85, 0.95, 1.0)  # shares of the survivors frozen at their level, one per pass


@dataclass(frozen=True)
class Phase:
    """One training phase.

    Attributes:
      name: As in the metrics, e.g. ``"stage-1/admm"``.
      fit: Epochs, learning rates and augmentation.
      optimizer: (parameters at the start, steps) -> transform.
      begin: Parameters left by the phase before -> parameters to start from.
      cut: Instead of `begin`, for a phase that removes channels: -> (parameters, the network they belong to, notes for
        the first metrics record).
      end: Trained parameters -> parameters to hand on.
      artifact: Name of the file to write at the end, if any.
      distill: Whether the dense network teaches this phase.
      inside: network -> what is trained and judged in its place, such as the same network with quantizers inside.
    """

    name: str
    fit: Fit
    optimizer: Callable[[Params, int], optax.GradientTransformationExtraArgs]
    begin: Callable[[Params], Params] = lambda params: params
    cut: Callable[[Params], tuple[Params, Model, Mapping[str, Any]]] | None = None
    end: Callable[[Params], Params] = lambda params: params
    artifact: str | None = None
    distill: bool = True
    inside: Callable[[Model], Any] = lambda model: model


def plan(config: Config, model: Model, load: Callable[[str], Params]) -> list[Phase]:
    """The phases of a run in order.

    Args:
      config: A checked configuration.
      model: The dense network.
      load: Reads back an artefact of this run by name.

    Returns:
      Phases; pure data until they are run.

    Raises:
      ValueError: As `preflight`.
    """
    preflight(config, model)
    phases = []
    if not config.load:
        phases.append(Phase("pretrain", config.pretrain, _plain(config.pretrain), artifact=DENSE, distill=False))
    if config.widths:

        def begin(params: Params) -> Params:
            return channels.cut(params, model.chain, config.widths)

        phases.append(Phase("recover", config.recover, _plain(config.recover), begin=begin, artifact=CUT))
    start = CUT if config.widths else DENSE
    for i, stage in enumerate(config.stages):
        phases += _stage_phases(stage_name(i), stage, config.solver, model)
    if config.control:
        for i, stage in enumerate(config.stages):
            phases += _stage_phases(
                control_name(i),
                stage,
                CONTROL,
                model,
                begin=(lambda _: load(start)) if i == 0 else lambda params: params,
            )
    for quantize in config.quantize:
        phases += _quantize_phases(quantize, model, load)
    return phases


def stage_name(index: int) -> str:
    """Stages are counted from 1 in names and reports."""
    return f"stage-{index + 1}"


def control_name(index: int) -> str:
    """The control's stages, likewise."""
    return f"control-{index + 1}"


def quantized_name(quantize: Quantize) -> str:
    """Name of the artefact of a quantized stage, without suffix."""
    widths = "-".join(str(bits) for bits in quantize.bits.values())
    return f"{stage_name(quantize.stage)}-{quantize.quantizer}-{widths}bit"


def shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """Shapes of a network's leaves by path, without making them."""
    return trees.shapes(jax.eval_shape(model.init, jax.random.key(0)))


def preflight(config: Config, model: Model) -> None:
    """Tries every rule of a configuration on the network's shapes, before anything is trained.

    Raises:
      ValueError: If a width does not fit, a rule matches nothing or a budget exceeds its layer.
    """
    if config.widths:
        wide = model.config["widths"]
        fits = len(config.widths) == len(wide) and all(
            1 <= w <= most for w, most in zip(config.widths, wide, strict=True)
        )
        if not fits:
            raise ValueError(
                f"config.widths is {config.widths}; {model.name} has hidden layers of {tuple(wide)} units."
            )
        model = build(**{**model.config, "widths": config.widths})
    leaves = jax.eval_shape(model.init, jax.random.key(0))
    for i, stage in enumerate(config.stages):
        for path, count in trees.assign(stage.keep, leaves).items():
            size = math.prod(trees.leaves(leaves)[path].shape)
            if count > size:
                raise ValueError(f"config.stages[{i}].keep asks for {count} weights of {path}, which has {size}.")
    for quantize in config.quantize:
        trees.assign(quantizer_rules(quantize), leaves)


def learning_rate(fit: Fit, steps: int) -> Callable[[Any], Any]:
    """The learning rate of a phase by step: a cosine, or that of the coarse schedule."""
    if isinstance(fit, Admm) and fit.every == 0:
        return coarse(fit, steps).learning_rate
    return optax.cosine_decay_schedule(fit.learning_rate, max(steps, 1), fit.final_learning_rate / fit.learning_rate)


def optimizer(fit: Fit, steps: int) -> optax.GradientTransformationExtraArgs:
    """The phase's optimizer at its learning rate; weight decay acts on kernels only."""
    rate = learning_rate(fit, steps)
    inner = optax.adam(rate) if fit.optimizer == "adam" else optax.sgd(rate, momentum=0.9, nesterov=True)
    if not fit.weight_decay:
        return optax.with_extra_args_support(inner)
    decay = optax.add_decayed_weights(fit.weight_decay, mask=_kernels)
    return optax.with_extra_args_support(optax.chain(decay, inner))


def _kernels(params: Params) -> Params:
    return trees.update(
        jax.tree.map(lambda _: False, params), {p: True for p in trees.leaves(params) if p.endswith("kernel")}
    )


def coarse(admm: Admm, steps: int) -> training.Coarse:
    """The published coarse schedule spread over `steps`: a constant penalty, and a constant learning rate for Adam."""
    return training.coarse(
        iterations=admm.iterations,
        steps_per_iteration=max(1, steps // admm.iterations),
        rho=admm.rho,
        learning_rate=admm.learning_rate,
        decay_at=(),
    )


def nonzero_masks(params: Params, rules: Mapping[str, Any]) -> dict[str, Any]:
    """Masks of the non-zero entries of the leaves that `rules` name."""
    known = trees.leaves(params)
    return {path: jnp.asarray(known[path]) != 0 for path in trees.assign(rules, params)}


def constraints(stage: Stage, params: Params) -> dict[str, projections.Cardinality]:
    """The pruning sets of a stage by path.

    Removing dead units may have left a layer with fewer entries than its count; then all of them are kept.
    """
    known = trees.leaves(params)
    return {
        path: projections.Cardinality(min(count, math.prod(known[path].shape)))
        for path, count in trees.assign(stage.keep, params).items()
    }


def quantizer_rules(quantize: Quantize) -> dict[str, quantizers.Quantizer]:
    """The level sets of the weights, by rule."""
    kinds = {"levels": quantizers.Levels, "codebook": quantizers.Codebook}
    return {rule: kinds[quantize.quantizer](bits) for rule, bits in quantize.bits.items()}


def _plain(fit: Fit) -> Callable[[Params, int], optax.GradientTransformationExtraArgs]:
    return lambda params, steps: optimizer(fit, steps)


def _stage_phases(
    name: str,
    stage: Stage,
    solver: str,
    model: Model,
    begin: Callable[[Params], Params] = lambda params: params,
) -> list[Phase]:

    def project(params: Params) -> Params:
        return projections.project(constraints(stage, params), params)

    def solve(params: Params, steps: int) -> optax.GradientTransformationExtraArgs:
        rules = constraints(stage, params)
        if solver == CONTROL:
            inner = training.gradual_magnitude(
                optimizer(stage.prune, steps), rules, begin=0, end=math.ceil(0.75 * steps), every=max(1, steps // 60)
            )
        else:
            inner = solver_admm(stage.prune, rules, steps)
        return training.masked(inner, nonzero_masks(params, rules))

    def retrain(params: Params, steps: int) -> optax.GradientTransformationExtraArgs:
        return training.masked(optimizer(stage.retrain, steps), nonzero_masks(params, stage.keep))

    def remove_dead(params: Params) -> Params:
        return channels.remove_dead(params, model.chain)[0]

    return [
        Phase(f"{name}/{solver}", stage.prune, solve, begin=begin, end=project),
        Phase(f"{name}/retrain", stage.retrain, retrain, end=remove_dead, artifact=f"{name}.cjx"),
    ]


def solver_admm(
    admm: Admm, rules: Mapping[str, projections.Constraint], steps: int
) -> optax.GradientTransformationExtraArgs:
    """ADMM with frequent refreshes and a half-cosine ramp of rho, or the published coarse schedule (``every=0``)."""
    if admm.every == 0:
        settings = coarse(admm, steps)
        return training.admm(
            optimizer(admm, steps), rules, rho=settings.rho, every=settings.every, rescale_dual=admm.rescale_dual
        )
    ramp = training.half_cosine(admm.initial_rho, admm.rho, steps)
    return training.admm(optimizer(admm, steps), rules, rho=ramp, every=admm.every, rescale_dual=admm.rescale_dual)


def _bias_rules(quantize: Quantize, model: Model) -> dict[str, Any]:
    """The level sets of the biases by rule."""
    if not quantize.lean:
        return {"*/bias": quantizers.Levels(quantize.bias_bits)}
    # No more bits than a number of that many levels takes; what is saved is saved by zeros.
    sizes = {path: math.prod(shape) for path, shape in shapes(model).items() if path.endswith("/bias")}
    return {path: quantizers.Coded(4.0 * size, LEAN_STEPS) for path, size in sizes.items()}


def short_scale(leaf: Any, digits: int = 4) -> Any:
    """Multiples of a scale q, the least of them q itself, as the same multiples of q rounded to `digits` binary digits.

    The file stores the digits of a scale one by one; four of them are within 3 % of it.

    >>> short_scale(jnp.array([0.3, -0.6, 0.0])).tolist()
    [0.296875, -0.59375, 0.0]
    """
    size = jnp.abs(leaf)
    scale = jnp.min(jnp.where(size > 0, size, jnp.inf))
    scale = jnp.where(jnp.isfinite(scale), scale, 1.0)
    fraction, exponent = jnp.frexp(scale)
    rounded = jnp.ldexp(jnp.round(fraction * 2.0 ** (digits + 1)) / 2.0 ** (digits + 1), exponent)
    return jnp.round(leaf / scale) * rounded.astype(leaf.dtype)


def _quantize_phases(quantize: Quantize, model: Model, load: Callable[[str], Params]) -> list[Phase]:
    rules, name = quantizer_rules(quantize), quantized_name(quantize)
    biases = _bias_rules(quantize, model)

    def begin(_: Params) -> Params:
        params = load(f"{stage_name(quantize.stage)}.cjx")
        units = {f"{layer}/kernel" for layer in model.chain}
        kernels = {path: rule for path, rule in trees.assign(rules, params).items() if path in units}
        return channels.equalize(params, model.chain, kernels) if quantize.equalize and kernels else params

    def approach(params: Params, steps: int) -> optax.GradientTransformationExtraArgs:
        return training.masked(solver_admm(quantize.admm, rules, steps), nonzero_masks(params, rules))

    def freeze(params: Params, steps: int) -> optax.GradientTransformationExtraArgs:
        every = max(1, steps // len(FREEZE_FRACTIONS))
        inner = optimizer(quantize.freeze, steps)
        return training.gradual_freeze(inner, rules, fractions=FREEZE_FRACTIONS, every=every)

    def tune(params: Params, steps: int) -> optax.GradientTransformationExtraArgs:
        return training.tied(optimizer(quantize.tune, steps), rules)

    def finish(params: Params) -> Params:
        """Biases to their levels, and codebooks to half precision, which halves them in the file."""

        def halve(weight: Any, _: int) -> Any:
            half = weight.astype(jnp.float16).astype(weight.dtype)
            return jnp.where(half == 0, weight, half)  # a level too small for half precision must not prune

        params = jax.jit(lambda params: projections.project({**rules, **biases}, params))(params)
        if quantize.lean:
            equal = rules if quantize.quantizer == "levels" else {}
            params = trees.map_leaves(
                lambda leaf, _: short_scale(leaf), params, trees.assign({**equal, **biases}, params)
            )
        if quantize.quantizer != "codebook":  # a scale is small, and its multiples must stay equally spaced
            return params
        return trees.map_leaves(halve, params, trees.assign(quantize.bits, params))

    snap = jax.jit(lambda params: projections.project(rules, params))
    return [
        Phase(f"{name}/admm", quantize.admm, approach, begin=begin),
        Phase(f"{name}/freeze", quantize.freeze, freeze, end=snap),
        Phase(f"{name}/tune", quantize.tune, tune, end=finish, artifact=f"{name}.cjx"),
    ]
