"""Which way to a sparse network is best?  Sparse training, pruning at initialization, lottery tickets, pruning, ADMM.

    python -m experiments.sparse_training --config=configs/lenet300_sparse.py --workdir=runs/lenet300_sparse

Every candidate of the configuration is trained with every seed to every ratio, each seed in a directory of its own: all
with the same number of kernel weights, and all but lottery tickets with the same number of epochs.  The validation
split chooses one candidate per method, the test split judges those, once.  Running the same command again resumes.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.sparse_config import SparseConfig


def run(config: "SparseConfig", workdir: str | Path, *, progress: bool = True) -> dict[str, Any]:
    """Runs (or resumes) a run and returns its report.

    Args:
      config: What to do; see `experiments.sparse_config.SparseConfig`.
      workdir: Where to do it; seed k gets the directory ``seed<k>`` in it.
      progress: Whether to show progress bars (they stay quiet when stderr is not a terminal).

    Returns:
      The contents of ``report.json``.

    Raises:
      ValueError: On any bad input, in one sentence, before anything half-written remains.
    """
    from experiments import contest, sparse_config, sparse_methods, sparse_report

    sparse_config.check(config)
    return contest.run(
        config, workdir, sparse_methods.plan, sparse_report.summarize, sparse_report.html, progress=progress
    )


def headline(report: dict[str, Any]) -> str:
    """The lines that a person reads first."""
    from experiments import contest_report

    return contest_report.headline(report)


if __name__ == "__main__":
    from experiments.launch import program

    program(run, headline)
