"""Compresses a network from pretraining to a file, and reports honestly on the reloaded file.

    python -m experiments.compress --config=configs/digits_admm.py --workdir=runs/digits_admm

Phases: pretrain (or load) -> optional structured cut -> progressive pruning (ADMM, or gradual magnitude pruning as the
control) with masked retraining -> ADMM quantization, gradual freezing, tuning of the levels -> encode -> reload the
files -> evaluate them on the test split, once.  Running the same command again resumes; a different configuration in
the same directory is refused.  Any field of the configuration can be overridden: --config.seed=1
--config.pretrain.epochs=2.  Configurations have profiles: --config=configs/digits_admm.py:tiny
"""

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import app, flags

if TYPE_CHECKING:
    from experiments.fitting import Teacher
    from experiments.phases import Phase
    from experiments.schema import Config
    from experiments.workdir import Workdir


class Run:
    """One run in its directory: the data, the network, the phases and the position among them."""

    def __init__(self, config: "Config", workdir: "Workdir", *, progress: bool = True):
        from compressjax import data, zoo
        from experiments.phases import plan

        self.config, self.workdir, self.progress = config, workdir, progress
        self.data = data.load(config.dataset, validation=config.validation or None, seed=config.seed)
        shape = self.data.train.images.shape[1:]
        self.model = zoo.build(config.model, classes=self.data.classes, input_shape=shape)
        self.phases = plan(config, self.model, self.load)
        self._teachers: dict[int, Teacher] = {}

    def network(self, params: Any) -> Any:
        """The zoo module whose widths these parameters have."""
        from compressjax import zoo

        widths = zoo.widths_of(self.config.model, params)
        return zoo.build(**{**self.model.config, "widths": widths})

    def load(self, name: str) -> Any:
        """Parameters of an artefact of this run."""
        from compressjax import storage

        return storage.load(self.workdir.path / name).params

    def save(self, name: str, params: Any) -> None:
        """Writes the parameters as an artefact that rebuilds its own network."""
        from compressjax import storage, zoo

        widths = list(zoo.widths_of(self.config.model, params))
        meta = {"model": self.config.model, "dataset": self.config.dataset, "widths": widths}
        self.workdir.write(name, storage.encode(storage.positive_zeros(params), meta))

    def start(self) -> Any:
        """The parameters before the first phase: fresh, or the dense artefact that the configuration names."""
        import jax

        from compressjax import storage

        if not self.config.load:
            return self.model.init(jax.random.key(self.config.seed))
        params = storage.load(self.config.load).params
        expected, found = shapes(self.model.init(jax.random.key(0))), shapes(params)
        if expected != found:
            raise ValueError(f"{self.config.load} holds {found}; {self.config.model} needs {expected}.")
        self.save("dense.cjx", params)
        return params

    def teacher(self, shift: int) -> "Teacher | None":
        """The dense network's logits at every translation, tabulated once per radius."""
        from experiments.fitting import teach

        distill = self.config.distill
        if not distill.weight:
            return None
        if shift not in self._teachers:
            self._teachers[shift] = teach(
                self.model,
                self.load("dense.cjx"),
                self.data.train.images,
                shift=shift,
                weight=distill.weight,
                temperature=distill.temperature,
            )
        return self._teachers[shift]

    def train(self) -> None:
        """Runs all phases from wherever the directory stands."""
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

    def _phase(
        self, phase: "Phase", index: int, number: int, arrays: dict[str, Any], progress: dict[str, Any]
    ) -> tuple[int, dict[str, Any], dict[str, Any]]:
        import jax
        import jax.numpy as jnp

        from compressjax.data import Sampler
        from experiments.fitting import Trainer

        config, fit = self.config, phase.fit
        clock = time.monotonic() - progress["seconds"]
        begin = progress["step"]
        # A loaded network counts as a phase, so that the rest of the run is the same whether it was loaded or trained.
        seed = config.seed * 1000 + index + bool(config.load)
        sampler = Sampler(len(self.data.train.labels), config.batch_size, seed=seed)
        per_epoch = sampler.steps_per_epoch
        steps = round(fit.epochs * per_epoch)
        base = jax.tree.map(jnp.asarray, arrays["base"] if begin else phase.begin(arrays["params"]))
        model = self.network(base)
        trainer = Trainer(
            model,
            phase.optimizer(base, steps),
            self.data.train,
            sampler,
            seed=seed,
            shift=fit.shift,
            teacher=self.teacher(fit.shift) if phase.distill else None,
            loop=config.loop,
        )
        carry = trainer.init(base)
        if begin:
            carry = unflatten(carry, arrays["carry"])
        else:
            self._record(model, phase, carry, 0, steps, per_epoch)
        bar = self._bar(phase.name, steps, begin)
        for end in events(begin, steps, config.log_every * per_epoch, config.checkpoint_every * per_epoch):
            carry = trainer.run(carry, begin, end)
            bar.update(end - begin)
            if end == steps or end % (config.log_every * per_epoch) == 0:
                values = self._record(model, phase, carry, end, steps, per_epoch)
                bar.set_postfix(validation=f"{values['validation_accuracy']:.4f}", loss=f"{values['loss']:.4f}")
                carry = carry._replace(loss=jnp.zeros_like(carry.loss))
            number += end - begin
            begin = end
            if end < steps and end % (config.checkpoint_every * per_epoch) == 0:
                progress = {"phase": index, "step": end, "seconds": time.monotonic() - clock}
                self.workdir.save(number, {"base": base, "carry": flatten(carry)}, progress)
        bar.close()
        params = phase.end(carry.params)
        if phase.artifact:
            self.save(phase.artifact, params)
        number += 1
        progress = {"phase": index + 1, "step": 0, "seconds": time.monotonic() - clock}
        arrays = {"params": params}
        self.workdir.save(number, arrays, progress)
        return number, arrays, progress

    def _record(self, model: Any, phase: "Phase", carry: Any, step: int, steps: int, per_epoch: int) -> dict[str, Any]:
        """Appends one metrics record: what the validation split says now, and what the solver knows."""
        import optax

        from experiments.fitting import accuracy

        fit = phase.fit
        logged = step % (self.config.log_every * per_epoch) or self.config.log_every * per_epoch
        cosine = optax.cosine_decay_schedule(
            fit.learning_rate, max(steps, 1), fit.final_learning_rate / fit.learning_rate
        )
        values: dict[str, Any] = {
            "step": step,
            "phase": phase.name,
            "epoch": step / per_epoch,
            "loss": float(carry.loss) / logged if step else None,
            "validation_accuracy": accuracy(model, carry.params, self.data.validation),
            "learning_rate": float(cosine(step)),
            "nonzeros": nonzeros(carry.params),
        }
        for name in ("rho", "primal", "dual"):
            found = optax.tree_utils.tree_get(carry.optimizer, name)
            if found is not None:
                values[name] = {k: number(v) for k, v in found.items()} if isinstance(found, dict) else number(found)
        self.workdir.record(values)
        return values

    def _bar(self, name: str, steps: int, begin: int) -> Any:
        from tqdm import tqdm

        quiet = not (self.progress and sys.stderr.isatty())
        if quiet and self.progress:
            print(f"{name}: {steps} steps" + (f", from {begin}" if begin else ""), flush=True)
        return tqdm(total=steps, initial=begin, desc=name, disable=quiet, leave=True)


def number(value: Any) -> float | None:
    """A JSON number; what is not finite (a residual before the first refresh) has no value yet.

    >>> number(0.5), number(float("inf"))
    (0.5, None)
    """
    return float(value) if math.isfinite(value) else None


def plan_names(config: "Config", model: Any) -> list[str]:
    """Names of the phases that a configuration asks for, in order."""
    from experiments.phases import plan

    return [phase.name for phase in plan(config, model, lambda name: None)]


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
    import jax

    return {f"{i:04d}": leaf for i, leaf in enumerate(jax.tree.leaves(tree))}


def unflatten(like: Any, numbered: Mapping[str, Any]) -> Any:
    """Inverse of `flatten`, with the structure of `like`."""
    import jax
    import jax.numpy as jnp

    return jax.tree.unflatten(jax.tree.structure(like), [jnp.asarray(numbered[key]) for key in sorted(numbered)])


def shapes(params: Any) -> dict[str, tuple[int, ...]]:
    """Shape of every leaf by path."""
    from compressjax import trees

    return {path: tuple(leaf.shape) for path, leaf in trees.leaves(params).items()}


def nonzeros(params: Any) -> dict[str, int]:
    """Non-zero entries of every kernel, by path."""
    import numpy as np

    from compressjax import trees

    return {
        path: int(np.count_nonzero(np.asarray(leaf)))
        for path, leaf in trees.leaves(params).items()
        if path.endswith("kernel")
    }


def run(config: "Config", workdir: str | Path, *, progress: bool = True) -> dict[str, Any]:
    """Runs (or resumes) a compression and returns its report.

    Args:
      config: What to do; see `experiments.schema.Config`.
      workdir: Where to do it; see `experiments.workdir`.
      progress: Whether to show progress bars (they stay quiet when stderr is not a terminal).

    Returns:
      The contents of ``report.json``.

    Raises:
      ValueError: On any bad input, in one sentence, before anything half-written remains.
    """
    from experiments import report, schema, summary
    from experiments.workdir import Workdir

    schema.check(config)
    with Workdir(workdir, schema.to_dict(config)) as directory:
        finished = directory.path / "report.json"
        if not finished.exists():
            this = Run(config, directory, progress=progress)
            this.train()
            directory.write("report.json", json.dumps(summary.summarize(this), indent=1).encode())
        report.write_html(directory.path)
        return json.loads(finished.read_text())


def main(argv: list[str]) -> None:
    """Flag shell around `run`."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {' '.join(argv[1:])}")
    from experiments import launch, summary

    launch.cache_compilations()
    result = run(flags.FLAGS.config, flags.FLAGS.workdir)
    print(summary.headline(result))
    print(f"Report: {Path(flags.FLAGS.workdir).resolve() / 'report.html'}")


if __name__ == "__main__":
    from experiments.launch import launch

    launch(main)
