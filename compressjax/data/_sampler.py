"""A sampler without state: the batch of step t is a pure function of (seed, t).

With S = floor(size / batch) steps per epoch, step t reads rows (t mod S) batch .. of a permutation drawn from (seed,
floor(t / S)).  A resumed run therefore needs the step number and nothing else.  The size mod batch images left over in
one epoch are other ones in the next.
"""

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32


@functools.lru_cache(maxsize=4)
def _permutation(size: int, seed: int, epoch: int) -> Int32[np.ndarray, " size"]:
    """The order of one epoch; read-only, because the cache shares it."""
    # `spawn_key`, because SeedSequence([seed, epoch]) pads with zeros: (7,) and (7, 0) would be one stream.
    sequence = np.random.SeedSequence(seed, spawn_key=(epoch,))
    order = np.random.Generator(np.random.Philox(sequence)).permutation(size).astype(np.int32)
    order.setflags(write=False)
    return order


@dataclass(frozen=True)
class Sampler:
    """Shuffled batches of row numbers, reshuffled each epoch.

    Attributes:
      size: Number of images.
      batch_size: Rows per step, over all processes together.
      seed: Of the shuffling.
      process_index: Which of `process_count` equal shares of each batch `indices` returns.
      process_count: Number of processes that share each batch.

    Raises:
      ValueError: If a batch does not fit the data or does not split evenly over the processes.

    >>> sampler = Sampler(size=10, batch_size=4, seed=0)
    >>> sampler.steps_per_epoch, sampler.indices(0).shape
    (2, (4,))
    >>> bool((sampler.indices(7) == Sampler(10, 4, 0).indices(7)).all())
    True
    """

    size: int
    batch_size: int
    seed: int = 0
    process_index: int = 0
    process_count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= self.size:
            raise ValueError(f"batch_size={self.batch_size} must lie in 1..{self.size}, the number of images.")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must not be negative.")
        if self.process_count < 1 or self.batch_size % self.process_count:
            raise ValueError(f"batch_size={self.batch_size} must be a multiple of process_count={self.process_count}.")
        if not 0 <= self.process_index < self.process_count:
            raise ValueError(f"process_index={self.process_index} must lie in 0..{self.process_count - 1}.")

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass over the data."""
        return self.size // self.batch_size

    def indices(self, step: int) -> Int32[np.ndarray, " rows"]:
        """Rows of the batch of global step `step`.

        Args:
          step: Steps since the start of the run, 0 for the first.

        Returns:
          int32 (batch_size / process_count,); read-only.

        Raises:
          ValueError: If `step` is negative.
        """
        if step < 0:
            raise ValueError(f"step={step} must not be negative.")
        epoch, position = divmod(int(step), self.steps_per_epoch)
        share = self.batch_size // self.process_count
        start = position * self.batch_size + self.process_index * share
        return _permutation(self.size, self.seed, epoch)[start : start + share]
