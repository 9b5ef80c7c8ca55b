"""Which channels to keep: class-discriminative scores, weights, gradients, evolved functions; 30, 50 and 70 % removed.

--config=configs/cdc.py            LeNet-5 on MNIST, with all ablations
--config=configs/cdc.py:resnet20   ResNet-20 on CIFAR-10, pretrained; channels within blocks, the stream stays whole
--config=configs/cdc.py:resnet56   ResNet-56, likewise
--config=configs/cdc.py:tiny       a minute, on the embedded digits

Retraining is a fraction of the published 200 epochs.
"""

from experiments.cdc_config import TEACHING, CdcConfig, Teaching
from experiments.pruning_tasks import Task
from experiments.schema import Fit

STREAM = ("conv0/*", "fc/*")  # every channel of the residual stream is made by one or read by the other


def get_config(profile: str = "full") -> CdcConfig:
    """Profiles: full (LeNet-5), resnet20, resnet56 and tiny."""
    teaching = Teaching(kinds=TEACHING)
    if profile == "tiny":
        task = Task(
            name="digits",
            model="lenet300",
            batch_size=64,
            widths=(32, 16),
            pretrain=Fit(epochs=20, learning_rate=2e-3),
            retrain=Fit(epochs=1),
            score_images=250,
        )
        teaching.refit, teaching.images = 10, 250
        return CdcConfig(
            tasks=(task,),
            scores=("symmetric_divergence", "l1", "f2", "random"),
            removed=(0.5,),
            repeats=2,
            coarse=4,
            automatic=("l1",),
            teaching=teaching,
        )
    if profile == "full":
        task = Task(
            name="lenet5",
            dataset="mnist",
            model="lenet5",
            pretrain=Fit(epochs=6, shift=1),
            retrain=Fit(epochs=0.5, learning_rate=2e-3, final_learning_rate=2e-5),
        )
        return CdcConfig(tasks=(task,), coarse=4, automatic=("symmetric_divergence", "l1", "taylor"), teaching=teaching)
    if profile not in ("resnet20", "resnet56"):
        raise ValueError(f"Unknown profile {profile!r}; choose full, resnet20, resnet56 or tiny.")
    task = Task(
        name=profile,
        dataset="cifar10",
        model=profile,
        load="pretrained",
        validation=2000,
        batch_size=64,
        fixed=STREAM,
        retrain=Fit(epochs=0.06, optimizer="sgd", learning_rate=0.02, final_learning_rate=1e-4, shift=4, flip=True),
    )
    return CdcConfig(tasks=(task,))
