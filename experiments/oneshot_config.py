"""The configuration of a one-shot comparison: a network, calibration data, methods and sparsities."""

from dataclasses import dataclass, field
from typing import Any

from experiments.schema import check_kind, check_types, choice, least, most

MOST_INPUTS = 1_000_000
METHODS = ("magnitude", "wanda", "sparsegpt", "alps")


@dataclass
class OneshotConfig:
    """One comparison: a network, calibration data, and what to make of its kernels."""

    model: str = "resnet20"
    options: dict[str, Any] = field(default_factory=dict)  # of `zoo.build`, for a network with random weights
    dataset: str = "cifar10"  # "": random tokens
    load: str = "pretrained"  # or "random"
    seed: int = 0
    calibration: int = 1024  # inputs
    batch_size: int = 128
    evaluation: int = 256  # random tokens only: sequences that predictions are compared on
    methods: tuple[str, ...] = METHODS
    removed: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8)  # shares of every kernel's weights that go; 0 only with bits
    n_of_m: tuple[tuple[int, ...], ...] = ((2, 4),)
    bits: tuple[int, ...] = ()  # quantize every one of these networks to each number of bits, and write it as a file
    fixed: tuple[str, ...] = ()  # globs of kernels that stay dense
    validation: int = 5000


def check(config: OneshotConfig) -> None:
    """Verifies what the library would not refuse by itself.

    Raises:
      ValueError: Naming the first field that is wrong.
    """
    check_kind(config, OneshotConfig, "experiments.oneshot")
    check_types(config, "config")
    choice("config.load", config.load, ("pretrained", "random"))
    for i, method in enumerate(config.methods):
        choice(f"config.methods[{i}]", method, METHODS)
    for name in ("calibration", "batch_size", "evaluation"):
        least(f"config.{name}", getattr(config, name), 1)
        most(f"config.{name}", getattr(config, name), MOST_INPUTS)
    if config.calibration % config.batch_size:
        raise ValueError(
            f"config.calibration is {config.calibration}; it must be a multiple of batch_size {config.batch_size}."
        )
    for share in config.removed:
        if not 0 <= share < 1 or (share == 0 and not config.bits):
            raise ValueError(f"config.removed holds {share}; shares lie between 0 and 1, and 0 needs config.bits.")
    for i, pair in enumerate(config.n_of_m):
        if len(pair) != 2 or not 0 < pair[0] < pair[1]:
            raise ValueError(f"config.n_of_m[{i}] is {tuple(pair)}; it must be two numbers, (2, 4) for 2 of every 4.")
    for name in ("seed", "validation"):
        least(f"config.{name}", getattr(config, name), 0)
    for bits in config.bits:
        if not 2 <= bits <= 8:
            raise ValueError(f"config.bits holds {bits}; it must lie in 2..8.")
    if config.bits and "wanda" in config.methods:
        raise ValueError("config.methods holds 'wanda', which does not quantize: leave it out, or config.bits empty.")
    if config.dataset == "" and config.load == "pretrained":
        raise ValueError("config.load is 'pretrained', but there are no trained networks on random tokens: use random.")
