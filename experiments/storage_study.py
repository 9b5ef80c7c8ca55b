"""Structured or not?  What a network costs to store and to run, by kind of sparsity and by bits per weight.

    python -m experiments.storage_study --config=configs/storage_study.py --workdir=runs/lenet5_study

Phases: a dense network (trained, or loaded) -> for every kind of sparsity, rung by rung: ADMM towards the set, masked
retraining -> for every kind and number of bits: the last rung that keeps the accuracy of the dense network up to the
tolerance, quantized by gradual freezing.  Rungs are judged on the validation split; the test split is read once, at the
end, by networks read back from their files.  Running the same command again resumes.

The method is that of Ma et al., "Non-Structured DNN Weight Pruning - Is It Beneficial in Any Platform?" (arXiv
1907.02124): same dense network, same solver, same tolerance, all bits counted.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.phases import Phase
    from experiments.runner import Run
    from experiments.study_config import Scheme, StudyConfig


def run(config: "StudyConfig", workdir: str | Path, *, progress: bool = True) -> dict[str, Any]:
    """Runs (or resumes) a run and returns its report.

    Args:
      config: What to do; see `experiments.study_config.StudyConfig`.
      workdir: Where to do it; see `experiments.workdir`.
      progress: Whether to show progress bars (they stay quiet when stderr is not a terminal).

    Returns:
      The contents of ``report.json``.

    Raises:
      ValueError: On any bad input, in one sentence, before anything half-written remains.
    """
    from experiments import schema, study_config, study_report
    from experiments.runner import Run
    from experiments.workdir import Workdir

    study_config.check(config)
    with Workdir(workdir, schema.to_dict(config)) as directory:
        return directory.finish(
            lambda: study_report.summarize(
                Run(config, directory, plan, widths=config.widths, progress=progress).train()
            ),
            study_report.html,
        )


def plan(run: "Run[StudyConfig]") -> "list[Phase]":
    """The phases of a run: the dense network, the ladders, the quantized networks."""
    from experiments.phases import DENSE, Phase, optimizer

    config = run.config
    phases = []
    if not config.load:
        fit = config.pretrain
        phases.append(Phase("pretrain", fit, lambda _, steps: optimizer(fit, steps), artifact=DENSE, distill=False))
    for scheme in config.schemes:
        phases += _ladder(run, scheme)
    judge = cache(lambda name: judged(run, name))
    for scheme in config.schemes:
        chosen = cache(lambda scheme=scheme: best(run, scheme, judge))
        phases += [_quantized(run, scheme, bits, chosen) for bits in config.bits]
    return phases


def _ladder(run: "Run[StudyConfig]", scheme: "Scheme") -> "list[Phase]":
    from compressjax import projections, training
    from experiments import phases
    from experiments.phases import DENSE, Phase
    from experiments.study_config import rules, rung

    config = run.config

    def pair(ratio: float, first: bool) -> list[Phase]:
        sets = rules(config, scheme.kind, ratio, phases.shapes(run.model), run.data.classes)

        def approach(params: Any, steps: int) -> Any:
            # What the rung before has pruned stays pruned.
            return training.masked(phases.solver_admm(config.prune, sets, steps), phases.nonzero_masks(params, sets))

        def retrain(params: Any, steps: int) -> Any:
            return training.masked(phases.optimizer(config.retrain, steps), phases.nonzero_masks(params, sets))

        return [
            Phase(
                f"{rung(scheme.kind, ratio)}/admm",
                config.prune,
                approach,
                begin=(lambda _: run.load(DENSE)) if first else (lambda params: params),
                end=lambda params: projections.project(sets, params),
            ),
            Phase(
                f"{rung(scheme.kind, ratio)}/retrain",
                config.retrain,
                retrain,
                artifact=f"{rung(scheme.kind, ratio)}.cjx",
            ),
        ]

    return [phase for i, ratio in enumerate(scheme.ratios) for phase in pair(ratio, i == 0)]


def _quantized(run: "Run[StudyConfig]", scheme: "Scheme", bits: int, chosen: Callable[[], str]) -> "Phase":
    import jax

    from compressjax import projections, quantizers, training
    from experiments.phases import FREEZE_FRACTIONS, Phase, optimizer

    fit = run.config.quantize
    levels = {"*kernel": quantizers.Levels(bits)}

    def freeze(_: Any, steps: int) -> Any:
        every = max(1, steps // len(FREEZE_FRACTIONS))
        return training.gradual_freeze(optimizer(fit, steps), levels, fractions=FREEZE_FRACTIONS, every=every)

    return Phase(
        quantized_name(scheme.kind, bits),
        fit,
        freeze,
        begin=lambda _: run.load(f"{chosen()}.cjx"),
        end=jax.jit(lambda params: projections.project(levels, params)),
        artifact=f"{quantized_name(scheme.kind, bits)}.cjx",
    )


def quantized_name(kind: str, bits: int) -> str:
    """Name of a quantized network and of its artefact, without suffix.

    >>> quantized_name("nm", 4)
    'nm-4bit'
    """
    return f"{kind}-{bits}bit"


def best(run: "Run[StudyConfig]", scheme: "Scheme", judge: Callable[[str], float]) -> str:
    """The last rung that is within the tolerance; the first if none is.

    Args:
      run: Where all rungs have been climbed.
      scheme: The ladder.
      judge: Name of a network -> accuracy on the validation split.
    """
    from experiments.study_config import DENSE, rung

    names = [rung(scheme.kind, ratio) for ratio in scheme.ratios]
    least = judge(DENSE) - run.config.tolerance
    return next((name for name in reversed(names) if judge(name) >= least), names[0])


def judged(run: "Run[StudyConfig]", name: str) -> float:
    """Validation accuracy of a network of the run, read from its file."""
    from experiments.fitting import accuracy

    return accuracy(run.model, run.load(f"{name}.cjx"), run.data.validation)


def headline(report: dict[str, Any]) -> str:
    """The lines that a person reads first."""
    from experiments import study_report

    return study_report.headline(report)


if __name__ == "__main__":
    from experiments.launch import program

    program(run, headline)
