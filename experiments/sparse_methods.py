"""The phases of every method of `experiments.sparse_training`.

A sparse network's zeros are its masks: every phase with a fixed support reads it from the parameters it starts with.
Methods that need a count per layer (static, SET, RigL) get it from ERK; all others share one count over all kernels.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import unflatten_dict

from compressjax import masks, projections, scores, training, trees
from compressjax.zoo import Model
from experiments import phases
from experiments.contest import KERNELS, Candidate, fitted, name
from experiments.fitting import scale
from experiments.phases import Phase
from experiments.schema import Admm, Fit
from experiments.sparse_config import FROM_DENSE, SparseConfig, rounds

if TYPE_CHECKING:
    from experiments.runner import Run

Params = Any
THRESHOLDS, FIRST_THRESHOLD = "thresholds", -5.0
HEAT = 200.0  # GraSP divides the logits by it, which keeps the softmax flat
PRETRAINED = "pretrained.cjx"


def kernels(params: Params) -> dict[str, Any]:
    """The leaves that are pruned."""
    return {path: leaf for path, leaf in trees.leaves(params).items() if path.endswith("kernel")}


def count(params: Params, ratio: float) -> int:
    """How many kernel weights a ratio leaves."""
    return max(1, int(sum(leaf.size for leaf in kernels(params).values()) / ratio))


def rule(params: Params, ratio: float) -> dict[str, projections.Joint]:
    """The sparse set of a ratio: one count for all kernels together."""
    return {KERNELS: projections.Joint(projections.Cardinality(count(params, ratio)))}


def project(params: Params, ratio: float) -> Params:
    """The nearest parameters in that set."""
    return projections.project(rule(params, ratio), params)


def erk(params: Params, ratio: float) -> dict[str, int]:
    """The counts per kernel, in all those of `count`."""
    known = kernels(params)
    total = sum(leaf.size for leaf in known.values())
    # The next float up: a density just below the count's would lose one weight when it is rounded down.
    density = math.nextafter(count(params, ratio) / total, 1.0)
    return masks.erk({path: leaf.shape for path, leaf in known.items()}, density)


def random_start(run: "Run[SparseConfig]", ratio: float) -> Params:
    """Fresh parameters under random masks."""
    params, key = fresh(run), jax.random.fold_in(jax.random.key(run.config.seed), 1)
    shapes = {path: leaf.shape for path, leaf in kernels(params).items()}
    return masks.apply(params, masks.random(key, shapes, erk(params, ratio)))


def scored_start(run: "Run[SparseConfig]", method: str, ratio: float) -> Params:
    """Fresh parameters with the best-scored weights alone."""
    params, model = fresh(run), run.model
    images = scale(jnp.asarray(run.data.train.images[: run.config.score_images]))
    labels = jnp.asarray(run.data.train.labels[: run.config.score_images])

    def loss(params: Params, heat: float) -> Any:
        logits = model.apply(params, images) / heat
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    score: Mapping[str, Callable[[Params], dict[str, Any]]] = {
        "snip": lambda p: scores.snip(loss, p, 1.0),
        "grasp": lambda p: scores.grasp(loss, p, HEAT),
        "synflow": lambda p: scores.synflow(model.apply, p, images[:1]),
    }
    number = run.config.score_rounds if method == "synflow" else 1
    alive = masks.iterative(lambda p: _of_kernels(score[method](p)), params, count(params, ratio), rounds=number)
    return masks.apply(params, alive)


def _of_kernels(found: Mapping[str, Any]) -> dict[str, Any]:
    return {path: value for path, value in found.items() if path.endswith("kernel")}


def fresh(run: "Run[SparseConfig]") -> Params:
    """The initial parameters of a seed, the same for all methods."""
    return run.model.init(jax.random.key(run.config.seed))


@dataclass(frozen=True)
class Thresholded:
    """A network that sees its kernels through learned soft thresholds, which its parameters hold."""

    model: Model

    def start(self, params: Params) -> Params:
        """Parameters with the first thresholds."""
        found = training.soft_threshold(params, {KERNELS: FIRST_THRESHOLD}).thresholds
        return {**params, THRESHOLDS: unflatten_dict(found, sep="/")}

    def finish(self, params: Params) -> Params:
        """What the network computes with, zeros exactly 0.0."""
        own = {key: leaf for key, leaf in params.items() if key != THRESHOLDS}
        return training.thresholded(training.SoftThreshold(own, trees.leaves(params[THRESHOLDS])))

    def apply(self, params: Params, x: Any) -> Any:
        """As `Model.apply`."""
        return self.model.apply(self.finish(params), x)

    def apply_train(self, params: Params, x: Any) -> Any:
        """As `Model.apply_train`."""
        return self.model.apply_train(self.finish(params), x)


def plan(run: "Run[SparseConfig]") -> list[Phase]:
    """The phases of one seed, candidate by candidate."""
    config = run.config
    found = []
    if any(candidate.method in FROM_DENSE for candidate in config.candidates):
        fit = config.pretrain
        found.append(_phase(run, "pretrain", fit, _free(fit), lambda _: fresh(run), PRETRAINED))
    for candidate in config.candidates:
        found += _PLANS.get(candidate.method, _one_training)(run, candidate)
    return found


def file(candidate: Candidate, ratio: float) -> str:
    """Name of the artefact of a candidate at a ratio; 1 is dense."""
    return f"{name(candidate)}.cjx" if ratio == 1 else f"{name(candidate)}-{ratio:g}x.cjx"


def _one_training(run: "Run[SparseConfig]", candidate: Candidate) -> list[Phase]:
    """The methods that train once per ratio, from fresh parameters."""
    config, method, fit = run.config, candidate.method, fitted(candidate, run.config.train)
    if method == "dense":
        return [_phase(run, name(candidate), fit, _free(fit), lambda _: fresh(run), file(candidate, 1))]

    def begin(_: Params, ratio: float) -> Params:
        if method in ("static", "set", "rigl"):
            return random_start(run, ratio)
        return fresh(run) if method == "acdc" else scored_start(run, method, ratio)

    def solve(params: Params, steps: int, ratio: float) -> optax.GradientTransformationExtraArgs:
        inner, end = phases.optimizer(fit, steps), _settled(config, fit, steps)
        if method == "acdc":
            edges = 2 * int(candidate.value) - 1
            return training.acdc(
                inner, rule(params, ratio), boundaries=[max(i, end * i // edges) for i in range(1, edges + 1)]
            )
        alive = phases.nonzero_masks(params, {KERNELS: True})
        if method == "rigl":
            return training.rigl(inner, alive, every=config.every, end=end, drop=candidate.value)
        if method == "set":
            key = jax.random.fold_in(jax.random.key(config.seed), 2)
            return training.set_(inner, alive, key, every=config.every, end=end, drop=candidate.value)
        return training.masked(inner, alive)

    return [
        _phase(
            run,
            f"{name(candidate)}-{ratio:g}x",
            fit,
            partial(solve, ratio=ratio),
            partial(begin, ratio=ratio),
            file(candidate, ratio),
        )
        for ratio in config.ratios
    ]


def _soft_threshold(run: "Run[SparseConfig]", candidate: Candidate) -> list[Phase]:
    """One training to whatever density it reaches; per ratio, a projection if that is denser, and masked training."""
    whole = fitted(candidate, run.config.train)
    fit = dataclasses.replace(whole, epochs=whole.epochs - run.config.settle, weight_decay=candidate.value)
    last = dataclasses.replace(whole, epochs=run.config.settle)
    model = Thresholded(run.model)
    first = Phase(
        name(candidate),
        fit,
        _free(fit),
        begin=lambda _: model.start(fresh(run)),
        end=model.finish,
        artifact=file(candidate, 1),
        distill=False,
        inside=lambda _: model,
    )

    def begin(_: Params, ratio: float) -> Params:
        return project(run.load(file(candidate, 1)), ratio)

    return [first] + [
        _phase(
            run,
            f"{name(candidate)}-{ratio:g}x",
            last,
            _fixed(last),
            partial(begin, ratio=ratio),
            file(candidate, ratio),
        )
        for ratio in run.config.ratios
    ]


def _lottery_ticket(run: "Run[SparseConfig]", candidate: Candidate) -> list[Phase]:
    """A chain of trainings: pruned by magnitude, rewound, trained again."""
    fit = fitted(candidate, run.config.train)
    early = dataclasses.replace(fit, epochs=run.config.rewind, final_learning_rate=fit.learning_rate)
    noted = f"{name(candidate)}-early.cjx"

    def begin(_: Params, ratio: float, trained: str) -> Params:
        params = run.load(trained)
        alive = phases.nonzero_masks(project(params, ratio), {KERNELS: True})
        return training.rewind(params, run.load(noted), alive)

    found = [
        _phase(run, f"{name(candidate)}-early", early, _free(early), lambda _: fresh(run), noted),
        _phase(run, name(candidate), fit, _free(fit), lambda _: run.load(noted), file(candidate, 1)),
    ]
    last = file(candidate, 1)
    for ratio in rounds(run.config):
        artifact = file(candidate, ratio)
        found.append(
            _phase(
                run,
                artifact.removesuffix(".cjx"),
                fit,
                _fixed(fit),
                partial(begin, ratio=ratio, trained=last),
                artifact,
            )
        )
        last = artifact
    return found


def _from_dense(run: "Run[SparseConfig]", candidate: Candidate) -> list[Phase]:
    """Gradual magnitude pruning and ADMM, which begin with the same short dense training."""
    config, whole = run.config, fitted(candidate, run.config.train)
    rest = dataclasses.replace(whole, epochs=whole.epochs - config.pretrain.epochs)
    last = dataclasses.replace(whole, epochs=config.settle)
    middle = Admm(
        **{**dataclasses.asdict(rest), "epochs": rest.epochs - config.settle}, every=config.every, rho=candidate.value
    )

    def gradual(params: Params, steps: int, ratio: float) -> optax.GradientTransformationExtraArgs:
        return training.gradual_magnitude(
            phases.optimizer(rest, steps),
            rule(params, ratio),
            begin=0,
            end=_settled(config, rest, steps),
            every=config.every,
        )

    def admm(params: Params, steps: int, ratio: float) -> optax.GradientTransformationExtraArgs:
        return phases.solver_admm(middle, rule(params, ratio), steps)

    def begin(_: Params) -> Params:
        return run.load(PRETRAINED)

    found = []
    for ratio in config.ratios:
        title, artifact = f"{name(candidate)}-{ratio:g}x", file(candidate, ratio)
        if candidate.method == "gradual_magnitude":
            found.append(_phase(run, title, rest, partial(gradual, ratio=ratio), begin, artifact))
            continue
        found += [
            Phase(
                f"{title}/admm",
                middle,
                partial(admm, ratio=ratio),
                begin=begin,
                end=partial(project, ratio=ratio),
                distill=False,
            ),
            Phase(f"{title}/retrain", last, _fixed(last), artifact=artifact, distill=False),
        ]
    return found


_PLANS = {
    "soft_threshold": _soft_threshold,
    "lottery_ticket": _lottery_ticket,
    **dict.fromkeys(FROM_DENSE, _from_dense),
}


def _phase(run: Any, title: str, fit: Fit, optimizer: Any, begin: Any, artifact: str) -> Phase:
    return Phase(title, fit, optimizer, begin=begin, artifact=artifact, distill=False)


def _free(fit: Fit) -> Callable[[Params, int], optax.GradientTransformationExtraArgs]:
    return lambda _, steps: phases.optimizer(fit, steps)


def _fixed(fit: Fit) -> Callable[[Params, int], optax.GradientTransformationExtraArgs]:
    """Training on the support of what a phase starts with."""
    return lambda params, steps: training.masked(
        phases.optimizer(fit, steps), phases.nonzero_masks(params, {KERNELS: True})
    )


def _settled(config: SparseConfig, fit: Fit, steps: int) -> int:
    """The step from which the support is fixed."""
    return max(1, steps - round(steps * config.settle / fit.epochs))
