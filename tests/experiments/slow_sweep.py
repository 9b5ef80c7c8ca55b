"""Sweeps of `slow_program`, with the gate as their profile."""

from experiments.sweep_config import Halving, Objective, Resources, Sweep, Trial, grid

PROGRAM, CONFIG = "tests.experiments.slow_program", "tests/experiments/slow_config.py"
LOSS, COST = Objective("loss", ("loss",)), Objective("cost", ("cost",))


def get_config(gate: str = "") -> Sweep:
    """Four trials."""
    return Sweep(trials=grid(PROGRAM, f"{CONFIG}:{gate}", {"seed": (0, 1, 2, 3)}), objectives=(LOSS, COST), retries=9)


def halved(gate: str, cpus: float) -> Sweep:
    """Four trials, from the best by the value of their records to the worst, one at a time where there are `cpus`."""
    trials = tuple(Trial(PROGRAM, f"{CONFIG}:{gate}", {"seed": i, "size": 4.0 - i}) for i in range(4))
    halving = Halving(metric="value", grace=1, reduction=2, most=2)
    return Sweep(trials=trials, objectives=(LOSS,), resources=Resources(cpus=cpus), halving=halving)
