"""Training that leaves prunable weights: SGD, l1, Powerpropagation and SSGD, pruned by magnitude, not retrained.

--config=configs/lenet300_ssgd.py            LeNet-300-100 on MNIST
--config=configs/lenet300_ssgd.py:lenet5     LeNet-5, with what the validation split chose for LeNet-300-100
--config=configs/lenet300_ssgd.py:tiny       seconds, on the embedded digits

On LeNet-5 Powerpropagation diverges at the learning rate chosen for LeNet-300-100, 0.3, and gets 0.1.
"""

from experiments.contest import Candidate
from experiments.curves import CurvesConfig
from experiments.schema import Fit


def get_config(profile: str = "full") -> CurvesConfig:
    """Profiles: full, lenet5 and tiny."""
    config = CurvesConfig(
        dataset="mnist",
        model="lenet300",
        pretrain=Fit(epochs=6, optimizer="sgd", learning_rate=0.05, final_learning_rate=0.0),
        candidates=(
            Candidate("sgd"),
            Candidate("sgd", learning_rate=0.1),
            Candidate("l1", 1e-4),
            Candidate("l1", 3e-4),
            Candidate("l1", 1e-3),
            Candidate("powerprop", 2.0, learning_rate=0.1),
            Candidate("powerprop", 2.0, learning_rate=0.3),
            Candidate("powerprop", 3.0, learning_rate=0.3),
            Candidate("ssgd_log_l2", 1e-3),
            Candidate("ssgd_log_l2", 1e-4),
            Candidate("ssgd_log_l1", 3e-2),
            Candidate("ssgd_log_l1", 1e-2),
            Candidate("ssgd_p", 1.0),
            Candidate("ssgd_p", 0.5),
        ),
        ratios=(2.0, 5.0, 10.0, 20.0, 30.0, 50.0),
        checkpoint_every=10,
        log_every=2,
    )
    if profile == "tiny":
        config.dataset, config.batch_size, config.seeds = "digits", 64, 2
        config.pretrain = Fit(epochs=2, optimizer="sgd", learning_rate=0.05, final_learning_rate=0.0)
        config.candidates = (
            Candidate("sgd"),
            Candidate("l1", 1e-2),
            Candidate("ssgd_p", 1.5),
            Candidate("ssgd_p", 1.0),
        )
        config.ratios = (2.0, 10.0)
    elif profile == "lenet5":
        config.model = "lenet5"
        config.pretrain.epochs = 3
        config.candidates = (
            Candidate("sgd", learning_rate=0.1),
            Candidate("l1", 1e-3),
            Candidate("powerprop", 3.0, learning_rate=0.1),
            Candidate("ssgd_log_l2", 1e-4),
            Candidate("ssgd_log_l1", 1e-2),
            Candidate("ssgd_p", 0.5),
        )
    elif profile != "full":
        raise ValueError(f"Unknown profile {profile!r}; choose full, lenet5 or tiny.")
    return config
