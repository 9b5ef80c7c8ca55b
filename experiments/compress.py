"""Compresses a network from pretraining to a file, and reports honestly on the reloaded file.

    python -m experiments.compress --config=configs/digits_admm.py --workdir=runs/digits_admm

Phases: pretrain (or load) -> optional structured cut -> progressive pruning (ADMM, or gradual magnitude pruning as the
control) with masked retraining -> ADMM quantization, gradual freezing, tuning of the levels -> encode -> reload the
files -> evaluate them on the test split, once.  Running the same command again resumes; a different configuration in
the same directory is refused.  Any field of the configuration can be overridden: --config.seed=1
--config.pretrain.epochs=2.  Configurations have profiles: --config=configs/digits_admm.py:tiny

On several machines: --distributed (docs/pods.md).  A SIGTERM makes the run save and end with status 75.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.distributed import ALONE, Fleet

if TYPE_CHECKING:
    from experiments.schema import Config


def run(config: "Config", workdir: str | Path, *, progress: bool = True, fleet: Fleet = ALONE) -> dict[str, Any]:
    """Runs (or resumes) a compression and returns its report.

    Args:
      config: What to do; see `experiments.schema.Config`.
      workdir: Where to do it; see `experiments.workdir`.
      progress: Whether to show progress bars (they stay quiet when stderr is not a terminal).
      fleet: The processes that share the run; each of them calls this.

    Returns:
      The contents of ``report.json``.

    Raises:
      ValueError: On any bad input, in one sentence, before anything half-written remains.
      Preempted: If the fleet was asked to stop; the same call continues.
    """
    from experiments import phases, report, schema, summary
    from experiments.runner import Run
    from experiments.workdir import Workdir

    schema.check(config)
    with Workdir(workdir, schema.to_dict(config), fleet) as directory:

        def plan(run: "Run[Config]") -> "list[phases.Phase]":
            return phases.plan(config, run.model, run.load)

        found = directory.finish(
            lambda: summary.summarize(Run(config, directory, plan, progress=progress, fleet=fleet).train())
        )
        fleet.lead(lambda: report.write_html(directory.path))
        return found


def headline(report: dict[str, Any]) -> str:
    """The lines that a person reads first."""
    from experiments import summary

    return summary.headline(report)


if __name__ == "__main__":
    from experiments.launch import program

    program(run, headline, pod=True)
