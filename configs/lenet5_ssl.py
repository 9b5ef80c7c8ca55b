"""Structured sparsity learning on LeNet-5: group lasso over whole units, then the published structured points.

    --config=configs/lenet5_ssl.py            reweighted group lasso, then 3-15-175 and 2-8-77 units
    --config=configs/lenet5_ssl.py:admm       ADMM towards 2-8-77 units (arXiv 1804.03294), then the same two cuts
    --config=configs/lenet5_ssl.py:control    the same cuts by importance alone, at equal epochs

Published: SSL (arXiv 1608.03665) 3-15-175 at +0.05 % error, SSR 2-8-77 at +0.18 %.
"""

from configs.common import LENET5, tiny_shrink
from experiments.cuts import Cut, ShrinkConfig, Sparsify
from experiments.schema import Distill, Fit

LASSO_EPOCHS, RETRAIN_EPOCHS = 3.0, 30.0


def get_config(profile: str = "full") -> ShrinkConfig:
    """Profiles: full, admm, control and tiny."""
    if profile == "tiny":
        config = tiny_shrink(Cut(score="importance", widths={"fc1/kernel": 40, "fc2/kernel": 20}))
        config.sparsify = Sparsify(epochs=1, strength=0.03, reweight=5, groups={"fc1/kernel": 2.0})
        return config
    if profile not in ("full", "admm", "control"):
        raise ValueError(f"Unknown profile {profile!r}; choose full, admm, control or tiny.")
    lasso = 0.0 if profile == "control" else LASSO_EPOCHS
    config = ShrinkConfig(
        dataset="mnist",
        model="lenet5",
        pretrain=Fit(epochs=10, shift=1),
        sparsify=Sparsify(
            epochs=lasso,
            learning_rate=1e-3,
            final_learning_rate=1e-3,
            shift=1,
            strength=0.03,
            reweight=50,
            groups={"conv1/kernel": 2.0},
        ),
        cuts=tuple(
            Cut(score="importance", widths=dict(zip(LENET5, widths, strict=False)))
            for widths in ((3, 15, 175), (2, 8, 77))
        ),
        retrain=Fit(epochs=RETRAIN_EPOCHS + LASSO_EPOCHS - lasso, learning_rate=2e-3, shift=1),
        distill=Distill(weight=0.5, temperature=3.0),
        log_every=2,
        checkpoint_every=5,
    )
    if profile == "admm":
        config.sparsify = Sparsify(
            epochs=LASSO_EPOCHS,
            method="admm",
            widths=dict(zip(LENET5, (2, 8, 77), strict=False)),
            learning_rate=1e-3,
            final_learning_rate=1e-4,
            shift=1,
            rho=0.3,
        )
    return config
