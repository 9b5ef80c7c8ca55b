"""Which way of training leaves the weights that pruning can do without?  Accuracy against ratio, without retraining.

    python -m experiments.ssgd --config=configs/lenet300_ssgd.py --workdir=runs/lenet300_ssgd

Every candidate of the configuration (plain SGD, l1, Powerpropagation, SSGD) is trained from scratch with every seed,
each seed in a directory of its own; then all kernels together are pruned by magnitude at several ratios.  The
validation split chooses one candidate per method, the test split judges those, once.  Running the same command again
resumes.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optax

    from experiments.contest import Candidate
    from experiments.curves import CurvesConfig
    from experiments.phases import Phase
    from experiments.runner import Run
    from experiments.schema import Fit


def run(config: "CurvesConfig", workdir: str | Path, *, progress: bool = True) -> dict[str, Any]:
    """Runs (or resumes) a run and returns its report.

    Args:
      config: What to do; see `experiments.curves.CurvesConfig`.
      workdir: Where to do it; seed k gets the directory ``seed<k>`` in it.
      progress: Whether to show progress bars (they stay quiet when stderr is not a terminal).

    Returns:
      The contents of ``report.json``.

    Raises:
      ValueError: On any bad input, in one sentence, before anything half-written remains.
    """
    from experiments import contest, curves, ssgd_report

    curves.check(config)
    return contest.run(config, workdir, plan, ssgd_report.summarize, ssgd_report.html, progress=progress)


def plan(run: "Run[CurvesConfig]") -> "list[Phase]":
    """One phase per candidate, each from the same fresh parameters."""
    import jax

    from experiments.contest import fitted, name
    from experiments.phases import Phase

    def phase(candidate: "Candidate") -> Phase:
        fit = fitted(candidate, run.config.pretrain)
        return Phase(
            name(candidate),
            fit,
            lambda _, steps: optimizer(candidate, fit, steps),
            begin=lambda _: run.model.init(jax.random.key(run.config.seed)),
            artifact=f"{name(candidate)}.cjx",
            distill=False,
        )

    return [phase(candidate) for candidate in run.config.candidates]


def optimizer(candidate: "Candidate", fit: "Fit", steps: int) -> "optax.GradientTransformationExtraArgs":
    """The optimizer of `fit` under the candidate's method, which acts on kernels only."""
    from compressjax import training
    from experiments import phases
    from experiments.contest import KERNELS

    inner, value = phases.optimizer(fit, steps), candidate.value
    if candidate.method == "sgd":
        return inner
    if candidate.method == "l1":  # slimming is the soft threshold of every entry of the leaves it is given
        return training.slimming(inner, value, step_size=phases.learning_rate(fit, steps), scales=(KERNELS,))
    if candidate.method == "powerprop":
        return training.powerprop(inner, {KERNELS: value})
    measures: dict[str, Any] = {
        "ssgd_log_l2": training.LogSumL2,
        "ssgd_log_l1": training.LogSumL1,
        "ssgd_p": training.PNorm,
    }
    scale: Any = "gradients" if fit.optimizer == "sgd" else "updates"
    return training.ssgd(inner, {KERNELS: measures[candidate.method](value)}, scale=scale)


def prune(params: Any, ratio: float) -> Any:
    """All kernels together pruned by magnitude to their number of weights over `ratio`; biases stay.

    >>> import jax.numpy as jnp
    >>> prune({"fc": {"kernel": jnp.array([[1.0, -3.0], [2.0, 0.5]]), "bias": jnp.array([0.1])}}, 2.0)
    {'fc': {'bias': Array([0.1], dtype=float32), 'kernel': Array([[ 0., -3.],
           [ 2.,  0.]], dtype=float32)}}
    """
    from compressjax import projections, trees
    from experiments.contest import KERNELS

    total = sum(leaf.size for path, leaf in trees.leaves(params).items() if path.endswith("kernel"))
    keep = projections.Joint(projections.Cardinality(max(1, int(total / ratio))))
    return projections.project({KERNELS: keep}, params)


def headline(report: dict[str, Any]) -> str:
    """The lines that a person reads first."""
    from experiments import contest_report

    return contest_report.headline(report)


if __name__ == "__main__":
    from experiments.launch import program

    program(run, headline)
