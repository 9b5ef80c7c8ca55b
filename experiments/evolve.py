"""Evolves a pruning function: a formula that scores channels, judged by the networks that it leaves.

    python -m experiments.evolve --config=configs/evolve_pruning.py --workdir=runs/evolve_pruning

A population of formulas starts from the published scores and their mutants.  A formula prunes every task, the small
networks are retrained shortly, and the geometric mean of their validation accuracies is its fitness.  The best formulas
are tried again with other seeds, beside the published scores and the best of as many random formulas; then everything
is judged on the test split and on networks and data that the search never saw.  Running the same command again resumes.

On several machines, each of which retrains its share of the networks: --distributed (docs/pods.md).  A SIGTERM makes
the run end with status 75 after the trial that it is at.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.distributed import ALONE, Fleet

if TYPE_CHECKING:
    from experiments.evolve_config import EvolveConfig


def run(config: "EvolveConfig", workdir: str | Path, *, progress: bool = True, fleet: Fleet = ALONE) -> dict[str, Any]:
    """Runs (or resumes) a search and returns its report.

    Args:
      config: What to do; see `experiments.evolve_config.EvolveConfig`.
      workdir: Where; holds one directory per task, ``metrics.jsonl`` with one line per retrained network,
        ``candidates.jsonl`` with one line per formula of the search, ``report.json`` and ``report.html``.
      progress: Whether to show progress bars (they stay quiet when stderr is not a terminal).
      fleet: The processes that share the run; each of them calls this.

    Returns:
      The contents of ``report.json``.

    Raises:
      ValueError: On any bad input, in one sentence, before anything half-written remains.
      Preempted: If the fleet was asked to stop; the same call continues.
    """
    from experiments import evolve_config, evolve_report, schema
    from experiments.evolve_search import Evolution
    from experiments.workdir import Workdir

    evolve_config.check(config)
    with Workdir(workdir, schema.to_dict(config), fleet) as directory:
        return directory.finish(
            lambda: evolve_report.summarize(Evolution(config, directory, progress=progress, fleet=fleet)),
            evolve_report.html,
        )


def headline(report: dict[str, Any]) -> str:
    """The lines that a person reads first."""
    from experiments import evolve_report

    return evolve_report.headline(report)


if __name__ == "__main__":
    from experiments.launch import program

    program(run, headline, pod=True)
