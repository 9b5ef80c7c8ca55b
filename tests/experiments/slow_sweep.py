"""Sweeps of `slow_program`, with the gate as their profile."""

from experiments.sweep_config import Halving, Objective, Sweep, grid

PROGRAM, CONFIG = "tests.experiments.slow_program", "tests/experiments/slow_config.py"
LOSS, COST = Objective("loss", ("loss",)), Objective("cost", ("cost",))


def get_config(gate: str = "") -> Sweep:
    """Four trials."""
    return Sweep(trials=grid(PROGRAM, f"{CONFIG}:{gate}", {"seed": (0, 1, 2, 3)}), objectives=(LOSS, COST), retries=9)


def halved(gate: str = "") -> Sweep:
    """Four trials, of which few may take all their steps."""
    trials = grid(PROGRAM, f"{CONFIG}:{gate}", {"steps": (9,), "size": (4.0, 3.0, 2.0, 1.0), "seed": (0,)})
    return Sweep(trials=trials, objectives=(LOSS,), halving=Halving(metric="value", grace=2, reduction=2, most=8))
