"""A short run as a program of its own, on any number of processes, with a fault on demand.

python tests/experiments/spmd.py --config=tests/experiments/spmd.py --workdir=DIR [--fault=KIND:COUNT:VICTIM] [flags]

The fault befalls process VICTIM at the COUNT-th call: "term" sends it a SIGTERM before a stride of steps, "step" kills
it there, and "save" kills it when the arrays of a checkpoint are written and the checkpoint is not yet complete.
"""

import dataclasses
import os
import signal

from absl import flags

from experiments import launch
from experiments.schema import Admm, Config, Distill, Fit, Stage
from tests.experiments import tiny

PHASES = 3


def get_config() -> Config:
    """Pretraining, pruning and retraining under a teacher; every file but the report's."""
    short = Fit(epochs=2, shift=1)
    keep = dict(zip(tiny.LAYERS, (4000, 800, 200), strict=True))
    stage = Stage(keep=keep, prune=Admm(epochs=2, every=4, shift=1), retrain=short)
    return tiny.config(
        pretrain=short, stages=(stage,), quantize=(), distill=Distill(weight=0.5), log_every=1, checkpoint_every=1
    )


def train(config, workdir, fleet):
    """As `experiments.compress.run`, without the report."""
    from experiments import phases, schema
    from experiments.runner import Run
    from experiments.workdir import Workdir

    with Workdir(workdir, schema.to_dict(config), fleet) as directory:
        Run(
            config, directory, lambda run: phases.plan(config, run.model, run.load), progress=False, fleet=fleet
        ).train()


def arrange(fault: str, index: int) -> None:
    """Makes a method of this process fail at its `COUNT`-th call."""
    import orbax.checkpoint as ocp

    from experiments.fitting import SharedTrainer, Trainer

    kind, count, victim = fault.split(":")
    if int(victim) != index:
        return
    calls = 0

    def failing(method):
        def call(*arguments, **named):
            nonlocal calls
            calls += 1
            if calls == int(count):
                os.kill(os.getpid(), signal.SIGTERM if kind == "term" else signal.SIGKILL)
            return method(*arguments, **named)

        return call

    if kind == "save":
        handler = ocp.StandardCheckpointHandler
        if index:  # only process 0 finalizes
            handler.async_save = failing(handler.async_save)
        else:
            handler.finalize = failing(handler.finalize)
        return
    for trainer in (Trainer, SharedTrainer):
        trainer.steps = failing(trainer.steps)


def main(_: list[str]) -> None:
    launch.cache_compilations()
    fleet = launch.fleet()
    if fleet.count > 1:
        fleet = dataclasses.replace(fleet, stride=3)  # of 8 steps between records
    if flags.FLAGS.fault:
        arrange(flags.FLAGS.fault, fleet.index)
    train(flags.FLAGS.config, flags.FLAGS.workdir, fleet)


if __name__ == "__main__":
    flags.DEFINE_string("fault", "", "KIND:COUNT:VICTIM")
    launch.launch(main, pod=True)
