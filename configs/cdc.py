"""Which channels to keep: class-discriminative scores, weights, gradients, evolved functions; 30, 50 and 70 % removed.

--config=configs/cdc.py            LeNet-5 on MNIST, with all ablations
--config=configs/cdc.py:resnet20   ResNet-20 on CIFAR-10, pretrained; channels within blocks, the stream stays whole
--config=configs/cdc.py:resnet56   ResNet-56, likewise
--config=configs/cdc.py:tiny       a minute, on the embedded digits

Retraining is a fraction of the published 200 epochs.
"""

from configs import tasks
from experiments.cdc_config import NAMES, TEACHING, CdcConfig, Teaching

EVOLVED = {  # by configs/evolve_pruning.py
    "evolved": "(sqrt(std(l2) + sum(sP - mP)) - neg(std(neg(nP)))) "
    "* ((sqrt(std(l2) + sum(l1)) - neg(std(neg(nP)))) * sQ)",
    "evolved_lenet5": "l2 + vP + l2",  # its profile lenet5
}


def get_config(profile: str = "full") -> CdcConfig:
    """Profiles: full (LeNet-5), resnet20, resnet56 and tiny."""
    teaching = Teaching(kinds=TEACHING)
    if profile == "tiny":
        teaching.refit, teaching.images = 10, 250
        return CdcConfig(
            tasks=(tasks.digits(),),
            scores=("symmetric_divergence", "l1", "f2", "random"),
            removed=(0.5,),
            repeats=2,
            coarse=4,
            automatic=("l1",),
            teaching=teaching,
        )
    if profile not in ("full", "resnet20", "resnet56"):
        raise ValueError(f"Unknown profile {profile!r}; choose full, resnet20, resnet56 or tiny.")
    config = CdcConfig(scores=(*NAMES, *EVOLVED), formulas=EVOLVED)
    if profile == "full":
        config.tasks, config.coarse, config.teaching = (tasks.lenet5(),), 4, teaching
        config.automatic = ("symmetric_divergence", "l1", "taylor")
        return config
    task = tasks.resnet(profile)
    task.fixed = tasks.STREAM
    if profile == "resnet56":
        task.test_images = 2000
    config.tasks = (task,)
    return config
