"""Ways to a sparse network: sparse training, pruning at initialization, lottery tickets, gradual pruning, ADMM.

--config=configs/lenet300_sparse.py            LeNet-300-100 on MNIST
--config=configs/lenet300_sparse.py:tiny       seconds, on the embedded digits
"""

from experiments.contest import Candidate
from experiments.schema import Fit
from experiments.sparse_config import SparseConfig


def get_config(profile: str = "full") -> SparseConfig:
    """Profiles: full and tiny."""
    config = SparseConfig(
        dataset="mnist",
        model="lenet300",
        train=Fit(epochs=4, learning_rate=2e-3, final_learning_rate=2e-5),
        pretrain=Fit(epochs=1, learning_rate=2e-3, final_learning_rate=2e-4),
        settle=1.0,
        candidates=(
            Candidate("dense"),
            Candidate("static"),
            Candidate("set", 0.3),
            Candidate("rigl", 0.3),
            Candidate("acdc", 4),
            Candidate("soft_threshold", 1e-3),
            Candidate("soft_threshold", 1e-3, learning_rate=0.1, optimizer="sgd"),
            Candidate("soft_threshold", 3e-3, learning_rate=0.1, optimizer="sgd"),
            Candidate("snip"),
            Candidate("grasp"),
            Candidate("synflow"),
            Candidate("lottery_ticket"),
            Candidate("gradual_magnitude"),
            Candidate("admm", 0.03),
            Candidate("admm", 0.1),
        ),
        ratios=(10.0, 20.0, 50.0, 100.0),
        checkpoint_every=10,
        log_every=5,
    )
    if profile == "tiny":
        config.dataset, config.batch_size, config.seeds = "digits", 64, 1
        config.train, config.pretrain, config.settle = Fit(epochs=4), Fit(epochs=1), 1.0
        config.every, config.score_images, config.score_rounds = 5, 64, 4
        config.ratios = (10.0,)
        once = {candidate.method: candidate for candidate in reversed(config.candidates)}
        config.candidates = tuple(reversed(once.values()))
    elif profile != "full":
        raise ValueError(f"Unknown profile {profile!r}; choose full or tiny.")
    return config
