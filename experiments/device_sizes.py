"""What `experiments.bench_device` measures: sizes of products, and a configuration per platform."""

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Size:
    """Products that are timed together.

    Attributes:
      rows: M.
      width: K and N.
      densities: Of the block-sparse variants.
      blocks: Their sizes.
      bits: Of the quantized variants; a block-sparse one of each at the lowest density joins them.
      gradients: Whether to time the gradients too, at the lowest density but one.
      cuts: Whether to time other cuts than the default, which Hopper's kernels have.
    """

    rows: int
    width: int
    densities: tuple[float, ...] = (0.5, 0.25, 0.1)
    blocks: tuple[int, ...] = (128,)
    bits: tuple[int, ...] = ()
    gradients: bool = False
    cuts: bool = False


ALL = (1.0, 0.5, 0.25, 0.1, 0.05)
SIZES = (
    Size(8192, 8192, ALL, (128, 64), gradients=True, cuts=True),
    Size(16, 8192, (0.5, 0.1), bits=(8, 4)),
    Size(1, 8192, (0.1,), bits=(8, 4)),
    Size(8192, 4096, ALL, gradients=True),
    Size(1024, 4096, ALL, (128, 64)),
    Size(128, 8192, (0.5, 0.1), bits=(8, 4)),
    Size(128, 4096),
    Size(8, 8192, (), bits=(8, 4)),
    Size(32, 8192, (), bits=(8, 4)),
    Size(1024, 2048),
    Size(16, 4096, (0.1,), bits=(8, 4)),
)


@dataclass(frozen=True)
class Config:
    """What to run.

    Attributes:
      sizes: In order of importance.
      check_rows: Row counts of the comparison with dense float32.
      check_width: K and N of it.
      rounds: Times each variant is timed.
      seconds: When to stop.
      implementation: Whose kernels.
      interpret: Whether they are interpreted.
      most_copies: Of the weights, within one program.
    """

    sizes: tuple[Size, ...] = SIZES
    check_rows: tuple[int, ...] = (1, 70, 300, 1024)
    check_width: int = 1024
    rounds: int = 50
    seconds: float = 420.0
    implementation: str = "mosaic_gpu"
    interpret: bool = False
    most_copies: int = 24

    @property
    def how(self) -> dict[str, Any]:
        """Arguments of every product."""
        platform = None if self.interpret else {"mosaic_gpu": "gpu", "mosaic_tpu": "tpu"}.get(self.implementation)
        return {"implementation": self.implementation, "platform": platform, "interpret": self.interpret}


CONFIGS = {
    "gpu": Config(),
    # Smaller blocks do not fill a TPU's tiles.
    "tpu": Config(tuple(replace(size, cuts=False, blocks=(128,)) for size in SIZES), implementation="mosaic_tpu"),
}


TINY = Config((Size(8, 128, (0.5,), (64,), (8,)),), (5,), 128, 2, 1e9, interpret=True, most_copies=1)
