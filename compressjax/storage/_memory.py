"""What the leaves of a file so far say about the next one: reader and writer keep it alike, leaf by leaf."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Memory:
    """Shapes and models of the leaves before.

    Attributes:
      last: Shape of the leaf before; empty before the first.
      outputs: Last axis of the kernel before; 0 before the first.
      weights: Of the mixtures of context coding, by kind of bit.
    """

    last: tuple[int, ...] = ()
    outputs: int = 0
    weights: dict[str, list[int]] = field(default_factory=dict)

    def copy(self) -> "Memory":
        """An independent copy, to try what a leaf would cost."""
        return Memory(self.last, self.outputs, {name: list(weights) for name, weights in self.weights.items()})

    def see(self, shape: Sequence[int]) -> None:
        """Remembers a leaf's shape."""
        self.last = tuple(shape)
        if len(shape) > 1:
            self.outputs = shape[-1]
