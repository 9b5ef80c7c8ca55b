"""Class-discriminative channel pruning: every score at every amount, before and after a short retraining.

    python -m experiments.cdc --config=configs/cdc.py --workdir=runs/cdc_lenet5

Scores see training images, amounts are the same share of every group, and nothing is chosen by an accuracy but the
automatic amounts (validation images), so every network is judged on the test split.  Ablations: coarse labels for the
early groups, automatic amounts by sensitivity, and help from the dense network while retraining.  Running the same
command again resumes.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.cdc_config import CdcConfig


def run(config: "CdcConfig", workdir: str | Path, *, progress: bool = True) -> dict[str, Any]:
    """Runs (or resumes) a comparison and returns its report.

    Args:
      config: What to do; see `experiments.cdc_config.CdcConfig`.
      workdir: Where; holds one directory per task, ``metrics.jsonl`` with one line per retrained network,
        ``report.json`` and ``report.html``.
      progress: Whether to show progress bars (they stay quiet when stderr is not a terminal).

    Returns:
      The contents of ``report.json``.

    Raises:
      ValueError: On any bad input, in one sentence, before anything half-written remains.
    """
    from experiments import cdc_config, cdc_report, schema
    from experiments.cdc_cells import compare
    from experiments.workdir import Workdir

    cdc_config.check(config)
    with Workdir(workdir, schema.to_dict(config)) as directory:
        return directory.finish(lambda: compare(config, directory, progress=progress), cdc_report.html)


def headline(report: dict[str, Any]) -> str:
    """The lines that a person reads first."""
    from experiments import cdc_report

    return cdc_report.headline(report)


if __name__ == "__main__":
    from experiments.launch import program

    program(run, headline)
