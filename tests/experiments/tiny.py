"""A compression run of seconds: LeNet-300-100 on the embedded digits, one short stage, one quantization."""

from experiments.schema import Admm, Config, Distill, Fit, Quantize, Stage

LAYERS = ("fc1/kernel", "fc2/kernel", "fc3/kernel")


def config(**changes: object) -> Config:
    """A few epochs per phase; keyword arguments replace fields."""
    values: dict[str, object] = {
        "dataset": "digits",
        "model": "lenet300",
        "batch_size": 128,
        "pretrain": Fit(epochs=6),
        "stages": (
            Stage(
                keep=dict(zip(LAYERS, (4000, 800, 200), strict=True)),
                prune=Admm(epochs=6, every=4, shift=1),
                retrain=Fit(epochs=10),
            ),
        ),
        "quantize": (
            Quantize(
                stage=0, bits={"*/kernel": 3}, admm=Admm(epochs=2, every=4), freeze=Fit(epochs=3), tune=Fit(epochs=3)
            ),
        ),
        "log_every": 2,
        "checkpoint_every": 3,
    }
    return Config(**{**values, **changes})  # type: ignore[arg-type]


def everything() -> Config:
    """Every kind of phase, two epochs of each, with a checkpoint between them."""
    short = Fit(epochs=2, shift=1)
    admm = Admm(epochs=2, every=4)
    return config(
        pretrain=short,
        widths=(60, 30),
        recover=short,
        stages=(Stage(keep=dict(zip(LAYERS, (1500, 300, 100), strict=True)), prune=admm, retrain=short),),
        control=True,
        quantize=(Quantize(stage=0, bits={"*/kernel": 2}, admm=admm, freeze=short, tune=short),),
        distill=Distill(weight=0.5),
        log_every=1,
        checkpoint_every=1,
    )
