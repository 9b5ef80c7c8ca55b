"""Learning rate and penalty of ADMM pruning, and two widths, on the embedded digits: twelve short runs.

    python -m experiments.sweep --config=configs/sweep_digits.py --workdir=runs/sweep_digits [--engine=ray]

Trials are compared on the validation split.
"""

from experiments.sweep_config import Objective, Sweep, grid

DIGITS = "configs/digits_admm.py:tiny"
SHORT = {"control": (False,), "pretrain.epochs": (8.0,), "recover.epochs": (4.0,), "stages[0].prune.epochs": (6.0,)}
VALUES = {
    "widths": ((8, 16, 40), (12, 24, 60)),
    "stages[0].prune.learning_rate": (1e-3, 4e-3),
    "stages[0].prune.rho": (0.03, 0.3, 3.0),
}


def get_config(profile: str = "full") -> Sweep:
    """Profiles: full, and tiny, two trials of a few seconds."""
    if profile == "full":
        trials = grid("compress", DIGITS, {**SHORT, **VALUES})
    elif profile == "tiny":
        trials = grid("compress", DIGITS, {"control": (False,), "stages[0].prune.rho": (0.3, 3.0)})
    else:
        raise ValueError(f"Unknown profile {profile!r}; choose full or tiny.")
    return Sweep(
        trials=trials,
        objectives=(
            Objective("validation accuracy", ("quantized", -1, "validation_accuracy"), maximize=True),
            Objective("bytes", ("quantized", -1, "bytes")),
        ),
    )
