"""The runner: takes a configuration through its phases, and can be stopped anywhere."""

import functools
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from compressjax import data, interop, storage, trees, zoo
from compressjax.data import Sampler
from compressjax.zoo import Model
from experiments import phases
from experiments.distributed import ALONE, Fleet, Preempted
from experiments.fitting import Carry, SharedTrainer, Teacher, Trainer, accuracy, check_finite, make_update, teach
from experiments.phases import DENSE, Phase
from experiments.schema import Base
from experiments.workdir import Workdir

C = TypeVar("C", bound=Base)
PRETRAINED = "pretrained"  # as `config.load`: weights that come with the data
FROM_DATA = ("name", "widths", "classes", "input_shape")


class Run(Generic[C]):
    """One run in its directory: the data, the network, the phases and the position among them.

    Args:
      config: What the program was asked for, checked.
      workdir: Opened.
      plan: The program's phases, given this run: its dense network (`model`), its `data`, and `load`.
      widths: Of the dense network, if not the published ones.
      progress: Whether to show bars.
      fleet: The processes of the run, each of which makes the same calls; batches are split over their devices.
    """

    def __init__(
        self,
        config: C,
        workdir: Workdir,
        plan: "Callable[[Run[C]], list[Phase]]",
        *,
        widths: tuple[int, ...] = (),
        progress: bool = True,
        fleet: Fleet = ALONE,
    ):
        fleet.check_batch(config.batch_size)
        self.config, self.workdir, self.progress, self.fleet = config, workdir, progress and fleet.leads, fleet
        self.data = data.load(config.dataset, validation=config.validation or None, seed=config.seed)
        shape = self.data.train.images.shape[1:]
        sizes = {"widths": tuple(widths)} if widths else {}
        self.model = zoo.build(config.model, classes=self.data.classes, input_shape=shape, **sizes)
        self._teachers: dict[int, Teacher] = {}
        self.phases = plan(self)
        if config.distill.weight and any(phase.distill and phase.fit.flip for phase in self.phases):
            raise ValueError(
                "config.distill.weight and a phase with flip=True: the teacher's logits are tabulated for images that "
                "are not mirrored. Turn one of them off."
            )

    def network(self, params: Any) -> Model:
        """The zoo module whose widths these parameters have."""
        return self.model.like(params)

    def load(self, name: str) -> Any:
        """Parameters of an artefact of this run."""
        return storage.load(self.workdir.path / name).params

    def load_network(self, name: str) -> tuple[Model, Any]:
        """The network that an artefact of this run holds, and its parameters."""
        artifact = storage.load(self.workdir.path / name)
        return rebuild(artifact.meta, classes=self.data.classes, input_shape=self.model.input_shape), artifact.params

    def save(self, name: str, params: Any, model: Model | None = None) -> None:
        """Writes the parameters as an artefact that rebuilds its own network."""
        meta = {**describe(model or self.network(params)), "dataset": self.config.dataset}
        if name == DENSE:  # what another run must share to start from this network
            meta |= {"seed": self.config.seed, "validation": self.config.validation}
        self.workdir.write(name, storage.encode(storage.positive_zeros(params), meta))

    def start(self) -> Any:
        """The parameters before the first phase: fresh, or the dense artefact that the configuration names."""
        if not self.config.load:
            return self.model.init(jax.random.key(self.config.seed))
        if self.config.load == PRETRAINED:
            params = interop.pretrained(self.config.model)[1]
            self._fits(params)
            self.save(DENSE, params)
            return params
        if not Path(self.config.load).is_file():
            raise ValueError(f"config.load is {self.config.load!r}: there is no such file.")
        artifact = storage.load(self.config.load)
        for name in ("dataset", "seed", "validation"):
            ours, theirs = getattr(self.config, name), artifact.meta.get(name, getattr(self.config, name))
            if ours != theirs:
                raise ValueError(
                    f"{self.config.load} was trained with {name} {theirs!r}, this run has {ours!r}: it may have seen "
                    "this run's validation images."
                )
        self._fits(artifact.params)
        self.save(DENSE, artifact.params)
        return artifact.params

    def _fits(self, params: Any) -> None:
        """Raises `ValueError` unless loaded parameters are those of this run's network."""
        expected, found = phases.shapes(self.model), trees.shapes(params)
        for path in (*expected, *found):
            ours, theirs = (f"shape {known[path]}" if path in known else "no such leaf" for known in (expected, found))
            if ours != theirs:
                raise ValueError(
                    f"config.load is {self.config.load!r}, which does not fit {self.config.model} on "
                    f"{self.config.dataset}: at {path} it has {theirs}, the network {ours}."
                )

    def teacher(self, shift: int) -> Teacher | None:
        """The dense network's logits at every translation, tabulated once per radius."""
        distill = self.config.distill
        if not distill.weight:
            return None
        if shift not in self._teachers:
            self._teachers[shift] = teach(
                self.model,
                self.load(DENSE),
                self.data.train.images,
                shift=shift,
                weight=distill.weight,
                temperature=distill.temperature,
            )
        return self._teachers[shift]

    def train(self) -> Self:
        """Runs all phases from wherever the directory stands, and returns this run."""
        number: int
        arrays: dict[str, Any]
        progress: dict[str, Any]
        restored = self.workdir.restore()
        if restored is None:
            number, arrays, progress = 0, {"params": self.start()}, {"phase": 0, "step": 0, "seconds": 0.0}
        else:
            number, arrays, progress = restored
        for index in range(progress["phase"], len(self.phases)):
            number, arrays, progress = self._phase(self.phases[index], index, number, arrays, progress)
        return self

    def _phase(
        self, phase: Phase, index: int, number: int, arrays: dict[str, Any], progress: dict[str, Any]
    ) -> tuple[int, dict[str, Any], dict[str, Any]]:
        config, fit = self.config, phase.fit
        clock = time.monotonic() - progress["seconds"]
        begin = progress["step"]
        # A loaded network counts as a phase, so that the rest of the run is the same whether it was loaded or trained.
        seed = config.seed * 1000 + index + bool(config.load)
        sampler = Sampler(len(self.data.train.labels), config.batch_size, seed=seed)
        per_epoch = sampler.steps_per_epoch
        steps = round(fit.epochs * per_epoch)
        notes: Mapping[str, Any] = {}
        if begin:
            base, model = arrays["base"], zoo.build(**progress["network"])
        elif phase.cut:
            base, model, notes = phase.cut(arrays["params"])
        else:
            base = phase.begin(arrays["params"])
            model = self.network(base)
        base = jax.tree.map(jnp.asarray, self.fleet.same(base))
        trained = phase.inside(model)
        trainer = self._trainer(phase, trained, phase.optimizer(base, steps), sampler, seed)
        carry = trainer.init(base)
        if begin:
            carry = trainer.place(unflatten(carry, arrays["carry"]))
        else:
            self._record(trained, phase, carry, 0, steps, per_epoch, notes)
        bar, kept = self._bar(phase.name, steps, begin), begin
        for end in events(begin, steps, config.log_every * per_epoch, config.checkpoint_every * per_epoch):
            carry, reached = self._until(trainer, carry, begin, end)
            bar.update(reached - begin)
            if reached < end:
                bar.close()
                if reached > kept:  # otherwise nothing is new since the last checkpoint
                    progress = {"phase": index, "step": reached, "seconds": time.monotonic() - clock}
                    progress["network"] = model.config
                    self.workdir.save(number + reached - begin, {"base": base, "carry": flatten(carry)}, progress)
                raise Preempted(f"step {reached} of {phase.name} is kept; the same command again continues from there.")
            if end == steps or end % (config.log_every * per_epoch) == 0:
                values = self._record(trained, phase, carry, end, steps, per_epoch)
                bar.set_postfix(validation=f"{values['validation_accuracy']:.4f}", loss=f"{values['loss']:.4f}")
                carry = trainer.place(carry._replace(loss=jnp.zeros((), jnp.float32)))
            number += end - begin
            begin = end
            if end < steps and end % (config.checkpoint_every * per_epoch) == 0:
                seconds = time.monotonic() - clock
                progress = {"phase": index, "step": end, "seconds": seconds, "network": model.config}
                self.workdir.save(number, {"base": base, "carry": flatten(carry)}, progress)
                kept = end
        bar.close()
        params = phase.end(self.fleet.local(carry.params))
        if phase.artifact:
            self.save(phase.artifact, params, model if phase.cut else None)
        number += 1
        progress = {"phase": index + 1, "step": 0, "seconds": time.monotonic() - clock}
        arrays = {"params": params}
        self.workdir.save(number, arrays, progress)
        return number, arrays, progress

    def _trainer(self, phase: Phase, model: Any, optimizer: Any, sampler: Sampler, seed: int) -> Trainer:
        """What runs the steps of a phase."""
        fit = phase.fit
        teacher = self.teacher(fit.shift) if phase.distill else None
        update = make_update(model, optimizer, shift=fit.shift, flip=fit.flip, teacher=teacher)
        kind = Trainer if self.fleet.mesh is None else functools.partial(SharedTrainer, self.fleet)
        return kind(update, optimizer, self.data.train, sampler, seed=seed, teacher=teacher, loop=self.config.loop)

    def _until(self, trainer: Trainer, carry: Carry, begin: int, end: int) -> tuple[Carry, int]:
        """Steps `begin` .. `end` - 1, or fewer where the run is asked to stop: the carry, and the step reached."""
        stride = end - begin if self.config.loop == "scan" else self.fleet.stride
        reached = begin
        while reached < end and not self.fleet.stopping():
            until = min(reached + stride, end)
            carry, reached = trainer.steps(carry, reached, until), until
        check_finite(carry, reached)
        return carry, reached

    def _record(
        self,
        model: Model,
        phase: Phase,
        carry: Any,
        step: int,
        steps: int,
        per_epoch: int,
        notes: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Appends one metrics record: what the validation split says now, and what the solver knows."""
        logged = step % (self.config.log_every * per_epoch) or self.config.log_every * per_epoch
        values: dict[str, Any] = {
            "step": step,
            "phase": phase.name,
            "epoch": step / per_epoch,
            "loss": float(carry.loss) / logged if step else None,
            "validation_accuracy": accuracy(model, carry.params, self.data.validation, self.fleet),
            "learning_rate": float(phases.learning_rate(phase.fit, steps)(step)),
            "nonzeros": nonzeros(carry.params),
            **(notes or {}),
        }
        for name in ("rho", "primal", "dual"):
            found = optax.tree_utils.tree_get(carry.optimizer, name)
            if found is not None:
                values[name] = {k: finite(v) for k, v in found.items()} if isinstance(found, dict) else finite(found)
        self.workdir.record(values)
        return values

    def _bar(self, name: str, steps: int, begin: int) -> Any:
        quiet = not (self.progress and sys.stderr.isatty())
        if quiet and self.progress:
            print(f"{name}: {steps} steps" + (f", from {begin}" if begin else ""), flush=True)
        return tqdm(total=steps, initial=begin, desc=name, disable=quiet, leave=True)


def describe(model: Model) -> dict[str, Any]:
    """Meta data from which `rebuild` makes the model again: its name, its widths, and options that do not follow.

    >>> describe(zoo.build("lenet300", widths=(30, 10)))
    {'model': 'lenet300', 'widths': [30, 10]}
    >>> describe(zoo.build("resnet20", widths=(2, 3, 6, 3), blocks=(1, 1), pads=(1, 3)))
    {'model': 'resnet20', 'widths': [2, 3, 6, 3], 'blocks': [1, 1], 'pads': [1, 3]}
    """
    needed = model.config
    for option in [name for name in needed if name not in FROM_DATA]:
        rest = {name: value for name, value in needed.items() if name != option}
        try:  # at these widths: what follows from the published ones need not follow from fewer channels
            needed = rest if zoo.build(**rest) == model else needed
        except ValueError:
            continue
    options = {name: value for name, value in needed.items() if name not in FROM_DATA}
    return {"model": model.name, "widths": list(model.widths), **options}


def rebuild(meta: Mapping[str, Any], *, classes: int, input_shape: tuple[int, ...]) -> Model:
    """The network that the meta data of an artefact name.

    Raises:
      ValueError: If they name none, or what they say does not fit together.

    >>> rebuild({"model": "lenet300", "widths": [30, 10]}, classes=10, input_shape=(8, 8, 1)).widths
    (30, 10)
    """
    if not isinstance(meta.get("model"), str):
        raise ValueError(f"it does not say which network it holds (meta data {dict(meta)})")
    options = {name: value for name, value in meta.items() if name not in {"model", "dataset", "seed", "validation"}}
    return zoo.build(meta["model"], classes=classes, input_shape=input_shape, **options)


def finite(value: Any) -> float | None:
    """A JSON number; what is not finite (a residual before the first refresh) has no value yet.

    >>> finite(0.5), finite(float("inf"))
    (0.5, None)
    """
    return float(value) if math.isfinite(value) else None


def events(begin: int, end: int, *every: int) -> list[int]:
    """The steps after `begin` at which something happens: multiples of each period, and `end`.

    >>> events(3, 10, 4, 5)
    [4, 5, 8, 10]
    """
    return [step for step in range(begin + 1, end + 1) if step == end or any(step % period == 0 for period in every)]


def flatten(tree: Any) -> dict[str, Any]:
    """Leaves by number: a form that a checkpoint can hold whatever the tree's node types are.

    >>> flatten((1, [2]))
    {'0000': 1, '0001': 2}
    """
    return {f"{i:04d}": leaf for i, leaf in enumerate(jax.tree.leaves(tree))}


def unflatten(like: Any, numbered: Mapping[str, Any]) -> Any:
    """Inverse of `flatten`, with the structure of `like`."""
    return jax.tree.unflatten(jax.tree.structure(like), [jnp.asarray(numbered[key]) for key in sorted(numbered)])


def nonzeros(params: Any) -> dict[str, int]:
    """Non-zero entries of every kernel, by path."""
    return {
        path: int(np.count_nonzero(np.asarray(leaf)))
        for path, leaf in trees.leaves(params).items()
        if path.endswith("kernel")
    }
