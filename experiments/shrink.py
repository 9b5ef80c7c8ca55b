"""Cuts channels out of a trained network, retrains the smaller networks shortly, and reports what they really cost.

    python -m experiments.shrink --config=configs/resnet_shrink.py --workdir=runs/resnet20_shrink

Phases: a dense network (trained, loaded, or the pretrained one that comes with the data) -> optionally training that
drives whole channels to zero -> for every cut: score, choose, remove, re-estimate batch normalization, retrain, write a
file -> evaluate every file on the test split, once, and measure it on this machine.  Running the same command again
resumes.  Any field can be overridden: --config.seed=1 --config.retrain.epochs=2.

On several machines: --distributed (docs/pods.md).  A SIGTERM makes the run save and end with status 75.
"""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.distributed import ALONE, Fleet

if TYPE_CHECKING:
    from experiments.cuts import Cut, ShrinkConfig
    from experiments.cutting import Knife
    from experiments.phases import Phase
    from experiments.runner import Run

SPARSE = "sparse.cjx"


def run(config: "ShrinkConfig", workdir: str | Path, *, progress: bool = True, fleet: Fleet = ALONE) -> dict[str, Any]:
    """Runs (or resumes) a shrink run and returns its report.

    Args:
      config: What to do; see `experiments.cuts.ShrinkConfig`.
      workdir: Where to do it; see `experiments.workdir`.
      progress: Whether to show progress bars (they stay quiet when stderr is not a terminal).
      fleet: The processes that share the run; each of them calls this.

    Returns:
      The contents of ``report.json``.

    Raises:
      ValueError: On any bad input, in one sentence, before anything half-written remains.
      Preempted: If the fleet was asked to stop; the same call continues.
    """
    from experiments import cuts, schema, shrink_report
    from experiments.runner import Run
    from experiments.workdir import Workdir

    cuts.check(config)
    with Workdir(workdir, schema.to_dict(config), fleet) as directory:
        return directory.finish(
            lambda: shrink_report.summarize(Run(config, directory, plan, progress=progress, fleet=fleet).train()),
            shrink_report.html,
        )


def plan(run: "Run[ShrinkConfig]") -> "list[Phase]":
    """The phases of a shrink run: each cut starts from the same dense (or sparsified) parameters."""
    from experiments.cuts import cut_name
    from experiments.cutting import Knife, sparsified, sparsifier
    from experiments.phases import DENSE, Phase, optimizer

    config, knife = run.config, Knife(run.config, run.model, run.data, run.workdir.path)
    knife.check()
    phases = []
    if not config.load:
        train = config.pretrain
        phases.append(Phase("pretrain", train, lambda _, steps: optimizer(train, steps), artifact=DENSE, distill=False))
    if config.sparsify.epochs:
        phases.append(
            Phase(
                f"sparsify/{config.sparsify.method}",
                config.sparsify,
                lambda params, steps: sparsifier(knife, params, steps),
                end=lambda params: sparsified(knife, params),
                artifact=SPARSE,
            )
        )
    start = SPARSE if config.sparsify.epochs else DENSE
    for cut in config.cuts:
        phases.append(
            Phase(
                f"{cut_name(cut)}/retrain",
                config.retrain,
                lambda _, steps: optimizer(config.retrain, steps),
                cut=functools.partial(_cut, run, knife, start, cut),
                artifact=f"{cut_name(cut)}.cjx",
            )
        )
    return phases


def _cut(run: "Run[ShrinkConfig]", knife: "Knife", start: str, cut: "Cut", _: Any) -> Any:
    return knife.cut(run.load(start), cut)


def headline(report: dict[str, Any]) -> str:
    """The lines that a person reads first."""
    from experiments import shrink_report

    return shrink_report.headline(report)


if __name__ == "__main__":
    from experiments.launch import program

    program(run, headline, pod=True)
